"""Virtual time: it stands still until a test moves it."""

import asyncio
import heapq


class ManualClock:
    """A Clock whose time passes only by `advance`; sleepers wake in the order of their deadlines."""

    def __init__(self, start: int = 1_700_000_000_000_000_000) -> None:
        self._start = start
        self._passed = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = 0

    def now(self) -> int:
        """Nanoseconds since the epoch."""
        return self._start + self._passed

    def monotonic(self) -> int:
        """Nanoseconds since the clock was made."""
        return self._passed

    def jump(self, nanoseconds: int) -> None:
        """The wall clock is set to another time."""
        self._start += nanoseconds

    async def sleep(self, nanoseconds: int) -> None:
        """Wait until that much time was advanced."""
        if nanoseconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._number += 1
        heapq.heappush(self._sleepers, (self._passed + nanoseconds, self._number, future))
        await future

    async def advance(self, nanoseconds: int) -> None:
        """Let time pass, waking sleepers one after the other; what they do first runs to its next wait."""
        end = self._passed + nanoseconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            deadline, _, future = heapq.heappop(self._sleepers)
            self._passed = max(self._passed, deadline)
            if not future.done():
                future.set_result(None)
                await settle()
        self._passed = end
        await settle()


async def settle(rounds: int = 50) -> None:
    """Let every ready task run to its next wait."""
    for _ in range(rounds):
        await asyncio.sleep(0)
