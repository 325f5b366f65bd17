"""Which mount a path is on, and how mounts on it propagate: /proc/thread-self/mountinfo (proc(5))."""

from pathlib import Path
from typing import NamedTuple

_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


class MountEntry(NamedTuple):
    """One mount. `shared`: what is mounted below appears elsewhere, too; `slave`: what others mount, here."""

    point: str
    shared: bool
    slave: bool
    options: tuple[str, ...] = ()


def parse(text: str) -> list[MountEntry]:
    """All mounts, in the order in which they were made."""
    found = []
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) < 7 or "-" not in fields[6:]:
            continue
        optional = fields[6 : fields.index("-", 6)]
        point = fields[4]
        for escape, character in _ESCAPES.items():
            point = point.replace(escape, character)
        shared = any(each.startswith("shared:") for each in optional)
        slave = any(each.startswith("master:") for each in optional)
        found.append(MountEntry(point, shared, slave, tuple(fields[5].split(","))))
    return found


def mount_of(path: Path, text: str | None = None) -> MountEntry:
    """The mount that a path is on: the last one made at the nearest directory above it."""
    entries = parse(Path("/proc/thread-self/mountinfo").read_text() if text is None else text)
    parents = [str(path), *(str(parent) for parent in path.parents)]
    best = MountEntry("/", False, False)
    depth = len(parents)
    for entry in entries:
        if entry.point in parents and parents.index(entry.point) <= depth:
            best, depth = entry, parents.index(entry.point)
    return best


def is_mount_point(path: Path) -> bool:
    """True when something is mounted right here; unlike os.path.ismount, also for a bind mount."""
    path = path.resolve()
    return mount_of(path).point == str(path)
