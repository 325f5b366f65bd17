"""The disk as the agent sees it: few operations, each of which a simulator can fail or lose.

Nothing is synced: the managers hold the truth.
"""

import os
from pathlib import Path
from typing import Protocol


class AppendFile(Protocol):
    """A file open for writing at its end."""

    def write(self, data: bytes) -> int:
        """Write at the end; returns how many bytes found room. Raises OSError."""

    def close(self) -> None:
        """Close."""


class Disk(Protocol):
    """A directory tree, readable by root only. Every method raises OSError."""

    def make_directory(self, path: Path) -> None:
        """Create the directory, and its parents, if missing."""

    def read(self, path: Path) -> bytes:
        """All of a file. Raises FileNotFoundError."""

    def open_append(self, path: Path) -> AppendFile:
        """Open a file at its end; it is made when missing."""

    def replace(self, path: Path, content: bytes) -> None:
        """Write a file anew, in place of what was there; a failure leaves that."""

    def remove(self, path: Path) -> None:
        """Remove the file; that it is missing is fine."""


class _SystemAppendFile:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def close(self) -> None:
        os.close(self._descriptor)


class SystemDisk:
    """The machine's file system. Files have mode 0600, because specs may hold credentials."""

    def make_directory(self, path: Path) -> None:
        """Create with mode 0700."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self, path: Path) -> bytes:
        """Read at once."""
        return path.read_bytes()

    def open_append(self, path: Path) -> AppendFile:
        """Open with O_APPEND."""
        return _SystemAppendFile(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))

    def replace(self, path: Path, content: bytes) -> None:
        """Write beside it, then rename."""
        temporary = path.with_suffix(".tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(content)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def remove(self, path: Path) -> None:
        """Unlink."""
        path.unlink(missing_ok=True)
