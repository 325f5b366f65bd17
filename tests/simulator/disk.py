"""A node's disk: it forgets what was not synced when power is lost, tears tails, fills up, fails, decays."""

import errno
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.simulator.loop import Process

BLOCK = 4096


class Inode:
    """A file's bytes, as programs see them, and what of them survives a loss of power."""

    __slots__ = ("before", "data", "stable")

    def __init__(self) -> None:
        self.data = bytearray()
        self.stable = 0  # so many bytes are durable
        self.before: bytes | None = None  # what was durable before a truncation that is not synced


class Disk:
    """Files of one node. Outlives its processes; `cut_power` is what a crash of the host does to it."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.files: dict[Path, Inode] = {}
        self._undo: list[Callable[[], None]] = []  # removals and creations that no directory sync has fixed
        self.full = False
        self.reserved: dict[Path, int] = {}
        """Bytes that files hold ready: space, once they are removed, on a disk that is full."""
        self.spare = 0
        self.failed = False
        """Whether it failed since its manager last started."""
        self.damaged = False
        """Whether something durable was lost or changed; until it is wiped for a new member."""
        self.sync_fails = 0
        """So many of the next syncs fail."""
        self.on_operation: Callable[[str, Path, Process], None] = lambda operation, path, process: None

    def of(self, process: Process) -> "ProcessDisk":
        """The disk as one process sees it, for as long as it lives."""
        return ProcessDisk(self, process)

    def settle(self) -> None:
        """A directory was synced: names are as they are."""
        self._undo.clear()

    def cut_power(self) -> None:
        """Keep what is durable, and of the rest what chance lets through: a prefix, which may be torn."""
        rng = self.rng
        for undo in reversed(self._undo[rng.randrange(len(self._undo) + 1) :] if self._undo else []):
            undo()
        self._undo.clear()
        for inode in self.files.values():
            if inode.before is not None and rng.random() < 0.5:
                inode.data = bytearray(inode.before)
            elif len(inode.data) > inode.stable:
                kept = inode.stable
                if rng.random() < 0.5:
                    kept += rng.randrange(len(inode.data) - inode.stable + 1)
                del inode.data[kept:]
                if kept > inode.stable and rng.random() < 0.3:
                    # The file grew, and its last block was not written.
                    start = inode.stable + rng.randrange(kept - inode.stable)
                    inode.data[start:] = bytes(kept - start)
            inode.stable, inode.before = len(inode.data), None

    def wipe(self, under: Path) -> None:
        """Lose every file below a directory."""
        self.files = {path: inode for path, inode in self.files.items() if under not in path.parents}
        self._undo.clear()

    def flip(self, path: Path, offset: int) -> None:
        """Flip a bit, durably."""
        inode = self.files[path]
        inode.data[offset] ^= 1 << self.rng.randrange(8)
        inode.stable = len(inode.data)


class ProcessDisk:
    """Implements the managers' and the agents' disk seams."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self.disk = disk
        self.process = process

    def touch(self, operation: str, path: Path, writes: bool = True, size: int = BLOCK) -> None:
        """Every operation begins here: the process may be dead, may die now, or the disk may fail."""
        self.process.check()
        if writes:
            self.disk.on_operation(operation, path, self.process)
            self.process.check()
            if self.disk.full and operation in ("write", "create"):
                if self.disk.spare >= size:
                    self.disk.spare -= size
                    return
                raise OSError(errno.ENOSPC, "No space left on device (injected)", str(path))

    # --- manager.raft.disk.Disk -----------------------------------------------------------------------

    def make_directory(self, path: Path) -> None:
        self.touch("mkdir", path, writes=False)

    def exists(self, path: Path) -> bool:
        self.touch("exists", path, writes=False)
        return path in self.disk.files

    def list_files(self, directory: Path) -> list[str]:
        self.touch("list", directory, writes=False)
        return [path.name for path in self.disk.files if path.parent == directory]

    def open_read(self, path: Path) -> "_Reader":
        self.touch("read", path, writes=False)
        if path not in self.disk.files:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        return _Reader(bytes(self.disk.files[path].data))

    def create(self, path: Path) -> "_File":
        self.touch("create", path)
        before = self.disk.files.get(path)
        inode = self.disk.files[path] = Inode()

        def undo() -> None:
            if self.disk.files.get(path) is inode:
                if before is None:
                    del self.disk.files[path]
                else:
                    self.disk.files[path] = before

        self.disk._undo.append(undo)
        return _File(self, path, inode)

    def open_append(self, path: Path) -> "_File":
        if path not in self.disk.files:
            return self.create(path)
        self.touch("open", path, writes=False)
        return _File(self, path, self.disk.files[path])

    def rename(self, source: Path, target: Path) -> None:
        self.touch("rename", target)
        self.disk.files[target] = self.disk.files.pop(source)
        self.disk.settle()
        self.touch("renamed", target)

    def sync_directory(self, directory: Path) -> None:
        self.touch("sync_directory", directory)
        self.disk.settle()

    def allocate(self, path: Path, size: int) -> None:
        self.touch("allocate", path)
        reserved = self.disk.reserved
        if self.disk.full and reserved.get(path, 0) < size:
            raise OSError(errno.ENOSPC, "No space left on device (injected)", str(path))
        reserved[path] = max(size, reserved.get(path, 0))
        self.disk.files.setdefault(path, Inode())

    def remove(self, path: Path) -> None:
        self.touch("remove", path)
        inode = self.disk.files.pop(path, None)
        self.disk.spare += self.disk.reserved.pop(path, 0)
        if inode is not None:
            self.disk._undo.append(lambda: self.disk.files.setdefault(path, inode) and None)

    # --- worker.agent.disk.Disk, besides ------------------------------------------------------------------

    def read(self, path: Path) -> bytes:
        """All of a file. Raises FileNotFoundError."""
        return self.open_read(path).read()

    def replace(self, path: Path, content: bytes) -> None:
        """Write a file anew, not synced: after a loss of power it may be the old one or torn."""
        temporary = path.with_suffix(".tmp")
        file = self.create(temporary)
        file.write(content)
        self.touch("rename", path)
        before = self.disk.files.get(path)
        self.disk.files[path] = self.disk.files.pop(temporary)

        def undo() -> None:
            if before is None:
                self.disk.files.pop(path, None)
            else:
                self.disk.files[path] = before

        self.disk._undo.append(undo)


class _File:
    """An open file. Writes reach the disk at a sync, or by chance."""

    def __init__(self, disk: ProcessDisk, path: Path, inode: Inode) -> None:
        self._disk, self._path, self._inode = disk, path, inode

    def write(self, data: bytes) -> int:
        self._disk.touch("write", self._path, size=len(data))
        self._inode.data += data
        self._disk.touch("written", self._path)
        return len(data)

    def sync(self) -> None:
        self._disk.touch("sync", self._path)
        if self._disk.disk.sync_fails:
            self._disk.disk.sync_fails -= 1
            raise OSError(errno.EIO, "Input/output error (injected)", str(self._path))
        self._inode.stable, self._inode.before = len(self._inode.data), None
        self._disk.touch("synced", self._path)

    def truncate(self, size: int) -> None:
        self._disk.touch("truncate", self._path)
        inode = self._inode
        if size < inode.stable and inode.before is None:
            inode.before = bytes(inode.data[: inode.stable])
        del inode.data[size:]
        inode.stable = min(inode.stable, size)

    def close(self) -> None:
        pass


class _Reader:
    """A file open for reading, as it was when opened."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    def read(self, size: int = -1, /) -> bytes:
        end = len(self._data) if size < 0 else self._position + size
        piece = self._data[self._position : end]
        self._position += len(piece)
        return piece

    def close(self) -> None:
        pass
