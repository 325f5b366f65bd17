"""What a container has changed in its image's files (`docker diff`): its writable layer, read. It blocks."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

MODIFIED, ADDED, DELETED = 0, 1, 2
OURS = frozenset(
    {
        "/.dockerenv", "/dev", "/dev/console", "/dev/mqueue", "/dev/pts", "/dev/shm", "/etc/hostname",  # noqa: S108
        "/etc/hosts", "/etc/mtab", "/etc/resolv.conf", "/proc", "/sys",
    }
)  # fmt: skip
"""Places that the runtime makes for its mounts."""


def changes(upper: Path, layers: Sequence[Path], places: Sequence[str]) -> list[tuple[str, int]]:
    """Paths and what became of them, by path. `places` are where the container has mounts."""
    made = OURS | {target.rstrip("/") for target in places}
    return sorted(_walk(upper, "", layers, made))


def _walk(
    directory: Path, path: str, layers: Sequence[Path], made: frozenset[str]
) -> Iterator[tuple[str, int]]:
    for entry in os.scandir(directory):
        inner = f"{path}/{entry.name}"
        info = entry.stat(follow_symlinks=False)
        if inner in made:
            continue
        if is_whiteout(info):
            yield inner, DELETED
            continue
        before = _in_image(inner, layers)
        within = list(_walk(Path(entry.path), inner, layers, made)) if stat.S_ISDIR(info.st_mode) else []
        if before is None:
            yield inner, ADDED
        elif within or not _same_directory(before, info):
            yield inner, MODIFIED
        yield from within


def _same_directory(before: os.stat_result, now: os.stat_result) -> bool:
    """A directory that is here only for what was mounted in it is no change."""
    both = stat.S_ISDIR(before.st_mode) and stat.S_ISDIR(now.st_mode)
    return both and (before.st_mode, before.st_uid, before.st_gid) == (now.st_mode, now.st_uid, now.st_gid)


def _in_image(path: str, layers: Sequence[Path]) -> os.stat_result | None:
    for layer in reversed(layers):
        try:
            info = os.lstat(f"{layer}{path}")
        except (FileNotFoundError, NotADirectoryError):
            continue
        return None if is_whiteout(info) else info
    return None


def is_whiteout(info: os.stat_result) -> bool:
    """Whether it says that a file of the layers below is gone."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
