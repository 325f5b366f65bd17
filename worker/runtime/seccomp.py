"""The seccomp section of a bundle: Docker's default policy, none, or a profile of the user's."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from cluster.errors import InvalidArgument
from worker.runtime.model import SeccompMode
from worker.runtime.syscalls import release_at_least

_EPERM, _ENOSYS = 1, 38
_GO_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64", "i686": "x86", "armv7l": "arm"}


class _Policy(msgspec.Struct, frozen=True):
    architectures: dict[str, list[str]]
    allow: dict[str, list[str]]
    allow_on_architecture: dict[str, list[str]]
    allow_with_capability: dict[str, list[str]]
    personality: list[int]
    refused_socket_families: list[int]
    clone_namespace_flags: int


@cache
def _policy() -> _Policy:
    data = files("worker.runtime").joinpath("seccomp_default.json").read_bytes()
    return msgspec.json.decode(data, type=_Policy)


def _allow(names: list[str], *arguments: Mapping[str, object]) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ALLOW"}
    if arguments:
        rule["args"] = list(arguments)
    return rule


@cache
def default_profile(capabilities: frozenset[str], machine: str) -> msgspec.Raw:
    """The default policy for a container with these capabilities, as OCI JSON (cached: it is long)."""
    policy = _policy()
    names = {name for group in policy.allow.values() for name in group}
    names.update(policy.allow_on_architecture.get(machine, ()))
    for capability, granted in policy.allow_with_capability.items():
        if capability in capabilities:
            names.update(granted)
    rules = [_allow(sorted(names))]
    rules += [
        _allow(["personality"], {"index": 0, "value": value, "op": "SCMP_CMP_EQ"})
        for value in policy.personality
    ]
    rules.append(
        _allow(
            ["socket"],
            *({"index": 0, "value": value, "op": "SCMP_CMP_NE"} for value in policy.refused_socket_families),
        )
    )
    if "CAP_SYS_ADMIN" not in capabilities:
        flags = {
            "index": 1 if machine == "s390x" else 0,  # s390 passes the stack first
            "value": policy.clone_namespace_flags,
            "valueTwo": 0,
            "op": "SCMP_CMP_MASKED_EQ",
        }
        rules.append(_allow(["clone"], flags))
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    return msgspec.Raw(
        msgspec.json.encode(
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "defaultErrnoRet": _EPERM,
                "architectures": policy.architectures.get(machine, []),
                "syscalls": rules,
            }
        )
    )


def custom_profile(text: str, capabilities: frozenset[str], machine: str) -> msgspec.Raw:
    """A profile in Docker's format (archMap, includes, excludes) or in OCI's, made into OCI's."""
    try:
        profile = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidArgument(f"the seccomp profile is not a JSON object: {error}") from None
    if "defaultAction" not in profile:
        raise InvalidArgument("the seccomp profile has no defaultAction")
    architecture = _GO_ARCHITECTURE.get(machine, machine)
    architectures = list(profile.get("architectures") or [])
    native = _policy().architectures.get(machine, [""])[0]
    for entry in profile.get("archMap") or []:
        if entry.get("architecture") == native:
            architectures = [native, *(entry.get("subArchitectures") or [])]
    rules = []
    for rule in profile.get("syscalls") or []:
        include, exclude = rule.get("includes") or {}, rule.get("excludes") or {}
        if not _applies(include, exclude, architecture, capabilities):
            continue
        kept = {key: rule[key] for key in ("action", "errnoRet", "args") if rule.get(key) is not None}
        kept["names"] = rule.get("names") or [rule.get("name", "")]
        rules.append(kept)
    result = {key: profile[key] for key in ("defaultAction", "defaultErrnoRet", "flags") if key in profile}
    return msgspec.Raw(msgspec.json.encode(result | {"architectures": architectures, "syscalls": rules}))


def _applies(
    include: dict[str, Any], exclude: dict[str, Any], architecture: str, capabilities: frozenset[str]
) -> bool:
    if include.get("arches") and architecture not in include["arches"]:
        return False
    if include.get("caps") and not capabilities.issuperset(include["caps"]):
        return False
    if include.get("minKernel") and not _kernel_at_least(include["minKernel"]):
        return False
    if architecture in (exclude.get("arches") or ()):
        return False
    if capabilities.intersection(exclude.get("caps") or ()):
        return False
    return not (exclude.get("minKernel") and _kernel_at_least(exclude["minKernel"]))


def _kernel_at_least(wanted: str) -> bool:
    major, minor = (*wanted.split("."), "0")[:2]
    return release_at_least(int(major), int(minor))


def seccomp_section(
    mode: SeccompMode, profile: str, capabilities: frozenset[str], machine: str
) -> msgspec.Raw | None:
    """What goes into config.json under linux.seccomp; None for no filter."""
    if mode is SeccompMode.UNCONFINED:
        return None
    if mode is SeccompMode.CUSTOM:
        return custom_profile(profile, capabilities, machine)
    return default_profile(capabilities, machine)
