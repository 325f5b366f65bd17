"""The effects that decisions must not reach for themselves, as small protocols.

The daemons pass the real ones; the simulator passes virtual ones, so that the same code runs under both.
"""

import asyncio
import random
import time
from typing import Protocol

SECOND = 1_000_000_000
MILLISECOND = 1_000_000


class Clock(Protocol):
    """Time in integer nanoseconds."""

    def now(self) -> int:
        """Wall time: nanoseconds since the Unix epoch, UTC. For timestamps that users see."""

    def monotonic(self) -> int:
        """Nanoseconds since an arbitrary start, never set back. For every interval and deadline."""

    async def sleep(self, nanoseconds: int) -> None:
        """Return after that many nanoseconds; zero or less yields once."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> int:
        """Nanoseconds since the epoch."""
        return time.time_ns()

    def monotonic(self) -> int:
        """Nanoseconds of the monotonic clock."""
        return time.monotonic_ns()

    async def sleep(self, nanoseconds: int) -> None:
        """Sleep on the running asyncio loop."""
        await asyncio.sleep(max(0, nanoseconds) / SECOND)


class Random(Protocol):
    """The part of `random.Random` that Shoal uses; `random.SystemRandom` in daemons, seeded in simulation."""

    def random(self) -> float:
        """A float in [0, 1)."""

    def randrange(self, stop: int, /) -> int:
        """An integer in [0, stop)."""

    def getrandbits(self, k: int, /) -> int:
        """k random bits."""


def system_random() -> Random:
    """Randomness fit for identifiers and secrets."""
    return random.SystemRandom()
