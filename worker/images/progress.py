"""Progress as Docker's JSON messages (moby, pkg/jsonmessage and pkg/progress)."""

from collections.abc import Callable
from typing import Any

from cluster.seams import MILLISECOND, Clock

Progress = Callable[[dict[str, Any]], None]
_INTERVAL = 100 * MILLISECOND
_BAR = 50
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def ignore(_message: dict[str, Any]) -> None:
    """A listener for those who don't care."""


class LayerProgress:
    """The messages of one layer, told to one listener; repeated counts at most every 100 ms."""

    def __init__(self, layer: str, listener: Progress, clock: Clock) -> None:
        self._layer = layer
        self._listener = listener
        self._clock = clock
        self._status = ""
        self._told = 0

    def __call__(self, status: str, current: int = 0, total: int = 0) -> None:
        """Tell a status, with bytes done and to do when it has any."""
        now = self._clock.monotonic()
        if total and status == self._status and current < total and now - self._told < _INTERVAL:
            return
        self._status, self._told = status, now
        message: dict[str, Any] = {"status": status, "progressDetail": {}, "id": self._layer}
        if total:
            message["progressDetail"] = {"current": current, "total": total}
            message["progress"] = bar(current, total)
        self._listener(message)


def bar(current: int, total: int) -> str:
    """The drawn bar that old clients show: `[====>    ]  1.2MB/3.4MB`."""
    filled = min(_BAR, _BAR * current // total)
    drawn = "=" * filled + (">" if filled < _BAR else "")
    return f"[{drawn:<{_BAR}}] {human_size(current):>8}/{human_size(total)}"


def human_size(size: float) -> str:
    """Bytes in decimal units with at most four significant digits, as docker prints them."""
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.4g}{unit}"
        size /= 1000
    return f"{size:.4g}{_UNITS[-1]}"
