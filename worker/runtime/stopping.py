"""How a container is asked to end."""

import asyncio
import logging

from cluster.errors import InvalidArgument
from cluster.seams import Clock
from worker.runtime.process import signal_number
from worker.runtime.table import ContainerTable, Entry

log = logging.getLogger("shoal.runtime")

KILL = 9


def parse_signal(name: str) -> int:
    """The signal's number; InvalidArgument for an unknown one."""
    try:
        return signal_number(name)
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


async def ends_within(table: ContainerTable, entry: Entry, grace_ns: int, clock: Clock) -> bool:
    """Whether the container ends within the grace (ns; negative: however long it takes)."""
    ended = asyncio.ensure_future(table.ended(entry))
    if grace_ns < 0:
        await ended
        return True
    bound = asyncio.ensure_future(clock.sleep(grace_ns))
    try:
        await asyncio.wait({ended, bound}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        in_time = ended.done()
        ended.cancel()
        bound.cancel()
        await asyncio.gather(ended, bound, return_exceptions=True)
    if not in_time:
        log.info("container did not end in time", extra={"container": entry.config.id})
    return in_time
