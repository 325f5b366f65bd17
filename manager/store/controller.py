"""How a leader's controller lives through what happens to its watch and to its writes."""

import logging
from collections.abc import Awaitable, Callable

from cluster.errors import Conflict, NotFound, OutOfSequence, ShoalError, Unavailable
from cluster.seams import SECOND, Clock
from manager.store.events import WatchLagged

log = logging.getLogger("shoal.controller")

PAUSE = SECOND // 4
OVERTAKEN = (Unavailable, OutOfSequence, NotFound, Conflict)
"""What a write may meet when others write, delete or lead meanwhile: look again, then decide again."""


async def restarting(name: str, session: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Run `session` for ever, from a fresh view each time: at once when its watch lagged, after a pause when
    a write was refused, was not possible, or its outcome is unknown.

    A refusal that no race explains, such as of a write that is too large, is logged as an error; it must not
    take the cluster's other controllers along. Other exceptions pass: they are defects.
    """
    while True:
        try:
            await session()
        except WatchLagged:
            log.warning("a controller fell behind and starts anew", extra={"controller": name})
        except OVERTAKEN as error:
            log.info(
                "a controller's write was overtaken: it starts anew",
                extra={"controller": name, "reason": str(error)},
            )
            await clock.sleep(PAUSE)
        except ShoalError as error:
            log.exception(
                "a controller's write was refused: it starts anew",
                extra={"controller": name, "reason": str(error)},
            )
            await clock.sleep(PAUSE)
