"""Room on the disk for the log: a reserve that is given up when the disk is full, so Raft can step aside.

Without room for its log a manager must not acknowledge anything. Ending the process would help nobody: what
it has is intact, others may be served from it, and a vote is a few bytes. So a file of a fixed size stands
by. When a write to the log meets a full disk, what was written of it is cut off, as much of the reserve is
freed, and the write is repeated; from then on the node is `full`: it takes no new entries, as a leader it
hands leadership on, and only votes, terms and what was under way still go to the log. As soon as the whole
reserve can be had again, it takes part as before. A failed sync is another matter: what it left on the disk
nobody knows (journal.py).
"""

import errno
import logging
from pathlib import Path

from cluster.seams import SECOND, Clock
from manager.raft.disk import AppendFile, Disk, ReadFile

log = logging.getLogger("shoal.raft.room")

RESERVE = 32 << 20
"""Holds more than a follower is sent, or a leader is asked, between two steps under heavy load."""
STEPS = 32
"""In how many steps it is given up, if little is needed."""
RETRY = 1 * SECOND
"""How often a full node looks for room."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_COPY = 1 << 20


def means_full(error: OSError) -> bool:
    """Whether the error says that the disk, or this user's share of it, is full."""
    return error.errno in _NO_ROOM


class Room:
    """The reserve in one directory. A size of 0 means none: then a full disk fails the write."""

    def __init__(self, disk: Disk, directory: Path, size: int, clock: Clock) -> None:
        self._disk = disk
        self._path = directory / "reserve"
        self._directory = directory
        self._size = size
        self._clock = clock
        self._look_at = 0
        self._left = _size_of(disk, self._path) if size and disk.exists(self._path) else 0
        self.full = False
        self._take()

    @property
    def reason(self) -> str:
        """What to tell a user; empty when there is room."""
        if not self.full:
            return ""
        return (
            f"the disk of {self._directory} is full: free at least {2 * self._size >> 20} MiB there, "
            "and this manager goes on by itself"
        )

    def for_log(self) -> Disk:
        """The disk, with writes that may use the reserve."""
        return _LogDisk(self._disk, self)

    def look(self) -> None:
        """Now and then, see whether a full disk has room again."""
        if self.full and self._clock.monotonic() >= self._look_at:
            self._take()
            if not self.full:
                log.warning("the disk has room again", extra={"path": str(self._directory)})

    def give_up(self, error: OSError, needed: int = 0) -> bool:
        """Free some of the reserve because of this error; False if that would not help or nothing is left.

        No more than is needed: whoever filled the disk takes what is freed.
        """
        if not means_full(error) or self._left == 0:
            return False
        self._left = max(0, self._left - max(2 * needed, self._size // STEPS))
        file = self._disk.open_append(self._path)
        try:
            file.truncate(self._left)
        finally:
            file.close()
        self._now_full()
        return True

    def _take(self) -> None:
        if self._size == 0:
            return
        try:
            self._disk.allocate(self._path, self._size)
        except OSError as error:
            if not means_full(error):
                raise
            self._now_full()
        else:
            self.full, self._left = False, self._size

    def _now_full(self) -> None:
        self._look_at = self._clock.monotonic() + RETRY
        if not self.full:
            self.full = True
            log.error("no room for the Raft log: %s", self.reason)


def _size_of(disk: Disk, path: Path) -> int:
    size, file = 0, disk.open_read(path)
    try:
        while piece := file.read(_COPY):
            size += len(piece)
    finally:
        file.close()
    return size


class _LogFile:
    def __init__(self, file: AppendFile, size: int, room: Room) -> None:
        self._file, self._size, self._room = file, size, room

    def write(self, data: bytes) -> None:
        while True:
            try:
                self._file.write(data)
                break
            except OSError as error:
                self._file.truncate(self._size)
                if not self._room.give_up(error, len(data)):
                    raise
        self._size += len(data)

    def sync(self) -> None:
        self._file.sync()

    def truncate(self, size: int) -> None:
        self._file.truncate(size)
        self._size = size

    def close(self) -> None:
        self._file.close()


class _LogDisk:
    def __init__(self, disk: Disk, room: Room) -> None:
        self._disk, self._room = disk, room

    def make_directory(self, path: Path) -> None:
        self._disk.make_directory(path)

    def exists(self, path: Path) -> bool:
        return self._disk.exists(path)

    def list_files(self, directory: Path) -> list[str]:
        return self._disk.list_files(directory)

    def open_read(self, path: Path) -> ReadFile:
        return self._disk.open_read(path)

    def create(self, path: Path) -> AppendFile:
        try:
            file = self._disk.create(path)
        except OSError as error:
            if not self._room.give_up(error):
                raise
            file = self._disk.create(path)
        return _LogFile(file, 0, self._room)

    def open_append(self, path: Path) -> AppendFile:
        return _LogFile(self._disk.open_append(path), _size_of(self._disk, path), self._room)

    def rename(self, source: Path, target: Path) -> None:
        try:
            self._disk.rename(source, target)
        except OSError as error:
            if not self._room.give_up(error):
                raise
            self._disk.rename(source, target)

    def sync_directory(self, directory: Path) -> None:
        self._disk.sync_directory(directory)

    def remove(self, path: Path) -> None:
        self._disk.remove(path)

    def allocate(self, path: Path, size: int) -> None:
        self._disk.allocate(path, size)
