"""Landlock (landlock(7)): a process says which files it and its threads may still use, for good."""

import contextlib
import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

# <linux/landlock.h>; the numbers of the system calls are the same on every architecture.
_SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_DIR, _MAKE_REG, _MAKE_SOCK = 1 << 7, 1 << 8, 1 << 9
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_ALL_RIGHTS = {1: 1 << 13, 2: 1 << 14, 3: 1 << 15, 5: 1 << 16}
"""For each version of the interface that added rights on files: one more than all of them."""
_SCOPES_SINCE, _SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 6, 1, 2

_READ = _EXECUTE | _READ_FILE | _READ_DIR
_CHANGE = (
    _READ_FILE
    | _READ_DIR
    | _WRITE_FILE
    | _TRUNCATE
    | _REMOVE_FILE
    | _REMOVE_DIR
    | _MAKE_DIR
    | _MAKE_REG
    | _MAKE_SOCK
    | _REFER
)
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The version of the kernel's Landlock; 0 without."""
    found = _libc.syscall(_SYS_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    return max(0, int(found))


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def ruleset(writable: Iterable[Path], readable: Iterable[Path]) -> int | None:
    """A descriptor for `restrict_self`; None when the kernel has no Landlock. `readable` may not be there.

    Raises:
        OSError: a directory can't be opened, or the kernel refuses the rules.
    """
    found = version()
    if found == 0:
        return None
    handled = _ALL_RIGHTS[max(since for since in _ALL_RIGHTS if since <= found)] - 1
    scoped = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if found >= _SCOPES_SINCE else 0
    attributes = _RulesetAttr(handled, 0, scoped)
    # An older kernel takes a longer struct if what it does not know is zero.
    rules = _check(
        _libc.syscall(
            _SYS_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)), 0
        ),
        "landlock_create_ruleset",
    )
    for path in writable:
        _allow(rules, path, _CHANGE & handled)
    _allow(rules, Path(os.devnull), _READ_FILE | _WRITE_FILE)
    for path in readable:
        with contextlib.suppress(FileNotFoundError):  # such as lib64 on some machines
            _allow(rules, path, _READ & handled)
    return rules


def restrict_self(rules: int) -> None:
    """Leave this thread, and those it starts, what the rules allow; closes the descriptor.

    Raises:
        OSError: the thread could still gain privileges (no_new_privs is not set).
    """
    try:
        _check(_libc.syscall(_SYS_RESTRICT_SELF, rules, 0), "landlock_restrict_self")
    finally:
        os.close(rules)


def _allow(rules: int, path: Path, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not path.is_dir():
            rights &= _OF_FILES
        rule = _PathBeneathAttr(rights, descriptor)
        _check(
            _libc.syscall(_SYS_ADD_RULE, rules, _RULE_PATH_BENEATH, ctypes.byref(rule), 0),
            f"landlock_add_rule {path}",
        )
    finally:
        os.close(descriptor)
