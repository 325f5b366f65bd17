"""Which capabilities a container has: Docker's default set, plus what is added, minus what is dropped."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from cluster.errors import InvalidArgument
from cluster.linux import CAPABILITIES, capability

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

ALL = CAPABILITIES


@cache
def own() -> frozenset[str]:
    """The capabilities of this process; a container can't have more."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            mask = int(line.split()[1], 16)
            return frozenset(name for bit, name in enumerate(ALL) if mask >> bit & 1)
    return frozenset(ALL)


def _normal(name: str) -> str:
    found = capability(name)
    if found is None:
        raise InvalidArgument(f"invalid capability: {name!r}")
    return found


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
