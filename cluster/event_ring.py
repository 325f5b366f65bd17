"""Recent events in a bounded ring that every stream reads at its own pace.

A slow reader falls behind in the ring, and takes no memory; one that has fallen out of it is told so.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import msgspec

from cluster.errors import ShoalError

MAX_EVENTS = 4096
MAX_BYTES = 4 << 20
OVERHEAD = 512
"""About what an event takes besides its texts, in bytes."""


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
        return len(self.line) + sum(len(k) + len(v) for k, v in self.labels.items()) + OVERHEAD


class EventRing:
    """The ring. Positions count events since it began. `complete_from`: events of this moment (ns since the
    epoch) and later are all kept."""

    def __init__(
        self, began: int, lost: str, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES
    ) -> None:
        """`began`: now; `lost`: what a reader is told that has fallen behind."""
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._lost = lost
        self._events: deque[Logged] = deque()
        self._bytes = 0
        self._first = 0
        self._changed = asyncio.Event()
        self.complete_from = began

    @property
    def end(self) -> int:
        """The position of the next event."""
        return self._first + len(self._events)

    @property
    def dropped(self) -> bool:
        """Whether events were dropped since the ring began."""
        return self._first > 0

    def position_at(self, since: int) -> int:
        """The position of the first kept event of that moment (ns) or later."""
        for offset, event in enumerate(self._events):
            if event.at >= since:
                return self._first + offset
        return self.end

    def at(self, position: int) -> Logged | None:
        """The event at a position; None if there is none yet, or none any more."""
        offset = position - self._first
        return self._events[offset] if 0 <= offset < len(self._events) else None

    async def read(self, position: int, follow: bool) -> AsyncIterator[Logged]:
        """Events from a position on; without `follow`, only those that are there. Raises EventsLost."""
        while True:
            if position < self._first:
                raise EventsLost(self._lost)
            if position < self.end:
                event = self._events[position - self._first]
                position += 1
                yield event
            elif follow:
                await self._changed.wait()
            else:
                return

    def add(self, *events: Logged) -> None:
        """Take events in; the oldest make room."""
        for event in events:
            self._events.append(event)
            self._bytes += event.size
        while len(self._events) > self._max_events or self._bytes > self._max_bytes:
            dropped = self._events.popleft()
            self._bytes -= dropped.size
            self._first += 1
            self.complete_from = max(self.complete_from, dropped.at + 1)
        self._wake()

    def begin_anew(self, now: int) -> None:
        """Break every stream: the position that would come next is skipped."""
        self._first = self.end + 1
        self._events.clear()
        self._bytes = 0
        self.complete_from = now
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
