"""The system calls that Python 3.11 lacks, as functions that raise OSError."""

import ctypes
import errno
import os
import platform
import re

MS_RDONLY = 0x1
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x2, 0x4, 0x8
MNT_DETACH = 2
CLONE_FS = 0x200
CLONE_NEWNS = 0x20000

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# The numbers of system calls since Linux 5.1 are the same on every architecture.
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 428, 429, 430, 431, 432
_SYS_OPENAT2 = 437
_FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 1, 6
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.inotify_init1.argtypes = (ctypes.c_int,)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode())
    _check(result, f"mount {kind or 'bind'} on {target}")


def unmount(target: str, flags: int = MNT_DETACH) -> bool:
    """umount2(2), lazily unless told otherwise; False when nothing was mounted there."""
    if _libc.umount2(target.encode(), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOENT):
        return False
    raise OSError(code, f"unmount {target}: {os.strerror(code)}")


def mount_with_options(kind: str, options: list[tuple[str, str]], target: str) -> None:
    """Mount by the new mount API, which takes any amount of options (mount(2) stops at one page)."""
    context = _check(_libc.syscall(_SYS_FSOPEN, kind.encode(), _FSOPEN_CLOEXEC), f"fsopen {kind}")
    try:
        for key, value in (("source", kind), *options):
            result = _libc.syscall(
                _SYS_FSCONFIG, context, _FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0
            )
            _check(result, f"mount {kind} on {target}: option {key}")
        result = _libc.syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        _check(result, f"mount {kind} on {target}")
        tree = _check(_libc.syscall(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0), f"fsmount {kind}")
    finally:
        os.close(context)
    try:
        result = _libc.syscall(
            _SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH
        )
        _check(result, f"mount {kind} on {target}")
    finally:
        os.close(tree)


def open_in_root(root: int, path: str, flags: int, mode: int = 0) -> int:
    """openat2(2): open `path` as if directory descriptor `root` were `/`; no symlink can lead out of it."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    result = _libc.syscall(_SYS_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    return _check(result, path)


def open_beneath(root: int, path: str, flags: int) -> int:
    """openat2(2): open `path` below directory descriptor `root`; what would lead out of it is EXDEV."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    result = _libc.syscall(_SYS_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    return _check(result, path)


def filesystem_type(path: str) -> int:
    """The magic number of the file system that a path is on (statfs(2))."""
    buffer = ctypes.create_string_buffer(256)
    _check(_libc.statfs(os.fsencode(path), buffer), f"statfs {path}")
    return int(ctypes.c_long.from_buffer(buffer).value)


def unshare(flags: int) -> None:
    """unshare(2): for the calling thread only."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """setns(2): for the calling thread only."""
    _check(_libc.setns(descriptor, kind), "setns")


def inotify_init() -> int:
    """A non-blocking inotify descriptor."""
    return _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")


def inotify_watch(descriptor: int, path: str, mask: int) -> int:
    """Watch a path; the watch's number."""
    return _check(_libc.inotify_add_watch(descriptor, os.fsencode(path), mask), f"watch {path}")


def release_at_least(major: int, minor: int) -> bool:
    """Whether the kernel is this version or newer."""
    have = re.match(r"(\d+)\.(\d+)", platform.release())
    return have is not None and (int(have[1]), int(have[2])) >= (major, minor)


def machine() -> str:
    """The architecture, as the kernel names it."""
    return platform.machine()
