"""A manager without a leader asks the others whether it still has a vote.

It loses it unnoticed when its node is demoted and promoted again before it looks: the others took it out of
Raft and refuse it, while its own role is what it was. Asking again is harmless to a manager that has its vote
and only misses a leader; one whose role is a worker's is refused.
"""

import logging
from collections.abc import Awaitable, Callable

from cluster.errors import ShoalError
from cluster.seams import SECOND, Clock

log = logging.getLogger("shoal.rpc")

LEADERLESS = 2 * SECOND
"""An election is over long before."""
PAUSE = SECOND // 2


class VoteKeeper:
    """Runs beside the manager. `leader` is the leader's node id as known here, "" when none is."""

    def __init__(self, leader: Callable[[], str], ask: Callable[[], Awaitable[None]], clock: Clock) -> None:
        self._leader = leader
        self._ask = ask
        self._clock = clock

    async def run(self) -> None:
        """Watch until cancelled."""
        since = self._clock.monotonic()
        while True:
            await self._clock.sleep(PAUSE)
            if self._leader():
                since = self._clock.monotonic()
            elif self._clock.monotonic() - since >= LEADERLESS:
                try:
                    await self._ask()
                    log.info("asked for this manager's vote again, having no leader")
                except ShoalError as error:
                    log.info("no leader, and no vote to be had", extra={"reason": str(error)})
                since = self._clock.monotonic()
