"""What agents say of their nodes anew, written to the store: of each node its newest word."""

import asyncio
import logging
from functools import partial

from cluster.errors import ShoalError
from cluster.objects import NodeDescription
from cluster.seams import MILLISECOND, Clock
from manager.dispatcher.registration import describe
from manager.store import OVERTAKEN, Store

log = logging.getLogger("shoal.dispatcher")

RETRY_AFTER = 250 * MILLISECOND


class DescriptionWriter:
    """Takes descriptions from sessions; `run` writes them. One per term of leadership."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: dict[str, NodeDescription] = {}
        self._arrived = asyncio.Event()

    def take(self, node_id: str, description: NodeDescription) -> None:
        """A description to be written."""
        self._waiting[node_id] = description
        self._arrived.set()

    async def run(self) -> None:
        """Write one after the other until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                node_id = next(iter(self._waiting))
                description = self._waiting.pop(node_id)
                try:
                    await self._store.update_retrying(
                        partial(describe, node_id=node_id, description=description)
                    )
                except OVERTAKEN as error:
                    log.info("description not written yet", extra={"node": node_id, "reason": str(error)})
                    self._waiting.setdefault(node_id, description)
                    await self._clock.sleep(RETRY_AFTER)
                except ShoalError as error:
                    log.error("a description was refused", extra={"node": node_id, "reason": str(error)})
