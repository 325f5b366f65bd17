"""How long the disk takes to make the log durable: the newest syncs, measured where they happen."""

from collections import deque
from dataclasses import dataclass
from pathlib import Path

from cluster.seams import Clock
from manager.raft.disk import AppendFile, Disk, ReadFile

KEPT = 512
"""Syncs that are looked back at."""


@dataclass(frozen=True, slots=True)
class SyncLatency:
    """Of the newest syncs, in nanoseconds; zeros before the first."""

    count: int = 0
    p50: int = 0
    p99: int = 0


class TimedDisk:
    """A disk whose log files' syncs are measured; snapshots' are not, as nobody waits for them."""

    def __init__(self, disk: Disk, clock: Clock) -> None:
        self._disk = disk
        self._clock = clock
        self._syncs: deque[int] = deque(maxlen=KEPT)

    def latency(self) -> SyncLatency:
        """May be called from another thread."""
        taken = sorted(self._syncs.copy())
        if not taken:
            return SyncLatency()
        count = len(taken)
        return SyncLatency(count, taken[count // 2], taken[min(count - 1, count * 99 // 100)])

    def _timed(self, path: Path, file: AppendFile) -> AppendFile:
        is_log = path.name.startswith("log.") or path.name == "new.log"
        return _TimedFile(file, self._clock, self._syncs) if is_log else file

    def make_directory(self, path: Path) -> None:
        """As the disk does."""
        self._disk.make_directory(path)

    def exists(self, path: Path) -> bool:
        """As the disk says."""
        return self._disk.exists(path)

    def list_files(self, directory: Path) -> list[str]:
        """As the disk lists them."""
        return self._disk.list_files(directory)

    def open_read(self, path: Path) -> ReadFile:
        """The disk's."""
        return self._disk.open_read(path)

    def create(self, path: Path) -> AppendFile:
        """The disk's, measured if it is a log."""
        return self._timed(path, self._disk.create(path))

    def open_append(self, path: Path) -> AppendFile:
        """The disk's, measured if it is a log."""
        return self._timed(path, self._disk.open_append(path))

    def rename(self, source: Path, target: Path) -> None:
        """As the disk does."""
        self._disk.rename(source, target)

    def sync_directory(self, directory: Path) -> None:
        """As the disk does."""
        self._disk.sync_directory(directory)

    def remove(self, path: Path) -> None:
        """As the disk does."""
        self._disk.remove(path)

    def allocate(self, path: Path, size: int) -> None:
        """A file of that size, held ready."""
        self._disk.allocate(path, size)


class _TimedFile:
    def __init__(self, file: AppendFile, clock: Clock, syncs: deque[int]) -> None:
        self._file = file
        self._clock = clock
        self._syncs = syncs

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def sync(self) -> None:
        begun = self._clock.monotonic()
        self._file.sync()
        self._syncs.append(self._clock.monotonic() - begun)

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def close(self) -> None:
        self._file.close()
