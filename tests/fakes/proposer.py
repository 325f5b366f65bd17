"""A proposer without Raft: what is proposed is applied to the stores of this process.

It can delay, lose, refuse and reorder proposals, so that controllers meet what Raft does to them.
"""

import asyncio
from collections.abc import Callable

from cluster.errors import Unavailable
from cluster.seams import Clock
from manager.store import Store


class LocalProposer:
    """Applies entries in one order to all its stores; binds itself to them.

    `delay` (ns, by `clock`) passes before an entry is applied. `fail` is called with the number of each
    proposal, from 0: "lost" applies nothing, "unknown" applies it and yet reports failure. `hold()` keeps
    proposals back until `release(order)`, which applies them in the order given.
    """

    def __init__(
        self,
        *stores: Store,
        clock: Clock | None = None,
        delay: int = 0,
        fail: Callable[[int], str | None] = lambda number: None,
    ) -> None:
        self.stores = stores
        self.entries: list[bytes] = []
        self.proposed = 0
        self._clock = clock
        self._delay = delay
        self._fail = fail
        self._held: list[tuple[bytes, asyncio.Future[object]]] | None = None
        for store in stores:
            store.bind(self)

    @property
    def index(self) -> int:
        """The index of the last entry."""
        return len(self.entries)

    @property
    def held(self) -> int:
        """How many proposals wait for `release`."""
        return len(self._held or ())

    def hold(self) -> None:
        """Keep proposals back from now on."""
        self._held = []

    def release(self, order: Callable[[list[int]], list[int]] = lambda numbers: numbers) -> None:
        """Apply what was held, in the order into which `order` puts their numbers; hold no more."""
        held, self._held = self._held or [], None
        for number in order(list(range(len(held)))):
            entry, done = held[number]
            outcome = self.commit(entry)
            if not done.done():
                done.set_result(outcome)

    def commit(self, entry: bytes) -> object:
        """Apply an entry now."""
        self.entries.append(entry)
        outcomes = [store.apply(self.index, entry) for store in self.stores]
        return outcomes[0]

    async def propose(self, entry: bytes) -> object:
        """As `manager.store.Proposer`."""
        number = self.proposed
        self.proposed += 1
        if self._delay and self._clock is not None:
            await self._clock.sleep(self._delay)
        failure = self._fail(number)
        if failure == "unknown":
            self.commit(entry)
        if failure is not None:
            raise Unavailable(f"proposal {number}: {failure}")
        if self._held is None:
            return self.commit(entry)
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._held.append((entry, done))
        return await done
