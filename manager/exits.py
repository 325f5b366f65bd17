"""How a manager process ends when it can't run, and where it says why to the daemon that started it."""

from pathlib import Path

EXIT_REFUSED = 2
"""It can't start as it was told to; starting it again at once would not help."""


def last_words(socket: Path) -> Path:
    """The file with the reason, beside the manager's private socket."""
    return socket.with_name(f"{socket.name}.error")
