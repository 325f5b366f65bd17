"""Snapshots that newer ones have replaced, as far as they are kept (`swarm update --max-snapshots`)."""

from pathlib import Path

from manager.raft.disk import Disk


class FormerSnapshots:
    """`snapshot.INDEX` beside `snapshot`; none lies under a void key."""

    def __init__(self, disk: Disk, path: Path) -> None:
        """A crash while the snapshot at `path` was being replaced is mended: the one before comes back."""
        self._disk = disk
        self._path = path
        self._kept = 0
        if not disk.exists(path) and (former := self.paths()):
            disk.rename(former[-1], path)

    def paths(self) -> list[Path]:
        """Oldest first."""
        prefix = f"{self._path.name}."
        names = sorted(self._disk.list_files(self._path.parent))
        return [
            self._path.with_name(name)
            for name in names
            if name.startswith(prefix) and name.removeprefix(prefix).isdigit()
        ]

    def keep(self, count: int) -> None:
        """Keep so many from now on."""
        self._kept = count
        self._drop(count)

    def replace(self, source: Path, index: int, *, key_changed: bool) -> None:
        """Put another in the place of the snapshot, which was of that index (0: there is none). Durable."""
        if self._kept and index and not key_changed and self._disk.exists(self._path):
            self._disk.rename(self._path, self._path.with_name(f"{self._path.name}.{index:020}"))
        self._disk.rename(source, self._path)
        self._drop(0 if key_changed else self._kept)

    def _drop(self, but: int) -> None:
        former = self.paths()
        for path in former[: max(0, len(former) - but)]:
            self._disk.remove(path)
