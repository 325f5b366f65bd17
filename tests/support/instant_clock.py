"""A clock whose sleeps take no time, for code that only backs off."""

import asyncio


class InstantClock:
    """Time passes by sleeping; `slept` holds every interval in ns."""

    def __init__(self) -> None:
        self.slept: list[int] = []
        self._time = 1_700_000_000_000_000_000

    def now(self) -> int:
        """Nanoseconds since the epoch."""
        return self._time

    def monotonic(self) -> int:
        """Nanoseconds; every look at it takes a microsecond."""
        self._time += 1000
        return self._time

    async def sleep(self, nanoseconds: int) -> None:
        """Note it and go on."""
        self.slept.append(nanoseconds)
        self._time += max(0, nanoseconds)
        await asyncio.sleep(0)
