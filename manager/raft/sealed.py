"""Encrypted files that read and write like plain ones, from beginning to end: snapshots."""

import sys
from collections.abc import Iterator
from pathlib import Path

from cluster.seams import Random
from manager.keys.sealing import HEAD_SIZE, MAGIC, Damaged, Sealer, exactly, sealed_with, unseal
from manager.raft.disk import AppendFile, Disk, ReadFile
from manager.raft.errors import RaftCorrupt
from manager.raft.keyring import DataKey, Keyring


class SealedWriter:
    """An AppendFile whose `sync` seals the end: after it nothing more can be written."""

    def __init__(self, file: AppendFile, key: DataKey, context: bytes, random: Random) -> None:
        self._file = file
        self.key_id = key.id
        self._sealer = Sealer(key.key, context, random)
        self._begun = False

    def write(self, data: bytes) -> None:
        """Encrypted about a megabyte at a time. Raises OSError."""
        head = b"" if self._begun else self._sealer.head
        self._begun = True
        if sealed := head + self._sealer.add(data):
            self._file.write(sealed)

    def settle(self) -> None:
        """Make what has been written so far durable: the end has less to wait for. Raises OSError."""
        self._file.sync()

    def sync(self) -> None:
        """Write the end and return when all is durable. Raises OSError."""
        self.write(b"")
        self._file.write(self._sealer.finish())
        self._file.sync()

    def close(self) -> None:
        """Close; without a sync before, the file is worthless."""
        self._file.close()


class SealedReader:
    """A ReadFile of what a SealedWriter wrote. Every byte was authenticated before it is given out."""

    def __init__(self, file: ReadFile, chunks: Iterator[bytes], path: Path) -> None:
        self._file = file
        self._chunks = chunks
        self._path = path
        self._held = b""
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most size if that isn't negative. Raises RaftCorrupt."""
        parts, missing = [], size if size >= 0 else sys.maxsize
        while missing and (self._position < len(self._held) or self._fill()):
            piece = self._held[self._position : self._position + missing]
            self._position += len(piece)
            missing -= len(piece)
            parts.append(piece)
        return b"".join(parts)

    def _fill(self) -> bool:
        try:
            self._held, self._position = next(self._chunks, b""), 0
        except Damaged as error:
            raise RaftCorrupt(f"{self._path} is damaged: {error}") from error
        return bool(self._held)

    def close(self) -> None:
        """Close."""
        self._file.close()


def open_sealed(disk: Disk, path: Path, keyring: Keyring, purpose: str) -> tuple[ReadFile, str]:
    """The file as it was written, and the id of its data key; as it is, and "", if it is in clear.

    Raises OSError, RaftCorrupt.
    """
    file = disk.open_read(path)
    head = exactly(file.read, HEAD_SIZE)
    file.close()
    key_id = sealed_with(head)
    if key_id is None and head.startswith(MAGIC):
        raise RaftCorrupt(f"{path} is damaged: it ends in its first bytes")
    if key_id is None:
        keyring.check_clear(path)
        return disk.open_read(path), ""
    file = disk.open_read(path)
    chunks = unseal(file.read, keyring.key(key_id, path), keyring.context(purpose))
    return SealedReader(file, chunks, path), key_id
