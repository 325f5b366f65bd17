"""Which capabilities a container has: Docker's default set, plus what is added, minus what is dropped."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from cluster.errors import InvalidArgument

DEFAULT = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
]

_NAMES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
ALL = tuple(f"CAP_{name}" for name in _NAMES)
"""All capabilities, in the kernel's order (linux/capability.h)."""


@cache
def own() -> frozenset[str]:
    """The capabilities of this process; a container can't have more."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            mask = int(line.split()[1], 16)
            return frozenset(name for bit, name in enumerate(ALL) if mask >> bit & 1)
    return frozenset(ALL)


def _normal(name: str) -> str:
    upper = name.upper()
    if upper == "ALL":
        return upper
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in ALL:
        raise InvalidArgument(f"invalid capability: {name!r}")
    return full


def effective(add: Sequence[str], drop: Sequence[str], available: frozenset[str]) -> list[str]:
    """The container's capabilities, in a fixed order. `ALL` may be added or dropped."""
    added, dropped = {_normal(name) for name in add}, {_normal(name) for name in drop}
    if "ALL" in added:
        kept = set(ALL) - dropped
    elif "ALL" in dropped:
        kept = added
    else:
        kept = (set(DEFAULT) | added) - dropped
    return [name for name in ALL if name in kept and name in available]
