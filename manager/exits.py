"""How a manager process ends when it can't run, and where it says why to the daemon that started it."""

import contextlib
from pathlib import Path

EXIT_FAIL_STOP = 70
"""What it had promised, it could no longer keep: a disk failed, or a state was damaged."""
EXIT_REFUSED = 2
"""It can't start as it was told to; starting it again at once would not help."""


def last_words(socket: Path) -> Path:
    """The file with the reason, beside the manager's private socket."""
    return socket.with_name(f"{socket.name}.error")


def leave_last_words(socket: Path, reason: str) -> None:
    """Write the reason there, if the disk lets us: it is in the log too."""
    with contextlib.suppress(OSError):
        last_words(socket).write_text(reason)
