"""Keeps a manager that was left behind by a forced new cluster from ever voting again.

Those left behind may still be a majority of the old members. Each that reaches the new cluster is told so and
remembers it on disk: it takes no further part until it joins anew, or a new cluster is forced on itself.
"""

from pathlib import Path

import msgspec

from manager.raft.disk import Disk


class LeftBehind(msgspec.Struct, frozen=True):
    """By which forced new cluster, and in whose words."""

    generation: int
    reason: str


class Fence:
    """One small file beside the journal."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self._path = directory / "left-behind"
        self._temporary = directory / "left-behind.new"
        self.closed = False
        """Whether what this node was told is on the disk."""

    def read(self) -> LeftBehind | None:
        """What this node was told, if anything. Raises OSError."""
        self._disk.remove(self._temporary)
        if not self._disk.exists(self._path):
            return None
        file = self._disk.open_read(self._path)
        try:
            told = msgspec.json.decode(file.read(), type=LeftBehind)
        finally:
            file.close()
        self.closed = True
        return told

    def close(self, told: LeftBehind) -> None:
        """Remember, durably. Raises OSError."""
        file = self._disk.create(self._temporary)
        try:
            file.write(msgspec.json.encode(told))
            file.sync()
        finally:
            file.close()
        self._disk.rename(self._temporary, self._path)
        self.closed = True

    def open(self) -> None:
        """A new cluster was forced here: what this node was told counts no more."""
        self._disk.remove(self._path)
        self.closed = False
