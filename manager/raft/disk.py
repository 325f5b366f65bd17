"""The disk as Raft sees it: few operations, each of which a simulator can fail or lose."""

import os
from pathlib import Path
from typing import BinaryIO, Protocol


class AppendFile(Protocol):
    """A file open for writing at its end."""

    def write(self, data: bytes) -> None:
        """Write all of it at the end; not durable before `sync`. Raises OSError."""

    def sync(self) -> None:
        """Return when everything written is durable. Raises OSError; a failed sync must not be retried."""

    def truncate(self, size: int) -> None:
        """Cut the file to size bytes; the next write goes there."""

    def close(self) -> None:
        """Close without syncing."""


class ReadFile(Protocol):
    """A file open for reading; it stays readable after another was renamed over it."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most size if that isn't negative; empty at the end."""

    def close(self) -> None:
        """Close."""


class Disk(Protocol):
    """A directory tree. Every method raises OSError."""

    def make_directory(self, path: Path) -> None:
        """Create the directory, and its parents, if missing; only its owner may read it."""

    def exists(self, path: Path) -> bool:
        """Whether there is such a file."""

    def list_files(self, directory: Path) -> list[str]:
        """Names in the directory, in no order."""

    def open_read(self, path: Path) -> ReadFile:
        """Open from the start."""

    def create(self, path: Path) -> AppendFile:
        """An empty file in place of whatever was there."""

    def open_append(self, path: Path) -> AppendFile:
        """Open an existing file at its end."""

    def rename(self, source: Path, target: Path) -> None:
        """Replace target atomically; durable on return."""

    def sync_directory(self, directory: Path) -> None:
        """Return when the names in it are durable."""

    def remove(self, path: Path) -> None:
        """Remove the file; that it is missing is fine."""

    def allocate(self, path: Path, size: int) -> None:
        """A file of at least that many bytes, held ready by the disk. One that is there grows, or stays."""


class _SystemAppendFile:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        os.close(self._descriptor)


class SystemDisk:
    """The machine's file system."""

    def make_directory(self, path: Path) -> None:
        """Create with mode 0700."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def exists(self, path: Path) -> bool:
        """Whether the file is there."""
        return path.exists()

    def list_files(self, directory: Path) -> list[str]:
        """Names in the directory."""
        return os.listdir(directory)

    def open_read(self, path: Path) -> BinaryIO:
        """Open buffered."""
        return path.open("rb")

    def create(self, path: Path) -> AppendFile:
        """Create with mode 0600."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        return _SystemAppendFile(os.open(path, flags, 0o600))

    def open_append(self, path: Path) -> AppendFile:
        """Open with O_APPEND."""
        return _SystemAppendFile(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))

    def rename(self, source: Path, target: Path) -> None:
        """Rename, then sync the directory."""
        source.rename(target)
        self.sync_directory(target.parent)

    def sync_directory(self, directory: Path) -> None:
        """Sync it."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Unlink."""
        path.unlink(missing_ok=True)

    def allocate(self, path: Path, size: int) -> None:
        """Allocate with fallocate(2), where the file system can."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        former = os.fstat(descriptor).st_size
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            os.ftruncate(descriptor, former)
            raise
        finally:
            os.close(descriptor)
