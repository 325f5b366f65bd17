"""The manager's recent events, fed by a store watch: one reader of the store, however many clients."""

from collections.abc import Sequence

from cluster.event_ring import MAX_BYTES, MAX_EVENTS, EventRing, EventsLost, Logged
from cluster.events import event_line
from cluster.objects import Config, Network, Node, Secret, Service
from cluster.seams import Clock
from manager.api.event_messages import described
from manager.store import Event, Store, Watch, WatchLagged

_LOST = (
    "events were lost: they came faster than they were read, or another manager sent this one the whole "
    "state; list what you follow, and follow it again"
)
_ACTIONS = {"created": "create", "updated": "update", "deleted": "remove"}
OBSERVED = (Config, Network, Node, Secret, Service)


class EventLog(EventRing):
    """Recent events of cluster objects on this manager."""

    def __init__(self, store: Store, clock: Clock, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES):
        super().__init__(clock.now(), _LOST, max_events, max_bytes)
        self._store = store
        self._clock = clock
        self._watch: Watch | None = None
        self.index = store.view().index
        """Every change after this index is in positions from `end` on."""

    async def run(self) -> None:
        """Follow the store until cancelled. When the store was replaced by a snapshot, begin anew."""
        while True:
            view, watch = self._store.watch(*OBSERVED)
            with watch:
                if self._watch is not None:
                    self.begin_anew(self._clock.now())
                self._watch = watch
                self.index = view.index
                try:
                    async for commit in watch:
                        self._take([commit])
                except WatchLagged:
                    continue

    def catch_up(self) -> None:
        """Have in the log what the store has applied. Raises EventsLost when that can't be told."""
        if self._watch is None:
            return
        try:
            self._take(self._watch.pending())
        except WatchLagged as error:
            raise EventsLost(_LOST) from error

    def _take(self, commits: Sequence[tuple[Event, ...]]) -> None:
        for commit in commits:
            self.index = commit[-1].index
            self.add(*map(_logged, commit))

    def index_before(self, position: int) -> int:
        """An index after which every change is at `position` or later."""
        event = self.at(position)
        return event.index - 1 if event is not None else self.index


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
