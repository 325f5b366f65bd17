"""What a container has changed in its image's files (`docker diff`): its writable layer, read. It blocks."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

MODIFIED, ADDED, DELETED = 0, 1, 2
_OURS = frozenset(
    {
        "/.dockerenv", "/dev", "/dev/console", "/dev/mqueue", "/dev/pts", "/dev/shm", "/etc/hostname",  # noqa: S108
        "/etc/hosts", "/etc/mtab", "/etc/resolv.conf", "/proc", "/sys",
    }
)  # fmt: skip
"""Places that the runtime makes for its mounts."""


def changes(upper: Path, layers: Sequence[Path], places: Sequence[str]) -> list[tuple[str, int]]:
    """Paths and what became of them, by path. `places` are where the container has mounts."""
    made = _OURS | {target.rstrip("/") for target in places}
    return sorted((path, kind) for path, kind in _walk(upper, "", layers) if path not in made)


def _walk(directory: Path, path: str, layers: Sequence[Path]) -> Iterator[tuple[str, int]]:
    for entry in os.scandir(directory):
        inner = f"{path}/{entry.name}"
        info = entry.stat(follow_symlinks=False)
        if _is_whiteout(info):
            yield inner, DELETED
            continue
        yield inner, MODIFIED if _in_image(inner, layers) else ADDED
        if stat.S_ISDIR(info.st_mode):
            yield from _walk(Path(entry.path), inner, layers)


def _in_image(path: str, layers: Sequence[Path]) -> bool:
    for layer in reversed(layers):
        try:
            info = os.lstat(f"{layer}{path}")
        except (FileNotFoundError, NotADirectoryError):
            continue
        return not _is_whiteout(info)
    return False


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
