"""Control groups of containers: which version there is, where a container's are, and what they tell.

The OCI runtime makes them and sets the limits; Shoal reads events and removes what a power loss left.
"""

import errno
import logging
import os
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("shoal.runtime")

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cgroups:
    """The machine's control group hierarchies. `unified`: version 2 only."""

    unified: bool
    mounts: tuple[Path, ...]

    def directories(self, path: str) -> list[Path]:
        """A cgroup's directory in every hierarchy."""
        return [mount / path.lstrip("/") for mount in self.mounts]

    def out_of_memory(self, path: str) -> bool:
        """True when the kernel killed something in the cgroup for want of memory."""
        name = "memory.events" if self.unified else "memory.oom_control"
        base = ROOT if self.unified else ROOT / "memory"
        try:
            text = (base / path.lstrip("/") / name).read_text()
        except OSError:
            return False
        return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in text.splitlines())

    def remove(self, path: str) -> None:
        """Remove a cgroup with everything below it. What still holds processes is left, and said."""
        for directory in self.directories(path):
            _remove(directory)

    def remove_if_empty(self, path: str) -> None:
        """Remove a cgroup and its parents that hold nothing (any more)."""
        for mount in self.mounts:
            directory = mount / path.lstrip("/")
            while directory != mount:
                try:
                    directory.rmdir()
                except FileNotFoundError:
                    pass
                except OSError:
                    break  # in use
                directory = directory.parent

    def children(self, path: str) -> set[str]:
        """Names of the cgroups right below one, over all hierarchies."""
        found: set[str] = set()
        for directory in self.directories(path):
            try:
                found.update(
                    entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)
                )
            except FileNotFoundError:
                continue
        return found

    def processes(self, path: str) -> set[int]:
        """Every process in a cgroup and below."""
        seen: set[int] = set()
        for directory in self.directories(path):
            for procs in (directory, *directory.rglob("*/")) if directory.exists() else ():
                try:
                    seen.update(int(pid) for pid in (procs / "cgroup.procs").read_text().split())
                except OSError:
                    continue
        return seen

    def kill(self, path: str) -> None:
        """SIGKILL every process in a cgroup (a container whose monitor is gone)."""
        for pid in self.processes(path) - {0, os.getpid()}:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue


def detect(root: Path = ROOT) -> Cgroups:
    """The hierarchies under /sys/fs/cgroup."""
    if (root / "cgroup.controllers").exists():
        return Cgroups(True, (root,))
    # Symbolic links there (cpu → cpu,cpuacct) are second names.
    mounts = tuple(
        sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))
    )
    return Cgroups(False, mounts)


def _remove(directory: Path) -> None:
    try:
        entries = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for entry in entries:
        _remove(Path(entry))
    try:
        directory.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        log.warning("control group is still in use", extra={"path": str(directory)})
