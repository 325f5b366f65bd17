"""The manager's recent events: a bounded ring that is fed by a store watch and read by every stream.

One reader of the store, however many clients: a slow one falls behind in the ring, and takes no memory.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import msgspec

from cluster.errors import ShoalError
from cluster.events import event_line
from cluster.objects import Config, Network, Node, Secret, Service
from cluster.seams import Clock
from manager.api.event_messages import described
from manager.store import Event, Store, WatchLagged

MAX_EVENTS = 4096
MAX_BYTES = 4 << 20
_OVERHEAD = 512
_LOST = (
    "events were lost: they came faster than they were read, or another manager sent this one the whole "
    "state; list what you follow, and follow it again"
)
_ACTIONS = {"created": "create", "updated": "update", "deleted": "remove"}
OBSERVED = (Config, Network, Node, Secret, Service)


class EventsLost(ShoalError):
    """Events between the last one read and the present are not kept here any more."""


class Logged(msgspec.Struct, frozen=True):
    """One event that can be told: what filters look at, and the line."""

    kind: str
    action: str
    id: str
    name: str
    labels: dict[str, str]
    at: int
    index: int
    line: bytes

    @property
    def size(self) -> int:
        """About how much memory it takes, in bytes."""
        return len(self.line) + sum(len(k) + len(v) for k, v in self.labels.items()) + _OVERHEAD


class EventLog:
    """Recent events of cluster objects on this manager. Positions count events since the log began."""

    def __init__(self, store: Store, clock: Clock, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES):
        self._store = store
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events: deque[Logged] = deque()
        self._bytes = 0
        self._first = 0
        self._changed = asyncio.Event()
        self._clock = clock
        self._begun = False
        self.index = store.view().index
        """Every change after this index is in positions from `end` on."""
        self.complete_from = clock.now()
        """Events of this moment (ns since the epoch) and later are all kept."""

    @property
    def end(self) -> int:
        """The position of the next event."""
        return self._first + len(self._events)

    async def run(self) -> None:
        """Follow the store until cancelled. When the store was replaced by a snapshot, begin anew."""
        while True:
            view, watch = self._store.watch(*OBSERVED)
            with watch:
                if self._begun:
                    self._begin_anew()
                self._begun = True
                self.index = view.index
                try:
                    async for commit in watch:
                        self._add(commit)
                except WatchLagged:
                    continue

    def position_at(self, since: int) -> int:
        """The position of the first kept event of that moment (ns) or later."""
        for offset, event in enumerate(self._events):
            if event.at >= since:
                return self._first + offset
        return self.end

    def index_before(self, position: int) -> int:
        """An index after which every change is at `position` or later."""
        offset = position - self._first
        return self._events[offset].index - 1 if offset < len(self._events) else self.index

    async def read(self, position: int, follow: bool) -> AsyncIterator[Logged]:
        """Events from a position on; without `follow`, only those that are there. Raises EventsLost."""
        while True:
            if position < self._first:
                raise EventsLost(_LOST)
            if position < self.end:
                event = self._events[position - self._first]
                position += 1
                yield event
            elif follow:
                await self._changed.wait()
            else:
                return

    def _add(self, commit: tuple[Event, ...]) -> None:
        for event in commit:
            logged = _logged(event)
            self._events.append(logged)
            self._bytes += logged.size
        self.index = commit[-1].index
        while len(self._events) > self._max_events or self._bytes > self._max_bytes:
            dropped = self._events.popleft()
            self._bytes -= dropped.size
            self._first += 1
            self.complete_from = max(self.complete_from, dropped.at + 1)
        self._wake()

    def _begin_anew(self) -> None:
        """Break every stream: the position that would come next is skipped."""
        self._first = self.end + 1
        self._events.clear()
        self._bytes = 0
        self.complete_from = self._clock.now()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _logged(event: Event) -> Logged:
    obj = event.object
    assert isinstance(obj, OBSERVED), "the watch names these kinds"
    attributes = described(event)
    action = _ACTIONS[event.kind]
    return Logged(
        kind=obj.kind,
        action=action,
        id=obj.id,
        name=attributes["name"],
        labels=obj.spec.labels or {},
        at=event.at,
        index=event.index,
        line=event_line(obj.kind, action, obj.id, attributes, "swarm", event.at),
    )
