"""A cgroup of its own for each host, in every hierarchy of the machine (v1, v2 or hybrid).

A host is put in its cgroup and then in a cgroup namespace, so that inside `/` is the host's own: whatever the
daemon creates lies below it, limits work as on a real machine, and `down` finds everything by one name.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
LEAF = "init"
"""Where a host's own processes live: a v2 cgroup that delegates controllers can't hold any itself."""

_REMOVE_SECONDS = 5.0


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup hierarchy."""

    mount: Path
    kind: str
    """`cgroup` (v1) or `cgroup2`."""
    options: str
    """What mount(2) needs to mount the same hierarchy again: `cpu,cpuacct`, `name=systemd`."""

    @property
    def unified(self) -> bool:
        """True for version 2."""
        return self.kind == "cgroup2"


def parse_mountinfo(text: str) -> list[Hierarchy]:
    """The cgroup hierarchies in a /proc/PID/mountinfo (proc(5)), each once, under /sys/fs/cgroup."""
    found: dict[Path, Hierarchy] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        mount = Path(left.split()[4])
        kind, _, super_options = right.split(maxsplit=2)
        if kind not in ("cgroup", "cgroup2") or not mount.is_relative_to(ROOT):
            continue
        ignored = {
            "rw",
            "ro",
            "nsdelegate",
            "memory_recursiveprot",
            "favordynmods",
            "xattr",
            "clone_children",
        }
        options = [
            o for o in super_options.split(",") if o not in ignored and not o.startswith("release_agent=")
        ]
        found[mount] = Hierarchy(mount, kind, "" if kind == "cgroup2" else ",".join(options))
    return list(found.values())


def hierarchies() -> list[Hierarchy]:
    """The hierarchies that this process sees."""
    return parse_mountinfo(Path("/proc/self/mountinfo").read_text())


def _inherit_cpuset(group: Path) -> None:
    """A new v1 cpuset is empty and takes no process until it has CPUs and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (group / name).exists() and not (group / name).read_text().strip():
            (group / name).write_text((group.parent / name).read_text())


def _delegate(group: Path) -> None:
    """Let the children of a v2 cgroup use every controller that it has itself.

    A controller that can't be delegated (the parent holds processes, as in a container that shares its
    cgroup) is left out: its limits won't work there, and the daemon says so when one is asked for.
    """
    for controller in (group / "cgroup.controllers").read_text().split():
        try:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            continue


def create(path: str) -> None:
    """Create the cgroup `path` and its leaf in every hierarchy, with all controllers delegated."""
    for hierarchy in hierarchies():
        group = hierarchy.mount
        for part in path.split("/"):
            if hierarchy.unified:
                _delegate(group)
            group /= part
            group.mkdir(exist_ok=True)
            _inherit_cpuset(group)
        if hierarchy.unified:
            (group / LEAF).mkdir(exist_ok=True)


def join(path: str, *, leaf: bool) -> None:
    """Move this process into the cgroup `path`, or into its leaf where the hierarchy has one."""
    for hierarchy in hierarchies():
        group = hierarchy.mount / path
        (group / LEAF / "cgroup.procs" if leaf and hierarchy.unified else group / "cgroup.procs").write_text(
            "0"
        )


def enter_leaf_and_delegate(path: str) -> None:
    """From the cgroup `path`, move into its leaf and let its other children use all controllers (v2)."""
    for hierarchy in hierarchies():
        if hierarchy.unified:
            (hierarchy.mount / path / LEAF / "cgroup.procs").write_text("0")
            _delegate(hierarchy.mount / path)


def _children_first(group: Path) -> Iterator[Path]:
    for directory, _, _ in os.walk(group, topdown=False):
        yield Path(directory)


def remaining(path: str) -> list[Path]:
    """The directories of the cgroup `path` that exist."""
    return [group for hierarchy in hierarchies() if (group := hierarchy.mount / path).is_dir()]


def remove(path: str) -> None:
    """Remove the cgroup `path` with everything below it, deepest first.

    The kernel lets go of a dead process a moment after its exit, so a busy directory is tried again.

    Raises:
        OSError: a directory is still in use after a few seconds.
    """
    deadline = time.monotonic() + _REMOVE_SECONDS
    while groups := remaining(path):
        try:
            for group in groups:
                for directory in _children_first(group):
                    directory.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
