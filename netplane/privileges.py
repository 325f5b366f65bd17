"""Giving up root in a process of the data plane that serves strangers, except for what it needs.

`renounce` takes the steps that a kernel or a user namespace may refuse, while the process is root and may
still write its files; `become_nobody` then the last ones.
"""

import ctypes
import os

NET_ADMIN = 12
"""CAP_NET_ADMIN: marks on packets."""

# <linux/prctl.h>, <linux/capability.h>
_PR_SET_KEEPCAPS, _PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 8, 23, 24, 38
_CAPABILITY_VERSION_3 = 0x20080522
_NOBODY = 65534

_libc = ctypes.CDLL(None, use_errno=True)


def renounce() -> None:
    """Nothing that this process runs gets more than it has itself. Raises OSError."""
    capability = 0
    while _prctl(_PR_CAPBSET_READ, capability) >= 0:
        _check(_prctl(_PR_CAPBSET_DROP, capability), "PR_CAPBSET_DROP")
        capability += 1
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1), "PR_SET_NO_NEW_PRIVS")
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)


def become_nobody(capability: int) -> None:
    """Another user, with this capability only. The process must have one thread. Raises OSError."""
    _check(_prctl(_PR_SET_KEEPCAPS, 1), "PR_SET_KEEPCAPS")
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    kept = 1 << capability
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)), "capset")


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _prctl(option: int, argument: int) -> int:
    return int(_libc.prctl(option, *map(ctypes.c_ulong, (argument, 0, 0, 0))))
