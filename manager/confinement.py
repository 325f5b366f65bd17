"""The manager gives up root before it reads a byte from outside.

In this order, as each step takes away what the one before it needed: directories are opened, the bounding set
of capabilities is emptied, groups and user change for good (with the user go all capabilities), no_new_privs,
and then Landlock (landlock(7)), where the kernel has it. This holds for the calling thread and those that it
starts, so it comes before any of them.

A directory below one that only root may enter (Python or Shoal in /root, say) is used by its open descriptor.
"""

import ctypes
import errno
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

import msgspec

from cluster.errors import ShoalError
from manager import landlock
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

_libc = ctypes.CDLL(None, use_errno=True)


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
    _forget_working_directory()
    code = {Path(name) for name in sys.path if os.path.isdir(name)} | _homes_of_code()
    try:
        held = {path: os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in homes | code}
        writable = [settings.state_dir, settings.socket.parent]
        if settings.founding is not None:
            writable.append(settings.certificates)
        rules = landlock.ruleset(writable, {*code, *_prefixes(), *SYSTEM_FILES, settings.certificates.parent})
        _give_up_root(uid, gid)
        if rules is None:
            log.info(
                "this kernel has no Landlock: modes and owners of files alone keep the manager off others'"
            )
        else:
            landlock.restrict_self(rules)
    except OSError as error:
        raise ConfinementFailed(f"the manager can't give up root: {error}") from error
    reached = {path: _reached(path, descriptor) for path, descriptor in held.items()}
    for path in _homes_of_code():
        if not os.access(reached[path], os.R_OK | os.X_OK):
            raise ConfinementFailed(
                f"the manager's user ({uid}) can't read {path}: make it readable (chmod -R go+rX {path})"
            )
    _import_from({str(path): str(reached[path]) for path in code if path != reached[path]})

    def moved(path: Path) -> Path:
        return reached[path.parent] / path.name

    return replace(
        settings,
        state_dir=moved(settings.state_dir),
        certificates=moved(settings.certificates),
        socket=moved(settings.socket),
    )


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


def _forget_working_directory() -> None:
    """`python -m` looks for modules where it was started, too, which may be /: that is not to be shown."""
    here = os.getcwd()
    if Path(here) not in _homes_of_code():
        sys.path[:] = [name for name in sys.path if name not in ("", here)]


def _homes_of_code() -> set[Path]:
    """Where modules are imported from late: Python's own, Shoal's, and the packages that it needs."""
    return {Path(os.__file__).parent, Path(__file__).parents[1], Path(msgspec.__file__).parents[1]}


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
