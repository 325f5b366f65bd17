"""The scheduler: assigns pending tasks to nodes, and tells those that fit nowhere why."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from cluster.objects import Network, Node, StoreObject, Task, TaskStatus
from cluster.seams import MILLISECOND, SECOND, Clock
from cluster.states import TaskState
from manager.scheduler import filters
from manager.scheduler.decide import Decision, Placement, confirm, decide
from manager.scheduler.nodes import NodeTable
from manager.store import Event, Store, Transaction, Watch, restarting

log = logging.getLogger("shoal.scheduler")

RETRY_QUIET = 50 * MILLISECOND  # tasks that fitted nowhere are tried again when changes pause for so long,
RETRY_LATEST = SECOND  # or at the latest after this

Group = tuple[str, int]  # (service id, spec version): its tasks are alike


class Scheduler:
    """Runs on the leader. New tasks are placed as soon as they are seen; what arrives while a commit is under
    way goes into the next one. Tasks that fit nowhere stay pending, say why in their status, and are tried
    again when a node changed or a task left one.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._table = NodeTable()
        self._fresh: dict[str, Task] = {}
        self._waiting: dict[str, Task] = {}
        self._changed_at: tuple[int, int] | None = (
            None  # first and last change since waiting tasks were tried
        )

    async def run(self) -> None:
        """Schedule until cancelled."""
        await restarting("scheduler", self._session, self._clock)

    async def _session(self) -> None:
        view, watch = self._store.watch(Task, Node, Network)
        with watch:
            self._table = NodeTable(view.all(Node), (), view.all(Network))
            self._fresh, self._waiting, self._changed_at = {}, {}, None
            for task in view.all(Task):
                self._note_task(task)
            while True:
                await self._tick()
                if not (watch.waiting or self._fresh):
                    await self._wait(watch)
                for events in watch.pending():
                    self._note(events)

    async def _wait(self, watch: Watch) -> None:
        """Until something happened, or waiting tasks are due."""
        if self._changed_at is None or not self._waiting:
            await watch.ready()
            return
        async with asyncio.TaskGroup() as group:
            ready = group.create_task(watch.ready())
            due = group.create_task(self._clock.sleep(self._due() - self._clock.monotonic()))
            await asyncio.wait((ready, due), return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            due.cancel()

    def _due(self) -> int:
        first, last = self._changed_at or (0, 0)
        return min(first + RETRY_LATEST, last + RETRY_QUIET)

    # --- what happened --------------------------------------------------------------------------------

    def _note(self, events: Iterable[Event]) -> None:
        for event in events:
            obj = event.object
            gone = event.new is None
            if isinstance(obj, Task):
                self._note_removed(obj) if gone else self._note_task(obj, event.old)
            elif isinstance(obj, Node):
                self._table.drop_node(obj.id) if gone else self._note_node(obj, event.old)
            elif isinstance(obj, Network):
                self._table.drop_network(obj.id) if gone else self._table.put_network(obj)

    def _note_task(self, task: Task, old: StoreObject | None = None) -> None:
        if self._table.put_task(task):
            self._something_changed()
        if isinstance(old, Task) and not old.status.state.terminal and _failed(task):
            self._table.task_failed(task, self._clock.monotonic())
        if not _to_place(task):
            self._fresh.pop(task.id, None)
            self._waiting.pop(task.id, None)
        elif task.id in self._waiting:
            self._waiting[task.id] = task
        else:
            self._fresh[task.id] = task

    def _note_removed(self, task: Task) -> None:
        self._fresh.pop(task.id, None)
        self._waiting.pop(task.id, None)
        if self._table.drop_task(task.id):
            self._something_changed()

    def _note_node(self, node: Node, old: StoreObject | None) -> None:
        self._table.put_node(node)
        if old is None:
            for task in self._store.view().tasks_on_node(node.id):
                self._table.put_task(task)
        self._something_changed()

    def _something_changed(self) -> None:
        now = self._clock.monotonic()
        first = self._changed_at[0] if self._changed_at else now
        self._changed_at = (first, now)

    # --- what to do -----------------------------------------------------------------------------------

    async def _tick(self) -> None:
        tasks = list(self._fresh.values())
        self._fresh = {}
        if self._changed_at is not None and (not self._waiting or self._due() <= self._clock.monotonic()):
            self._changed_at = None
            tasks += self._waiting.values()
            self._waiting = {}
        if not tasks:
            return
        writes: list[Callable[[Transaction], None]] = []
        placed: list[Placement] = []
        for decision in self._decisions(tasks):
            placed += decision.placements
            writes += [self._assignment(placement) for placement in decision.placements]
            for task in decision.unplaced:
                self._waiting[task.id] = task
                if task.status.error != decision.explanation:
                    writes.append(self._explanation(task, decision.explanation))
            self._say(decision)
        await self._store.batch(writes)
        self._place_again(placed)

    def _decisions(self, tasks: Sequence[Task]) -> Iterable[Decision]:
        """Decide task groups one after the other, each seeing where the ones before went."""
        groups: dict[Group, list[Task]] = {}
        now = self._clock.monotonic()
        for task in tasks:
            if task.node_id:
                yield self._assumed(confirm(self._table, task))
            else:
                groups.setdefault((task.service_id, task.spec_version), []).append(task)
        for group in groups.values():
            yield self._assumed(decide(self._table, group, now))

    def _assumed(self, decision: Decision) -> Decision:
        for placement in decision.placements:
            self._table.put_task(_assigned(placement.task, placement, 0))
        return decision

    def _place_again(self, placed: Iterable[Placement]) -> None:
        """Those whose node went away before they were assigned. (Other changes come as events.)"""
        view = self._store.view()
        for placement in placed:
            task = view.get(Task, placement.task.id)
            if task is not None and _to_place(task):
                self._note_task(task)

    def _assignment(self, placement: Placement) -> Callable[[Transaction], None]:
        now = self._clock.now()

        def write(transaction: Transaction) -> None:
            task = transaction.get(Task, placement.task.id)
            if task is not None and _to_place(task) and transaction.get(Node, placement.node_id) is not None:
                transaction.update(_assigned(task, placement, now))

        return write

    def _explanation(self, task: Task, explanation: str) -> Callable[[Transaction], None]:
        now = self._clock.now()

        def write(transaction: Transaction) -> None:
            stored = transaction.get(Task, task.id)
            if stored is not None and _to_place(stored):
                status = replace(stored.status, error=explanation, timestamp=now)
                transaction.update(replace(stored, status=status))

        return write

    def _say(self, decision: Decision) -> None:
        if decision.placements:
            log.debug("tasks assigned", extra={"tasks": len(decision.placements)})
        if decision.unplaced:
            log.info(
                "tasks fit on no node",
                extra={
                    "service": decision.unplaced[0].service_name,
                    "tasks": len(decision.unplaced),
                    "refusals": filters.names(decision.refusals),
                },
            )


def _to_place(task: Task) -> bool:
    return task.status.state is TaskState.PENDING and not task.desired_state.stops


def _failed(task: Task) -> bool:
    return task.status.state in (TaskState.FAILED, TaskState.REJECTED)


def _assigned(task: Task, placement: Placement, now: int) -> Task:
    message = (
        "scheduler confirmed task can run on preassigned node"
        if task.node_id
        else "scheduler assigned task to node"
    )
    return replace(
        task,
        node_id=placement.node_id,
        generic_resources=placement.generic_resources,
        placed_because=placement.reason,
        status=TaskStatus(state=TaskState.ASSIGNED, timestamp=now, message=message),
    )
