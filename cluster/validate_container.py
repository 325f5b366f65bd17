"""Is a container's spec meant as written? What only the node can know (users, paths, images) is not asked.

Besides SwarmKit's checks, those that its engines make when a task starts: told at once, not by failing tasks.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from posixpath import normpath

import msgspec

from cluster import template
from cluster.errors import InvalidArgument, NotImplementedHere
from cluster.linux import MAX_HOSTNAME, RLIMITS, capability, is_signal, namespaced_sysctl
from cluster.spec import (
    ConfigReference,
    ContainerSpec,
    FileTarget,
    HealthConfig,
    Privileges,
    SecretReference,
    Ulimit,
)
from cluster.validate_mounts import check_mounts, is_image

_MILLISECOND = 1_000_000
_MAX_MODE = 0xFFFFFFFF  # os.FileMode: a larger one breaks the answers that Go clients read
_NOBODY = template.Fields(
    "serviceid",
    "servicename",
    None,
    "nodeid",
    "nodehostname",
    "os",
    "architecture",
    "taskid",
    "taskname",
    "1",
)
SECRETS_DIRECTORY, CONFIGS_DIRECTORY = "/run/secrets/", "/"


def check_container(container: ContainerSpec, service_labels: Mapping[str, str] | None = None) -> None:
    """Raise InvalidArgument or NotImplementedHere. Templates are tried with the service's labels."""
    fields = replace(_NOBODY, service_labels=service_labels)
    if not container.image:
        raise InvalidArgument("ContainerSpec: image reference must be provided")
    if not is_image(container.image):
        raise InvalidArgument(f'ContainerSpec: "{container.image}" is not a valid repository/tag')
    for variable in container.env or ():
        name, _, value = variable.partition("=")
        if not name:
            raise InvalidArgument(f"invalid environment variable: {variable!r}")
        template.check(value, fields)
    _check_hostname(container.hostname, fields)
    if container.dir and not container.dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{container.dir}' is invalid, it needs to be an absolute path"
        )
    if not -1000 <= container.oom_score_adj <= 1000:
        raise InvalidArgument(
            f"Invalid value {container.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    if container.stop_signal and not is_signal(container.stop_signal):
        raise InvalidArgument(f"Invalid signal: {container.stop_signal}: use a name such as SIGTERM")
    if container.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation '{container.isolation}' on linux: only default is offered")
    check_mounts(container.mounts or (), fields)
    _check_references("secret", SECRETS_DIRECTORY, container.secrets or ())
    _check_references("config", CONFIGS_DIRECTORY, container.configs or ())
    _check_health(container.healthcheck)
    _check_names(container)
    _check_kernel(container)
    _check_privileges(container.privileges)


def _check_hostname(hostname: str, fields: template.Fields) -> None:
    template.check(hostname, fields)
    if "{{" in hostname:
        return
    if len(hostname.encode()) > MAX_HOSTNAME:
        raise InvalidArgument(f"invalid hostname {hostname!r}: it may have {MAX_HOSTNAME} bytes at most")
    if any(character.isspace() for character in hostname):
        raise InvalidArgument(f"invalid hostname {hostname!r}: it must not contain white space")


def _check_references(
    kind: str, directory: str, references: Iterable[SecretReference | ConfigReference]
) -> None:
    targets: dict[str, str] = {}
    for reference in references:
        if isinstance(reference, SecretReference):
            id, name = reference.secret_id, reference.secret_name
        else:
            id, name = reference.config_id, reference.config_name
            if reference.runtime is not None:
                raise NotImplementedHere(
                    "config references with a Runtime target are for Windows' credential specs: give a File"
                )
        if not id and not name:
            raise InvalidArgument(
                f"malformed {kind} reference: {kind.capitalize()}ID or {kind.capitalize()}Name must be given"
            )
        file = reference.file or FileTarget(name=name)
        if reference.file is not None or name:
            _check_file(kind, name, file)
            target = normpath(file.name if file.name.startswith("/") else directory + file.name)
            if target in targets:
                raise InvalidArgument(
                    f"{kind} references '{targets[target]}' and '{name}' have a conflicting target: "
                    f"'{file.name}'"
                )
            targets[target] = name


def _check_file(kind: str, name: str, file: FileTarget) -> None:
    if not file.name:
        raise InvalidArgument(f"malformed file {kind} reference, invalid target file name provided")
    if ".." in file.name.split("/") or file.name.endswith("/"):
        raise InvalidArgument(f"invalid {kind} target {file.name!r}: give the path of a file, without ..")
    if any(number and not (number.isascii() and number.isdigit()) for number in (file.uid, file.gid)):
        raise InvalidArgument(f"{kind} {file.name}: UID and GID must be numbers")
    if any(int(number[:11] or 0) >= 1 << 31 for number in (file.uid, file.gid)):
        raise InvalidArgument(f"{kind} {file.name}: UID and GID must be below {1 << 31}")
    if file.mode > _MAX_MODE:
        raise InvalidArgument(f"{kind} {file.name}: invalid mode {file.mode:o}")


def _check_health(health: HealthConfig | None) -> None:
    if health is None:
        return
    if health.test:
        kind, *command = health.test
        if kind not in ("NONE", "CMD", "CMD-SHELL", ""):
            raise InvalidArgument(f"Unknown type {kind!r} in healthcheck: use NONE, CMD or CMD-SHELL")
        if kind.startswith("CMD") and not command:
            raise InvalidArgument(f"Healthcheck.Test: {kind} needs a command")
    for name, word in (
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start_period", "StartPeriod"),
        ("start_interval", "StartInterval"),
    ):
        if 0 < (getattr(health, name) or 0) < _MILLISECOND:
            raise InvalidArgument(f"ContainerSpec: {word} in HealthConfig cannot be less than 1ms")


def _check_names(container: ContainerSpec) -> None:
    dns = container.dns_config
    for server in dns.nameservers or () if dns else ():
        try:
            ip_address(server)
        except ValueError as error:
            raise InvalidArgument(f"invalid name server {server!r}: give its IP address") from error
    for word in (*(dns.search or ()), *(dns.options or ())) if dns else ():
        if not word or any(character.isspace() for character in word):
            raise InvalidArgument(f"invalid DNS search domain or option {word!r}: it must be one word")
    for entry in container.hosts or ():
        address, *names = entry.split()[:2] or [""]
        try:
            if address != "host-gateway":
                ip_address(address if names else "")
        except ValueError as error:
            raise InvalidArgument(f"invalid host entry {entry!r}: write ADDRESS NAME") from error
        if not names:
            raise InvalidArgument(f"invalid host entry {entry!r}: write ADDRESS NAME")


def _check_kernel(container: ContainerSpec) -> None:
    for which, names in (("CapAdd", container.capability_add), ("CapDrop", container.capability_drop)):
        for name in names or ():
            if capability(name) is None:
                raise InvalidArgument(f"invalid {which}: unknown capability: '{name}'")
    for name in container.sysctls or {}:
        if not namespaced_sysctl(name):
            raise InvalidArgument(
                f"sysctl '{name}' is not whitelisted: it is the whole machine's, not a container's"
            )
    seen: set[str] = set()
    for limit in container.ulimits or ():
        _check_ulimit(limit)
        if limit.name in seen:
            raise InvalidArgument(f"ulimit {limit.name} is given twice")
        seen.add(limit.name)


def _check_ulimit(limit: Ulimit) -> None:
    if limit.name not in RLIMITS:
        raise InvalidArgument(f"invalid ulimit type: {limit.name} (there are {', '.join(sorted(RLIMITS))})")
    if 0 <= limit.hard < limit.soft or (limit.soft < 0 <= limit.hard):
        raise InvalidArgument(
            f"ulimit {limit.name}: ulimit soft limit must be less than or equal to hard limit: "
            f"{limit.soft} > {limit.hard}"
        )


def _check_privileges(privileges: Privileges | None) -> None:
    if privileges is None:
        return
    if privileges.credential_spec is not None:
        raise NotImplementedHere("credential specs are for Windows: leave CredentialSpec out")
    seccomp = privileges.seccomp
    if seccomp is not None:
        if seccomp.mode not in ("", "default", "unconfined", "custom"):
            raise InvalidArgument(f"invalid seccomp mode {seccomp.mode!r}: default, unconfined or custom")
        if (seccomp.mode == "custom") != bool(seccomp.profile):
            raise InvalidArgument("a seccomp profile goes with mode custom, and with no other")
        if seccomp.profile:
            _check_seccomp_profile(seccomp.profile)
    armor = privileges.app_armor
    if armor is not None and armor.mode not in ("", "default", "disabled"):
        raise InvalidArgument(f"invalid AppArmor mode {armor.mode!r}: default or disabled")
    labels = privileges.selinux_context
    if labels is not None and labels.disable and any((labels.user, labels.role, labels.type, labels.level)):
        raise InvalidArgument("SELinuxContext: Disable goes with no User, Role, Type or Level")


def _check_seccomp_profile(profile: str) -> None:
    try:
        decoded = b64decode(profile, validate=True)
    except (Base64Error, ValueError) as error:
        raise InvalidArgument(f"the seccomp profile must be base64: {error}") from error
    try:
        parsed = msgspec.json.decode(decoded)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from error
    if not isinstance(parsed, dict) or not isinstance(parsed.get("defaultAction"), str):
        raise InvalidArgument("the seccomp profile must be a JSON object with a defaultAction")
