"""The replicated store: views, watches, transactions proposed through Raft, and Raft's state machine."""

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol, TypeVar

from cluster import errors
from cluster.errors import InvalidArgument, OutOfSequence, ShoalError, Unavailable
from cluster.ids import new_id
from cluster.objects import StoreObject
from cluster.seams import Clock, Random, system_random
from manager.garbage import no_collections
from manager.store import snapshot
from manager.store.entry import MAX_BYTES, MAX_CHANGES, SCHEMA, Entry, UnknownSchema, decode, encode
from manager.store.events import QUEUE_BOUND, Event, Watch
from manager.store.snapshot import Outcome
from manager.store.transaction import Transaction, applied
from manager.store.view import View

log = logging.getLogger("shoal.store")

R = TypeVar("R")
ATTEMPTS = 10  # of a write that others keep overtaking
OUTCOMES_KEPT = 4096  # proposals remembered, to apply a retried one once
_REFUSALS = {cls.__name__: cls for cls in (errors.Conflict, errors.NotFound, errors.InvalidArgument)}


class Proposer(Protocol):
    """The one thing that the store knows of Raft."""

    async def propose(self, entry: bytes) -> object:
        """Replicate the entry and return what `Store.apply` returned for it on this manager.

        Raises Unavailable when it was certainly not or only maybe applied.
        """


class Store:
    """The cluster's state on one manager. To be used from one asyncio loop."""

    def __init__(self, clock: Clock, random: Random | None = None) -> None:
        self._clock = clock
        self._random = random or system_random()
        self._proposer: Proposer | None = None
        self._view = View.empty()
        self._outcomes: OrderedDict[str, Outcome] = OrderedDict()
        self._watches: weakref.WeakValueDictionary[int, Watch] = weakref.WeakValueDictionary()
        self._watches_made = 0

    def bind(self, proposer: Proposer) -> None:
        """Say where writes go."""
        self._proposer = proposer

    # --- reading --------------------------------------------------------------------------------------

    def view(self) -> View:
        """The state as applied here so far."""
        return self._view

    def watch(self, *classes: type[StoreObject], bound: int = QUEUE_BOUND) -> tuple[View, Watch]:
        """The state, and every commit after it that touches these kinds of objects (none named: all)."""
        watch = Watch(classes, bound)
        self._watches_made += 1
        self._watches[self._watches_made] = watch
        return self._view, watch

    # --- writing --------------------------------------------------------------------------------------

    async def update(self, change: Callable[[Transaction], R]) -> R:
        """Run `change` on a transaction and commit what it wrote as one entry; its result is returned.

        When this returns, `view()` has the write. Raises what `change` raises, OutOfSequence when another
        write came first (see `update_retrying`), Conflict for a taken name, InvalidArgument beyond 200
        changes or 1.5 MiB, Unavailable without a leader or quorum.
        """
        transaction = Transaction(self._view)
        result = change(transaction)
        await self._propose(transaction)
        return result

    async def update_retrying(self, change: Callable[[Transaction], R], attempts: int = ATTEMPTS) -> R:
        """As `update`, running `change` again on a fresh transaction when another write came first."""
        for _ in range(attempts - 1):
            try:
                return await self.update(change)
            except OutOfSequence as error:
                log.debug("retrying a write", extra={"reason": str(error)})
        return await self.update(change)

    async def batch(self, changes: Sequence[Callable[[Transaction], None]]) -> None:
        """Commit many changes that need not be atomic together, as many in one entry as fit.

        Each callable sees what those before it wrote. It may be run more than once (when the entry is full
        or another write came first), so it reads what it changes from its transaction. Raises as `update`;
        entries committed before the failing one stay.
        """
        start = 0
        while start < len(changes):
            for attempt in range(ATTEMPTS):
                transaction, following = self._filled(changes, start)
                try:
                    await self._propose(transaction)
                    break
                except OutOfSequence as error:
                    if attempt == ATTEMPTS - 1:
                        raise
                    log.debug("retrying a batch", extra={"reason": str(error)})
            start = following

    def _filled(
        self, changes: Sequence[Callable[[Transaction], None]], start: int
    ) -> tuple[Transaction, int]:
        """A transaction with as many of `changes` from `start` as fit, and where to go on."""
        transaction = Transaction(self._view)
        for position in range(start, len(changes)):
            fork = transaction.fork()
            changes[position](fork)
            if fork.too_large and position > start:
                return transaction, position
            transaction = fork
        return transaction, len(changes)

    async def _propose(self, transaction: Transaction) -> None:
        changes = transaction.changes()
        if not changes:
            return
        if transaction.too_large:
            raise InvalidArgument(
                f"the change is too large: {len(changes)} objects, {transaction.size} bytes; "
                f"at most {MAX_CHANGES} objects and {MAX_BYTES} bytes fit in one write"
            )
        if self._proposer is None:
            raise Unavailable("this manager has not joined its peers yet; try again")
        entry = Entry(SCHEMA, self._clock.now(), new_id(self._random), changes)
        outcome = await self._proposer.propose(encode(entry))
        if not isinstance(outcome, Outcome):
            raise TypeError(f"the proposer answered {outcome!r}, not the store's outcome")
        if outcome.refused:
            raise _refusal(outcome)

    # --- the state machine ----------------------------------------------------------------------------

    def apply(self, index: int, entry: bytes) -> Outcome:
        """Apply a committed entry; deterministic. A refused one changes nothing and says so in its outcome;
        one that was applied before (same request) has its first outcome again. Raises UnknownSchema,
        msgspec.DecodeError or ValueError on an entry that can't be read: the manager must stop, not skip it.
        """
        decoded = decode(entry)
        known = self._outcomes.get(decoded.request)
        if known is not None:
            self._view = self._view.at(index)
            return known
        events: tuple[Event, ...] = ()
        try:
            self._view, events = applied(self._view, index, decoded.at, decoded.changes)
            outcome = Outcome(index)
        except UnknownSchema:
            raise
        except ShoalError as error:
            self._view = self._view.at(index)
            outcome = Outcome(index, type(error).__name__, str(error))
        self._outcomes[decoded.request] = outcome
        if len(self._outcomes) > OUTCOMES_KEPT:
            self._outcomes.popitem(last=False)
        for watch in list(self._watches.values()):
            watch.publish(events)
        return outcome

    def snapshot(self) -> Iterator[bytes]:
        """The state as of now, in chunks. Taking it is O(1); the chunks may be drawn in another thread."""
        return snapshot.write(self._view, list(self._outcomes.items()))

    def restore(self, index: int, chunks: Iterator[bytes]) -> None:
        """Replace the state by a snapshot's. Watches lag. Raises DamagedSnapshot or UnknownSchema, and then
        the state is what it was."""
        for _ in self.restoring(index, chunks):
            pass

    def restoring(self, index: int, chunks: Iterator[bytes]) -> Generator[None, None, None]:
        """As `restore`, in steps of about a millisecond, so that the loop can do other things in between."""
        with no_collections():
            restored = yield from snapshot.reading(index, chunks)
        self._view = restored.view
        self._outcomes = OrderedDict(restored.outcomes)
        for watch in list(self._watches.values()):
            watch.lag()


def _refusal(outcome: Outcome) -> ShoalError:
    if outcome.refused == OutOfSequence.__name__:
        return OutOfSequence(outcome.message.partition(": ")[2])
    return _REFUSALS.get(outcome.refused, ShoalError)(outcome.message)
