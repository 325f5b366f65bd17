"""Everything that goes from the Raft loop to the state machine's loop, through one queue, in order."""

import asyncio
import logging
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn, Protocol

from cluster.seams import MILLISECOND, Clock
from manager.raft.errors import FailStop

log = logging.getLogger("shoal.raft")

SLICE = 10 * MILLISECOND
"""How long one call may keep the owner's loop; the rest follows in the next turn."""


_FINISHED = object()


class StateMachine(Protocol):
    """What Raft replicates. All methods are called on the loop that called Raft.start(), in log order."""

    def apply(self, index: int, entry: bytes) -> object:
        """Apply a committed entry; the result goes to the proposer, if it is here. Must not raise."""

    def snapshot(self) -> Iterator[bytes]:
        """Capture the present state, at once and cheaply; another thread consumes the iterator."""

    def restoring(self, index: int, chunks: Iterator[bytes]) -> Iterator[None]:
        """Replace the state by a snapshot (the same chunks, at that index) in small steps, one for each item
        drawn. The state is what it was until the last one."""


Waiter = Callable[[object, Exception | None], None]
"""Told on the owner's loop: result, or error."""


@dataclass(slots=True)
class Apply:
    """A committed entry."""

    index: int
    entry: bytes
    waiter: Waiter | None = None


@dataclass(slots=True)
class Passed:
    """The log advanced by an entry that isn't the state machine's."""

    index: int


@dataclass(slots=True)
class Capture:
    """Take a snapshot here, and hand its chunks over."""

    take: Callable[[Iterator[bytes]], None]


@dataclass(slots=True)
class Restore:
    """Replace the state."""

    index: int
    chunks: Iterator[bytes]


@dataclass(slots=True)
class Call:
    """Tell someone on the owner's loop."""

    callback: Callable[[], None]


Item = Apply | Passed | Capture | Restore | Call


class Delivery:
    """The queue. `put` and `post` are called on the Raft loop; the rest happens on the owner's loop."""

    def __init__(
        self,
        owner: asyncio.AbstractEventLoop,
        state_machine: StateMachine,
        clock: Clock,
        fail_stop: Callable[[str], NoReturn],
    ) -> None:
        self._owner = owner
        self._state_machine = state_machine
        self._clock = clock
        self._fail_stop = fail_stop
        self._staged: list[Item] = []
        self._queue: deque[Item] = deque()
        self._scheduled = False
        self._dead = False
        self._restoring: Iterator[None] | None = None
        self._applied_waiters: list[tuple[int, asyncio.Future[None]]] = []
        self.applied_index = 0

    # -- Raft loop

    def put(self, item: Item) -> None:
        """Stage an item for the next post."""
        self._staged.append(item)

    def resolve(self, waiter: Waiter, result: object, error: Exception | None = None) -> None:
        """Stage an answer."""
        self._staged.append(Call(lambda: waiter(result, error)))

    def post(self) -> None:
        """Hand over what is staged."""
        if self._staged:
            self._queue.extend(self._staged)
            self._staged = []
            if not self._scheduled:
                self._scheduled = True
                try:
                    self._owner.call_soon_threadsafe(self._run)
                except RuntimeError:  # The owner's loop is closed: nobody is left to tell.
                    self._dead = True

    def backlog(self) -> int:
        """Items not yet taken."""
        return len(self._queue)

    # -- owner's loop

    def _run(self) -> None:
        # Cleared before looking: what is posted from here on schedules another call.
        self._scheduled = False
        end = self._clock.monotonic() + SLICE
        while self._queue and not self._dead:
            self._advance_queue()
            if self._queue and self._clock.monotonic() > end:
                if not self._scheduled:
                    self._scheduled = True
                    self._owner.call_soon(self._run)
                return

    def drain(self) -> None:
        """Deliver everything left, when the Raft loop has ended."""
        self.post()
        while self._queue and not self._dead:
            self._advance_queue()
        for _, future in self._applied_waiters:
            future.cancel()

    def _advance_queue(self) -> None:
        """Handle the next item, or a step of a restore, which stays first in the queue meanwhile."""
        item = self._queue[0]
        self._handle(item)
        if self._restoring is None and not self._dead:
            self._queue.popleft()

    def _handle(self, item: Item) -> None:
        try:
            match item:
                case Apply(index, entry, waiter):
                    result = self._state_machine.apply(index, entry)
                    self._advance(index)
                    if waiter is not None:
                        waiter(result, None)
                case Passed(index):
                    self._advance(index)
                case Capture(take):
                    take(self._state_machine.snapshot())
                case Restore(index, chunks):
                    self._restoring = self._restoring or self._state_machine.restoring(index, chunks)
                    if next(self._restoring, _FINISHED) is _FINISHED:
                        self._restoring = None
                        self._advance(index)
                case Call(callback):
                    callback()
        except FailStop:
            self._dead = True
            raise
        except Exception:  # noqa: BLE001 - a state machine that can't follow the log must not go on.
            self._dead = True
            self._fail_stop(f"the state machine failed on {type(item).__name__}:\n{traceback.format_exc()}")

    def _advance(self, index: int) -> None:
        self.applied_index = index
        if self._applied_waiters:
            ready = [future for wanted, future in self._applied_waiters if wanted <= index]
            self._applied_waiters = [pair for pair in self._applied_waiters if pair[0] > index]
            for future in ready:
                if not future.done():
                    future.set_result(None)

    async def wait_applied(self, index: int) -> None:
        """Return when the state machine has applied that index."""
        if self.applied_index >= index:
            return
        future: asyncio.Future[None] = self._owner.create_future()
        pair = (index, future)
        self._applied_waiters.append(pair)
        try:
            await future
        finally:
            if pair in self._applied_waiters:
                self._applied_waiters.remove(pair)
