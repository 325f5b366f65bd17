"""The containers in memory: config, state, who waits for a change. The real runtime and the fake share it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from weakref import WeakSet

from cluster.errors import Conflict, NotFound
from worker.runtime.model import ContainerConfig, ContainerState
from worker.runtime.runtime import Change


class Entry:
    """One container. `lock` orders operations on it."""

    def __init__(self, config: ContainerConfig, state: ContainerState) -> None:
        self.config = config
        self.state = state
        self.lock = asyncio.Lock()
        self.removed = False
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Tell those who wait."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Return at the next change."""
        await self._changed.wait()


Observer = Callable[[ContainerConfig, ContainerState | None, ContainerState | None], None]
"""Told of each change at once: a container's old state (None: it is new), its new one (None: it is gone)."""


def _nobody(config: ContainerConfig, old: ContainerState | None, new: ContainerState | None) -> None:
    pass


class ContainerTable:
    """All containers of a node. `observer` misses no change, unlike `watch`; it must not block."""

    def __init__(self) -> None:
        self.observer: Observer = _nobody
        self._entries: dict[str, Entry] = {}
        self._watchers: WeakSet[_Watcher] = WeakSet()  # one that is never read from ends nowhere

    def __iter__(self) -> Iterator[Entry]:
        return iter(sorted(self._entries.values(), key=lambda entry: entry.config.created_at))

    def add(self, config: ContainerConfig, state: ContainerState) -> Entry:
        """A new container."""
        if config.id in self._entries:
            raise Conflict(f"container {config.id[:12]} exists already")
        entry = self._entries[config.id] = Entry(config, state)
        self.observer(config, None, state)
        self._publish(config.id, state)
        return entry

    def find(self, id: str) -> Entry:
        """The container, or NotFound."""
        entry = self._entries.get(id)
        if entry is None:
            raise NotFound(f"No such container: {id}")
        return entry

    def known(self, id: str) -> bool:
        """True when there is such a container."""
        return id in self._entries

    def update(self, entry: Entry, state: ContainerState) -> None:
        """Set a container's state and tell everyone."""
        old, entry.state = entry.state, state
        self.observer(entry.config, old, state)
        entry.wake()
        self._publish(entry.config.id, state)

    def drop(self, entry: Entry) -> None:
        """Forget a container."""
        del self._entries[entry.config.id]
        entry.removed = True
        self.observer(entry.config, entry.state, None)
        entry.wake()
        self._publish(entry.config.id, None)

    async def ended(self, entry: Entry) -> ContainerState:
        """Wait until a container does not run."""
        while entry.state.running and not entry.removed:
            await entry.changed()
        return entry.state

    def watch(self) -> AsyncIterator[Change]:
        """Changes from now on."""
        watcher = _Watcher()
        self._watchers.add(watcher)
        return self._follow(watcher)

    async def _follow(self, watcher: "_Watcher") -> AsyncIterator[Change]:
        try:
            while True:
                yield await watcher.next()
        finally:
            self._watchers.discard(watcher)

    def _publish(self, id: str, state: ContainerState | None) -> None:
        for watcher in list(self._watchers):
            watcher.put(id, state)


class _Watcher:
    """Pending changes of one reader: one for each container at most, so that a slow reader costs little."""

    def __init__(self) -> None:
        self._pending: dict[str, ContainerState | None] = {}
        self._ready = asyncio.Event()

    def put(self, id: str, state: ContainerState | None) -> None:
        self._pending[id] = state
        self._ready.set()

    async def next(self) -> Change:
        while not self._pending:
            self._ready.clear()
            await self._ready.wait()
        id = next(iter(self._pending))
        return id, self._pending.pop(id)
