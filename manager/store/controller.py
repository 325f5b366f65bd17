"""How a leader's controller lives through what happens to its watch and to Raft."""

import logging
from collections.abc import Awaitable, Callable

from cluster.errors import OutOfSequence, Unavailable
from cluster.seams import SECOND, Clock
from manager.store.events import WatchLagged

log = logging.getLogger("shoal.controller")

PAUSE = SECOND // 4


async def restarting(name: str, session: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Run `session` for ever, from a fresh view each time: at once when its watch lagged, after a pause when
    a write was not possible, its outcome is unknown, or others kept overtaking it. Other exceptions pass:
    they are defects.
    """
    while True:
        try:
            await session()
        except WatchLagged:
            log.warning("a controller fell behind and starts anew", extra={"controller": name})
        except (Unavailable, OutOfSequence) as error:
            log.warning(
                "a controller can't write and starts anew", extra={"controller": name, "reason": str(error)}
            )
            await clock.sleep(PAUSE)
