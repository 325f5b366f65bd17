"""A directory that untrusted paths can't leave.

Parents are resolved by openat2 with RESOLVE_IN_ROOT: symbolic links are followed as if the directory were the
root, as they will be in the container; `..` and absolute targets stay inside (openat2(2), Linux 5.6).
"""

import contextlib
import ctypes
import errno
import os
import shutil
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.images.errors import InvalidImage

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_MAX_DEPTH = 256
_IMPLIED_MODE = 0o755
_MAX_COMPONENT = 255
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def split(name: str) -> list[str]:
    """The components of a path from an archive; raises InvalidImage for one that points upward.

    An absolute path counts from the root; `.` and doubled slashes are dropped.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidImage(f"path {name[:200]!r} leaves the layer's root")
    if len(parts) > _MAX_DEPTH or any(len(os.fsencode(part)) > _MAX_COMPONENT for part in parts):
        raise InvalidImage(f"path {name[:200]!r} is too deep or too long")
    if "\0" in name:
        raise InvalidImage(f"path {name[:200]!r} holds a zero byte")
    return parts


class RootDir:
    """An open directory, as context manager. Keeps the last parent open, since archives are in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.fd = -1
        self._depth = 0
        self._parent: tuple[tuple[str, ...], int] | None = None
        self._stale = False

    def __enter__(self) -> Self:
        self.fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._depth = _depth(self.fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_parent()
        os.close(self.fd)

    def parent(self, parts: list[str], *, create: bool) -> int:
        """A descriptor of the directory that holds `parts`' last one; valid until the next call.

        Missing directories are made (0755, root) when `create`; else FileNotFoundError.
        """
        key = tuple(parts[:-1])
        if not key:
            return self.fd
        if self._parent is not None and self._parent[0] == key and not self._stale:
            return self._parent[1]
        self._close_parent()
        fd = self._open_directory(key, create)
        self._parent = (key, fd)
        return fd

    def make_way(self, parent: int, name: str) -> None:
        """Remove what is at `name`, with all below it; nothing there is fine."""
        try:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
        self._stale = True  # the cached parent may have been reached through it

    def _close_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None
        self._stale = False

    def _open_directory(self, parts: tuple[str, ...], create: bool) -> int:
        path = "/".join(parts)
        try:
            return self._openat2(path)
        except FileNotFoundError:
            if not create:
                raise
        for depth in range(1, len(parts) + 1):
            self._make_directory(parts[:depth])
        return self._openat2(path)

    def _make_directory(self, parts: tuple[str, ...]) -> None:
        above = self._openat2("/".join(parts[:-1]) or ".")
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(parts[-1], _IMPLIED_MODE, dir_fd=above)
                os.chmod(parts[-1], _IMPLIED_MODE, dir_fd=above)
        finally:
            os.close(above)

    def _openat2(self, path: str) -> int:
        how = _OpenHow(
            os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS
        )
        while True:
            fd: int = _libc.syscall(
                _SYS_OPENAT2, self.fd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)
            )
            code = ctypes.get_errno()
            if fd >= 0:
                return self._not_too_deep(fd, path)
            if code == errno.ENOENT:
                raise FileNotFoundError(code, os.strerror(code), path)
            if code in (errno.ENOTDIR, errno.ELOOP):
                raise InvalidImage(f"path {path[:200]!r} goes through something that is not a directory")
            if code not in (errno.EINTR, errno.EAGAIN):
                raise OSError(code, os.strerror(code), path)

    def _not_too_deep(self, fd: int, path: str) -> int:
        """Links can lead to directories deeper than any one path; their removal must not recurse for ever."""
        try:
            if _depth(fd) - self._depth <= _MAX_DEPTH:
                return fd
        except OSError:
            pass  # its path is too long to be told
        os.close(fd)
        raise InvalidImage(f"path {path[:200]!r} is too deep")


def _depth(fd: int) -> int:
    return os.readlink(f"/proc/self/fd/{fd}").count("/")
