"""What happened in a commit, and the bounded stream in which a controller reads it."""

import asyncio
from collections import deque
from typing import Literal

from cluster.errors import ShoalError
from cluster.objects import StoreObject

QUEUE_BOUND = 4096  # commits that a watch holds for a slow reader


class Event:
    """One object's change. `old` is None for a creation, `new` for a deletion.

    `index` is the commit's place in Raft's log, `at` its proposer's wall clock in ns; all managers agree.
    """

    __slots__ = ("at", "index", "new", "old")

    def __init__(self, old: StoreObject | None, new: StoreObject | None, index: int = 0, at: int = 0) -> None:
        self.old = old
        self.new = new
        self.index = index
        self.at = at

    @property
    def kind(self) -> Literal["created", "updated", "deleted"]:
        """What happened to the object."""
        if self.old is None:
            return "created"
        return "deleted" if self.new is None else "updated"

    @property
    def object(self) -> StoreObject:
        """The object as it is now, or as it last was."""
        obj = self.new if self.new is not None else self.old
        assert obj is not None
        return obj

    def __repr__(self) -> str:
        return f"Event({self.kind} {self.object.kind} {self.object.id})"


class WatchLagged(ShoalError):
    """The reader fell behind and events were dropped, or the state was replaced by a snapshot: take a new
    view and watch."""


class Watch:
    """Commits after the view that it was taken with, in order: iterate asynchronously.

    One reader. Ends when closed (it is also a context manager); raises WatchLagged, once and for all, when
    more commits wait than it may hold.
    """

    def __init__(self, classes: tuple[type[StoreObject], ...], bound: int = QUEUE_BOUND) -> None:
        self._classes = classes
        self._bound = bound
        self._commits: deque[tuple[Event, ...]] = deque()
        self._lagged = False
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    def publish(self, events: tuple[Event, ...]) -> None:
        """The store's side: one commit. Never blocks."""
        if self._lagged or self._closed:
            return
        if self._classes:
            events = tuple(event for event in events if isinstance(event.object, self._classes))
        if not events:
            return
        if len(self._commits) >= self._bound:
            self.lag()
            return
        self._commits.append(events)
        self._wake()

    def lag(self) -> None:
        """The store's side: events can't be told any more."""
        self._lagged = True
        self._commits.clear()
        self._wake()

    def close(self) -> None:
        """Stop; a waiting reader's iteration ends."""
        self._closed = True
        self._commits.clear()
        self._wake()

    @property
    def waiting(self) -> bool:
        """Whether there is something to take without waiting: a commit, or the news that the watch lags."""
        return bool(self._commits) or self._lagged

    async def ready(self) -> None:
        """Wait until there is something to take; returns at once when closed. Cancelling loses nothing."""
        while not (self._commits or self._lagged or self._closed):
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def pending(self) -> list[tuple[Event, ...]]:
        """Take, without waiting, all commits that are there. Raises WatchLagged."""
        if self._lagged:
            raise WatchLagged("the reader of a watch fell behind")
        taken = list(self._commits)
        self._commits.clear()
        return taken

    def __aiter__(self) -> "Watch":
        return self

    async def __anext__(self) -> tuple[Event, ...]:
        await self.ready()
        if self._lagged:
            raise WatchLagged("the reader of a watch fell behind")
        if not self._commits:
            raise StopAsyncIteration
        return self._commits.popleft()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
