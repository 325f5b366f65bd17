"""A manager that came up at another address tells the others, until all of them have agreed on it."""

import logging
from collections.abc import Awaitable, Callable

from cluster.errors import ShoalError
from cluster.seams import SECOND, Clock

log = logging.getLogger("shoal.rpc")

PAUSE = SECOND // 2
RETRY = 2 * SECOND


class AddressKeeper:
    """Runs beside the manager. `outdated`: whether the members, or the state, have another address of this
    manager than it has. `tell` makes the leader change it; raises ShoalError, OSError."""

    def __init__(
        self, outdated: Callable[[], bool], tell: Callable[[], Awaitable[None]], clock: Clock
    ) -> None:
        self._outdated = outdated
        self._tell = tell
        self._clock = clock

    async def run(self) -> None:
        """Watch until cancelled. What changes the address is a restart, so this is mostly over at once."""
        while True:
            await self._clock.sleep(PAUSE)
            if not self._outdated():
                continue
            try:
                await self._tell()
                log.info("the managers know this one's new address")
            except (ShoalError, OSError, TimeoutError) as error:
                log.warning(
                    "the managers don't know this one's new address yet",
                    extra={"reason": str(error) or type(error).__name__},
                )
                await self._clock.sleep(RETRY)
