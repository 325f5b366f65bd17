"""A node's clocks: monotonic from its boot, wall time that is off and can jump."""

import asyncio

from cluster.seams import SECOND
from tests.simulator.loop import START, VirtualLoop

EPOCH = 1_767_225_600 * SECOND
"""1 January 2026, true time at the loop's first instant."""


class NodeClock:
    """Implements cluster.seams.Clock. Shared by the processes of one node."""

    def __init__(self, loop: VirtualLoop, skew: int) -> None:
        self._loop = loop
        self.skew = skew  # ns that its wall clock is ahead
        self._origin = START - 77 * SECOND

    def now(self) -> int:
        """Wall time as this node has it."""
        return EPOCH + self._loop.now - START + self.skew

    def monotonic(self) -> int:
        """Nanoseconds since some start of its own."""
        return self._loop.now - self._origin

    async def sleep(self, nanoseconds: int) -> None:
        """Sleep in virtual time."""
        await asyncio.sleep(max(0, nanoseconds) / SECOND)
