"""The default policy's shape, and profiles in Docker's format."""

from typing import Any

import msgspec
import pytest

from cluster.errors import InvalidArgument
from worker.runtime.capabilities import DEFAULT
from worker.runtime.model import SeccompMode
from worker.runtime.seccomp import custom_profile, default_profile, seccomp_section

DEFAULTS = frozenset(DEFAULT)


def allowed(capabilities: frozenset[str], machine: str = "x86_64") -> set[str]:
    profile: dict[str, Any] = msgspec.json.decode(default_profile(capabilities, machine))
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    return {
        name
        for rule in profile["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")
        for name in rule["names"]
    }


def test_default() -> None:
    names = allowed(DEFAULTS)
    assert {"read", "openat", "execve", "futex", "ptrace", "chroot", "arch_prctl"} <= names
    refused = {"mount", "umount2", "unshare", "setns", "bpf", "keyctl", "add_key", "request_key", "reboot"}
    refused |= {
        "kexec_load",
        "init_module",
        "io_uring_setup",
        "userfaultfd",
        "open_by_handle_at",
        "clone",
        "acct",
    }
    assert not refused & names


@pytest.mark.parametrize(
    ("capability", "name"),
    [("CAP_SYS_ADMIN", "mount"), ("CAP_SYS_BOOT", "reboot"), ("CAP_BPF", "bpf"), ("CAP_SYS_NICE", "mbind")],
)
def test_capabilities_allow(capability: str, name: str) -> None:
    assert name not in allowed(DEFAULTS)
    assert name in allowed(DEFAULTS | {capability})


def test_architectures() -> None:
    assert "arch_prctl" not in allowed(DEFAULTS, "aarch64")
    assert "sync_file_range2" in allowed(DEFAULTS, "aarch64")


def test_custom_profile_in_docker_format() -> None:
    text = msgspec.json.encode(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["clone3"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_CHOWN"]}},
                {"names": ["cacheflush"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
                {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            ],
        }
    ).decode()
    made = msgspec.json.decode(custom_profile(text, DEFAULTS, "x86_64"))
    assert made["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert [rule["names"][0] for rule in made["syscalls"]] == ["read", "ptrace"]


def test_modes() -> None:
    assert seccomp_section(SeccompMode.UNCONFINED, "", DEFAULTS, "x86_64") is None
    for text in ("[", "[]", "{}"):
        with pytest.raises(InvalidArgument, match="seccomp profile"):
            seccomp_section(SeccompMode.CUSTOM, text, DEFAULTS, "x86_64")
