"""Unpack a layer into a directory that overlayfs can use as a lower one.

Whiteouts (OCI image spec, layer.md): `.wh.NAME` becomes a character device 0/0, `.wh..wh..opq` the attribute
trusted.overlay.opaque (kernel, overlayfs.rst). The layer is untrusted: nothing is written outside the
directory, no device is made, and size and number of entries are bounded.
"""

import contextlib
import errno
import hashlib
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from worker.images.decompress import decompressed
from worker.images.errors import DigestMismatch, InvalidImage
from worker.images.rootdir import RootDir, split
from worker.images.tarstream import Entry, Kind, TarReader

_log = logging.getLogger("shoal.images")

_WHITEOUT = ".wh."
_WHITEOUT_META = ".wh..wh."
_OPAQUE = ".wh..wh..opq"
_OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"
_ATTRIBUTES = ("security.capability", "system.posix_acl_access", "system.posix_acl_default", "user.")
_DRAIN = 1 << 20
_READ_AHEAD = 256 << 10


@dataclass(frozen=True, slots=True)
class Limits:
    """What one layer may hold: bytes of its tar, and entries."""

    tar_bytes: int = 64 << 30
    entries: int = 2_000_000


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a layer turned out to be: digest and size of its tar, and the bytes of its files."""

    diff_id: str
    tar_bytes: int
    size: int


def unpack_layer(
    source: IO[bytes],
    root: Path,
    *,
    expected: str | None = None,
    limits: Limits | None = None,
    progress: Callable[[int], None] | None = None,
) -> Unpacked:
    """Unpack the layer at `source` (seekable; gzip, zstd or plain) into the empty directory `root`.

    `expected` is the digest its tar must have; DigestMismatch otherwise. `progress` hears the position in
    `source`. Raises InvalidImage for what must not be in a layer, OSError when the disk fails or is full.
    The caller throws `root` away after any error.
    """
    tar = _HashedTar(decompressed(source), limits or Limits())
    with RootDir(root) as directory:
        writer = _Writer(directory)
        for entry in (reader := TarReader(tar.read)):
            tar.count_entry()
            writer.add(entry, reader)
            if progress is not None:
                progress(source.tell())
        tar.drain()
        writer.finish()
    if expected is not None and tar.digest != expected:
        raise DigestMismatch("layer", expected, tar.digest)
    return Unpacked(tar.digest, tar.total, writer.size)


class _HashedTar:
    """The uncompressed tar: counted, bounded, hashed."""

    def __init__(self, read: Callable[[int], bytes], limits: Limits) -> None:
        self._source = read
        self._limits = limits
        self._hash = hashlib.sha256()
        self._entries = 0
        self._buffer = b""
        self._position = 0
        self.total = 0

    def read(self, size: int) -> bytes:
        if self._position == len(self._buffer):
            self._buffer = self._source(_READ_AHEAD)
            self._position = 0
            self._hash.update(self._buffer)
            self.total += len(self._buffer)
            if self.total > self._limits.tar_bytes:
                raise InvalidImage(f"layer unpacks to more than {self._limits.tar_bytes} bytes")
        chunk = self._buffer[self._position : self._position + size]
        self._position += len(chunk)
        return chunk

    def count_entry(self) -> None:
        self._entries += 1
        if self._entries > self._limits.entries:
            raise InvalidImage(f"layer has more than {self._limits.entries} entries")

    def drain(self) -> None:
        """Read what follows the end mark: it is part of the digest."""
        while self.read(_DRAIN):
            pass

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class _Writer:
    def __init__(self, root: RootDir) -> None:
        self._root = root
        self._directory_times: dict[tuple[str, ...], int] = {}
        self.size = 0

    def add(self, entry: Entry, reader: TarReader) -> None:
        parts = split(entry.name)
        if not parts:
            if entry.kind is Kind.DIRECTORY:
                self._own_directory(self._root.fd, entry)
                self._directory_times[()] = entry.mtime
            return
        if any(part.startswith(_WHITEOUT) for part in parts[:-1]):
            raise InvalidImage(f"path {entry.name[:200]!r} goes through a whiteout")
        try:
            if parts[-1].startswith(_WHITEOUT):
                self._white_out(parts)
            elif entry.kind in (Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE):
                self._device(entry, parts)
            else:
                self._create(entry, reader, self._root.parent(parts, create=True), parts)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE):
                raise
            raise InvalidImage(f"can't unpack {entry.name[:200]!r}: {error.strerror}") from error

    def finish(self) -> None:
        """Set the directories' times, which their content has changed."""
        for key, mtime in self._directory_times.items():
            parts = list(key)
            with contextlib.suppress(FileNotFoundError):
                if not parts:
                    os.utime(self._root.fd, ns=(mtime, mtime))
                    continue
                parent = self._root.parent(parts, create=False)
                os.utime(parts[-1], ns=(mtime, mtime), dir_fd=parent, follow_symlinks=False)

    def _create(self, entry: Entry, reader: TarReader, parent: int, parts: list[str]) -> None:
        name = parts[-1]
        if entry.kind is Kind.DIRECTORY:
            self._directory(entry, parent, parts)
            return
        if entry.kind is Kind.HARD_LINK:
            self._hard_link(entry, parts)
            return
        self._root.make_way(parent, name)
        if entry.kind is Kind.FILE:
            self._file(entry, reader, parent, name)
        elif entry.kind is Kind.SYMLINK:
            os.symlink(entry.link, name, dir_fd=parent)
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
            os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)
        else:
            os.mkfifo(name, entry.mode, dir_fd=parent)
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
            os.chmod(name, entry.mode, dir_fd=parent)
            os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _file(self, entry: Entry, reader: TarReader, parent: int, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            for chunk in reader.content():
                view = memoryview(chunk)
                while view:
                    view = view[os.write(fd, view) :]
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            _set_attributes(fd, entry)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)
        self.size += entry.size

    def _directory(self, entry: Entry, parent: int, parts: list[str]) -> None:
        name = parts[-1]
        mode = _mode(parent, name) or 0
        opaque = stat.S_ISCHR(mode)  # the layer has hidden what lower layers have here
        if not stat.S_ISDIR(mode):
            self._root.make_way(parent, name)
            os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._own_directory(fd, entry)
            if opaque:
                os.setxattr(fd, _OPAQUE_ATTRIBUTE, b"y")
        finally:
            os.close(fd)
        self._directory_times[tuple(parts)] = entry.mtime

    def _own_directory(self, fd: int, entry: Entry) -> None:
        os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        _set_attributes(fd, entry)

    def _hard_link(self, entry: Entry, parts: list[str]) -> None:
        target = split(entry.link)
        if not target or target == parts:
            raise InvalidImage(f"{entry.name[:200]!r} is a hard link to itself or to the root")
        try:
            above = os.dup(self._root.parent(target, create=False))
        except FileNotFoundError:
            raise _missing_target(entry) from None
        try:
            if _mode(above, target[-1]) is None:
                raise _missing_target(entry)
            if stat.S_IFMT(_mode(above, target[-1]) or 0) not in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO):
                raise InvalidImage(f"{entry.name[:200]!r} is a hard link to something that is not a file")
            parent = self._root.parent(parts, create=True)
            self._root.make_way(parent, parts[-1])
            os.link(target[-1], parts[-1], src_dir_fd=above, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(above)

    def _white_out(self, parts: list[str]) -> None:
        name = parts[-1]
        parent = self._root.parent(parts, create=True)
        if name == _OPAQUE:
            os.setxattr(parent, _OPAQUE_ATTRIBUTE, b"y")
            return
        if name.startswith(_WHITEOUT_META):
            return  # aufs' own bookkeeping
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in ("", ".", ".."):
            raise InvalidImage(f"whiteout {'/'.join(parts)[:200]!r} hides nothing that can be named")
        self._hide(parent, hidden)

    def _hide(self, parent: int, name: str) -> None:
        """Hide what lower layers have; what this layer itself has stays."""
        if stat.S_ISDIR(_mode(parent, name) or 0):
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                os.setxattr(fd, _OPAQUE_ATTRIBUTE, b"y")
            finally:
                os.close(fd)
            return
        with contextlib.suppress(FileExistsError):
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)

    def _device(self, entry: Entry, parts: list[str]) -> None:
        """Device nodes: 0/0 is overlayfs' whiteout; those in /dev are the runtime's; others are refused."""
        if entry.kind is Kind.CHAR_DEVICE and entry.device == (0, 0):
            self._hide(self._root.parent(parts, create=True), parts[-1])
        elif parts[0] == "dev":
            _log.debug("skipped a device node of a layer", extra={"path": entry.name})
        else:
            raise InvalidImage(f"layer holds the device node {entry.name[:200]!r}, which is refused")


def _mode(parent: int, name: str) -> int | None:
    """The mode of what is there, links not followed; None when there is nothing."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def _missing_target(entry: Entry) -> InvalidImage:
    return InvalidImage(
        f"{entry.name[:200]!r} is a hard link to {entry.link[:200]!r}, which is not in the layer"
    )


def _set_attributes(fd: int, entry: Entry) -> None:
    """Set the extended attributes that mean something inside a container; never overlayfs' own."""
    for name, value in entry.xattrs.items():
        if name.startswith(_ATTRIBUTES) and not name.startswith("user.overlay."):
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
