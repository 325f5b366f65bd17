"""The manager gives up root before it reads a byte from outside.

In this order, as each step takes away what the one before it needed: directories are opened, the bounding set
of capabilities is emptied, groups and user change for good (with the user go all capabilities), no_new_privs,
and then Landlock (landlock(7)), where the kernel has it. This holds for the calling thread and those that it
starts, so it comes before any of them.

A directory below one that only root may enter (Python or Shoal in /root, say) is used by its open descriptor.
"""

import contextlib
import ctypes
import errno
import logging
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cluster.errors import ShoalError
from manager.settings import Settings

log = logging.getLogger("shoal.manager.confinement")

SYSTEM_FILES = tuple(map(Path, ("/usr", "/lib", "/lib64", "/etc", "/proc", "/sys")))
"""What a Python process reads beside its own code. What is private there has its modes and owners."""

# <linux/prctl.h>, <linux/capability.h>
_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 2, 4
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522

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


class ConfinementFailed(ShoalError):
    """Root could not be given up; the manager does not run with more than it needs."""


def confine(settings: Settings) -> Settings:
    """Become `settings.user`, without capabilities, seeing only what a manager needs. None: stay as started.

    The directories must be there and belong to the user. Returns the settings with paths that it reaches.

    Raises:
        ConfinementFailed: the kernel refuses a step.
    """
    if settings.user is None:
        return settings
    uid, gid = settings.user
    homes = {settings.state_dir.parent, settings.certificates.parent, settings.socket.parent}
    code = {Path(name) for name in sys.path if os.path.isdir(name)}
    try:
        held = {path: os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in homes | code}
        writable = [settings.state_dir, settings.socket.parent]
        if settings.founding is not None:
            writable.append(settings.certificates)
        ruleset = _landlock(writable, {*code, *_prefixes(), *SYSTEM_FILES, settings.certificates.parent})
        _give_up_root(uid, gid)
        if ruleset is None:
            log.info(
                "this kernel has no Landlock: modes and owners of files alone keep the manager off others'"
            )
        else:
            _check(_libc.syscall(_SYS_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
            os.close(ruleset)
    except OSError as error:
        raise ConfinementFailed(f"the manager can't give up root: {error}") from error
    reached = {path: _reached(path, descriptor) for path, descriptor in held.items()}
    _import_from({str(path): str(reached[path]) for path in code if path != reached[path]})

    def moved(path: Path) -> Path:
        return reached[path.parent] / path.name

    return replace(
        settings,
        state_dir=moved(settings.state_dir),
        certificates=moved(settings.certificates),
        socket=moved(settings.socket),
    )


def landlock_version() -> int:
    """The version of the kernel's Landlock; 0 without."""
    version = _libc.syscall(_SYS_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    return max(0, int(version))


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def _prctl(option: int, *arguments: int) -> int:
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    return int(_libc.prctl(option, *padded))


def _give_up_root(uid: int, gid: int) -> None:
    parent = os.getppid()
    on_parents_death = ctypes.c_int()
    _check(_libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(on_parents_death)), "PR_GET_PDEATHSIG")
    capability = 0
    while _prctl(_PR_CAPBSET_READ, capability) >= 0:
        _check(_prctl(_PR_CAPBSET_DROP, capability), "PR_CAPBSET_DROP")
        capability += 1
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
    _clear_ambient()
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1), "PR_SET_NO_NEW_PRIVS")
    # No core dump with keys in it, and no process of the same user may look inside.
    _check(_prctl(_PR_SET_DUMPABLE, 0), "PR_SET_DUMPABLE")
    os.umask(0o077)
    # A change of the user cleared this (prctl(2)); the parent may have ended in the meantime.
    _check(_prctl(_PR_SET_PDEATHSIG, on_parents_death.value), "PR_SET_PDEATHSIG")
    if on_parents_death.value and os.getppid() != parent:
        os.kill(os.getpid(), on_parents_death.value)


def _clear_ambient() -> None:
    if _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL) < 0 and ctypes.get_errno() != errno.EINVAL:
        _check(-1, "PR_CAP_AMBIENT_CLEAR_ALL")  # EINVAL: a kernel before 4.3, which has none


def _prefixes() -> set[Path]:
    """Where Python and Shoal lie."""
    found = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    return {*map(Path, found), Path(__file__).parents[1]}


def _landlock(writable: Iterable[Path], readable: Iterable[Path]) -> int | None:
    """A ruleset of these directories; None when the kernel has no Landlock."""
    version = landlock_version()
    if version == 0:
        return None
    handled = _ALL_RIGHTS[max(since for since in _ALL_RIGHTS if since <= version)] - 1
    scoped = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if version >= _SCOPES_SINCE else 0
    attributes = _RulesetAttr(handled, 0, scoped)
    # An older kernel takes a longer struct if what it does not know is zero.
    ruleset = _check(
        _libc.syscall(
            _SYS_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)), 0
        ),
        "landlock_create_ruleset",
    )
    for path in writable:
        _allow(ruleset, path, _CHANGE & handled)
    _allow(ruleset, Path(os.devnull), _READ_FILE | _WRITE_FILE)
    for path in readable:
        with contextlib.suppress(FileNotFoundError):  # such as lib64 on some machines
            _allow(ruleset, path, _READ & handled)
    return ruleset


def _allow(ruleset: int, path: Path, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not path.is_dir():
            rights &= _OF_FILES
        rule = _PathBeneathAttr(rights, descriptor)
        _check(
            _libc.syscall(_SYS_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0),
            f"landlock_add_rule {path}",
        )
    finally:
        os.close(descriptor)


def _reached(directory: Path, descriptor: int) -> Path:
    """A path to it that works without root. The descriptor stays open where it is needed."""
    try:
        directory.stat()
    except PermissionError:
        return Path(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)
    return directory


def _import_from(moved: dict[str, str]) -> None:
    """Let modules that are imported from now on be found where the directories can be reached."""

    def reached(name: str) -> str:
        for old in sorted(moved, key=len, reverse=True):
            if name == old or name.startswith(f"{old}/"):
                return moved[old] + name[len(old) :]
        return name

    sys.path[:] = map(reached, sys.path)
    for module in list(sys.modules.values()):
        if isinstance(path := getattr(module, "__path__", None), list):
            path[:] = map(reached, path)
    sys.path_importer_cache.clear()
