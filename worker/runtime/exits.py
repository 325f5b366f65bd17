"""Exit codes, as conmon writes them: one file for each container that ended."""

from collections.abc import Callable
from pathlib import Path

from worker.runtime.inotify import IN_MOVED_TO, IN_Q_OVERFLOW, Inotify


def watch_exits(
    inotify: Inotify, directory: Path, ended: Callable[[str], None], overflow: Callable[[], None]
) -> Callable[[], None]:
    """Call `ended(id)` for every exit file, `overflow()` when notices were lost; returns what ends it."""

    def notice(mask: int, name: str) -> None:
        if mask & IN_Q_OVERFLOW:
            overflow()
        elif "." not in name:  # conmon writes ID.random and renames it
            ended(name)

    return inotify.watch(directory, IN_MOVED_TO, notice)


def read_exit_code(path: Path) -> int | None:
    """The exit code in an exit file; None when there is none yet."""
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None
    return int(text) if text else None
