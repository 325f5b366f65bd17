"""One timer for everything that falls due by itself."""

import asyncio
from collections.abc import Callable
from typing import Protocol

SLACK = 0.001
"""Seconds later than asked: deadlines count once they have passed, and loops round."""
NEVER = float("inf")


class Scheduler(Protocol):
    """The part of an event loop that the node uses."""

    def call_soon(self, callback: Callable[[], None], /) -> object:
        """Call in the next turn."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> asyncio.TimerHandle:
        """Call after delay seconds."""


class Alarm:
    """Rings soon after the earliest moment that it was set to since it last rang.

    A later moment changes nothing: whoever hears it ring looks what is due, and sets it again. So a deadline
    that moves away at every message costs one timer now and then, not one each.
    """

    def __init__(self, scheduler: Scheduler, now: Callable[[], float], ring: Callable[[], None]) -> None:
        self._scheduler = scheduler
        self._now = now
        self._ring = ring
        self._moment = NEVER
        self._timer: asyncio.TimerHandle | None = None

    def set(self, moment: float) -> None:
        """Ring at that moment (seconds, as `now` counts them) at the latest."""
        if moment < self._moment:
            self.cancel()
            self._moment = moment
            delay = max(0.0, moment - self._now()) + SLACK
            self._timer = self._scheduler.call_later(delay, self._rung)

    def _rung(self) -> None:
        self._moment, self._timer = NEVER, None
        self._ring()

    def cancel(self) -> None:
        """Don't ring."""
        if self._timer is not None:
            self._timer.cancel()
        self._moment, self._timer = NEVER, None
