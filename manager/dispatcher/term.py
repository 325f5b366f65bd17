"""One term of leadership of the dispatcher: its sessions, and what flows between them and the store."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial

from msgspec.structs import replace

from cluster.errors import ShoalError
from cluster.messages import (
    AgentMessage,
    Applied,
    DescriptionChanged,
    Heartbeat,
    HeartbeatAck,
    LogChunk,
    LogEnd,
    ManagersChanged,
    Removed,
    RoleChanged,
    StatusAck,
    StatusReport,
    TaskStatusUpdate,
)
from cluster.objects import Cluster, Config, Network, Node, Secret, Service, Task
from cluster.seams import MILLISECOND, SECOND, Clock, Random
from cluster.states import NodeState, TaskState
from manager.dispatcher.admissions import Admissions, awaits
from manager.dispatcher.dataplane import DataplaneIndex, Delta
from manager.dispatcher.descriptions import DescriptionWriter
from manager.dispatcher.liveness import Liveness, heartbeat_period
from manager.dispatcher.logs import LogBroker
from manager.dispatcher.registration import manager_addresses, mark_down, mark_ready
from manager.dispatcher.rounds import Rounds
from manager.dispatcher.session import Session
from manager.dispatcher.statuses import StatusWriter
from manager.dispatcher.withdrawals import Withdrawals
from manager.store import Event, Store, WatchLagged

log = logging.getLogger("shoal.dispatcher")

DEBOUNCE = 10 * MILLISECOND
"""Pause after a round of messages, in which further commits gather. The first goes out at once."""
LONGEST_SLEEP = SECOND // 4
WATCHED = (Task, Service, Node, Network, Secret, Config, Cluster)
REMOVED = "this node was removed from the cluster"


class Term:
    """The dispatcher's state while this manager leads."""

    def __init__(self, store: Store, clock: Clock, rng: Random) -> None:
        self._store = store
        self._clock = clock
        self._view, self._watch = store.watch(*WATCHED)
        self._index = DataplaneIndex(self._view)
        self._managers = manager_addresses(self._view)
        self._withdrawals = Withdrawals()
        self._admissions = Admissions()
        self._admitting = asyncio.Event()
        self._liveness = Liveness(rng)
        self._liveness.expect(
            (node.id for node in self._view.all(Node) if node.status.state != NodeState.DOWN),
            self.period(),
            clock.monotonic(),
        )
        self._inherit_withdrawals()
        self._descriptions = DescriptionWriter(store, clock)
        self.sessions: dict[str, Session] = {}
        self.statuses = StatusWriter(store, clock)
        self.logs = LogBroker()

    def period(self) -> int:
        """The heartbeat period of new sessions, in ns."""
        return heartbeat_period(self._view.cluster(), self._view.count(Node))

    async def run(self) -> None:
        """Serve the sessions until cancelled; then all are closed."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_store(), name="dispatcher: store")
                group.create_task(self._watch_time(), name="dispatcher: time")
                group.create_task(self._tell_admissions(), name="dispatcher: admissions")
                group.create_task(self._descriptions.run(), name="dispatcher: descriptions")
                group.create_task(self.statuses.run(), name="dispatcher: statuses")
        finally:
            self._watch.close()
            for session in list(self.sessions.values()):
                self.logs.closed(session)
                session.close()

    # --- sessions -------------------------------------------------------------------------------------

    def opened(self, session: Session) -> None:
        """A session whose node is registered and which was welcomed: tell it everything."""
        older = self.sessions.get(session.node_id)
        if older is not None:
            self.closed(older)
            older.close()
        self.sessions[session.node_id] = session
        session.period = self.period()
        self._liveness.opened(session.node_id, session.period, self._clock.monotonic())
        if session.node_id in self._index.silent:
            self._hear([session.node_id], silent=False)
        self._withdrawals.opened(session.node_id, session.id)
        self._admissions.opened(session.node_id, session.id)
        self._catch_up()
        self._flush()

    def closed(self, session: Session) -> None:
        """A session ended. Its node is down only if no other begins in time."""
        if self.sessions.get(session.node_id) is session:
            del self.sessions[session.node_id]
            self._liveness.parted(session.node_id, self._clock.monotonic())
        self.logs.closed(session)
        expected = session.node_id if session.node_id in self._ready() else ""
        self._go_on(lambda rounds: rounds.closed(session.id, expected))

    def received(self, session: Session, message: AgentMessage) -> None:
        """A message from an agent; any is a sign of life."""
        if self.sessions.get(session.node_id) is not session:
            return
        self._liveness.heard(session.node_id, self._clock.monotonic())
        if session.node_id in self._index.silent:
            self._hear([session.node_id], silent=False)
        match message:
            case Heartbeat():
                self._beat(session)
            case StatusReport():
                self._report(session, message)
            case Applied(sequence=sequence):
                session.applied = max(session.applied, sequence)
                self._go_on(lambda rounds: rounds.applied(session.id, sequence))
            case DescriptionChanged():
                self._descriptions.take(session.node_id, message.description)
            case LogChunk():
                self.logs.chunk(session, message)
            case LogEnd():
                self.logs.ended(session, message)

    def _hear(self, node_ids: Iterable[str], *, silent: bool) -> None:
        """Nodes are to be avoided, or no more."""
        for node_id in node_ids:
            log.info("node is silent" if silent else "node is heard of again", extra={"node": node_id})
            self._touch(self._index.hear(self._view, node_id, silent=silent))
        self._flush()

    def _report(self, session: Session, report: StatusReport) -> None:
        """Have statuses written; those of tasks that begin to run when all balancers have them."""
        now, rest = self._clock.monotonic(), []
        self._catch_up()
        for update in report.updates:
            task = self._view.get(Task, update.task_id)
            mine = task is not None and task.node_id == session.node_id
            if mine and awaits(task, update) and any(self._index.networks_of(update.task_id)):
                self._admit(session, update, now)
                continue
            if mine and self._admissions.drop(update.task_id):
                self._touch(self._index.admit(self._view, update.task_id, serves=False))
                self._admitting.set()
            rest.append(update)
        if rest:
            self.statuses.take(session, rest, report.number)
        else:
            session.send(StatusAck(report.number))

    def _admit(self, session: Session, update: TaskStatusUpdate, now: int) -> None:
        """Let a task serve; one that is unhealthy before it ever served has nothing to say but its end."""
        if update.status.healthy:
            self._admissions.hold(session, update, now)
        else:
            self._admissions.drop(update.task_id)
        self._touch(self._index.admit(self._view, update.task_id, serves=update.status.healthy))
        self._admitting.set()

    async def _tell_admissions(self) -> None:
        while True:
            await self._admitting.wait()
            self._admitting.clear()
            self._catch_up()
            self._flush()
            await self._clock.sleep(DEBOUNCE)

    def _beat(self, session: Session) -> None:
        """Answer a heartbeat, with the period as the operator wants it by now."""
        view = self._store.view()
        period = heartbeat_period(view.cluster(), view.count(Node))
        session.send(HeartbeatAck(period=period))
        # Until its next heartbeat the agent waits as it was told before.
        longer = max(period, session.period)
        self._liveness.opened(session.node_id, longer, self._clock.monotonic())
        session.period = period

    def drained(self) -> None:
        """A congested session caught up."""
        self._flush()

    # --- from the store to the agents -----------------------------------------------------------------

    async def _follow_store(self) -> None:
        while True:
            try:
                events = await anext(self._watch)
            except WatchLagged:
                log.warning("fell behind the store's events: starting from a new view")
                self._start_afresh()
                continue
            self._take_in(events)
            self._catch_up()
            self._flush()
            await self._clock.sleep(DEBOUNCE)

    def _start_afresh(self) -> None:
        """Events were lost: compute everything anew, and let each session compare with what it knows."""
        self._watch.close()
        self._view, self._watch = self._store.watch(*WATCHED)
        old = self._index
        self._index = DataplaneIndex(self._view, old.admitted, old.silent)
        delta = Delta(
            networks={*old.networks, *self._index.networks},
            peers={*old.peers, *self._index.peers},
        )
        for index in (old, self._index):
            for network_id, known in index.networks.items():
                delta.endpoints.update((network_id, task_id) for task_id in known.endpoints)
                delta.services.update((network_id, service_id) for service_id in known.services)
        for node_id, session in list(self.sessions.items()):
            session.tasks_touched = True
            if self._view.get(Node, node_id) is None:
                session.close(Removed(message=REMOVED))
        self._touch(delta)
        self._managers_maybe_changed()
        self._flush()

    def _catch_up(self) -> None:
        """Take in what is committed by now."""
        try:
            events = [event for commit in self._watch.pending() for event in commit]
        except WatchLagged:
            self._start_afresh()
            return
        if events:
            self._take_in(events)

    def _take_in(self, events: Iterable[Event]) -> None:
        """Update the index, and note for each session what may concern it."""
        events = list(events)
        self._view = self._store.view()
        delta = self._index.apply(self._view, events)
        for event in events:
            match event.object:
                case Task():
                    for task in (event.old, event.new):
                        if isinstance(task, Task) and task.node_id in self.sessions:
                            self.sessions[task.node_id].tasks_touched = True
                    if event.new is None:
                        self._withdrawals.forget(event.object.id)
                        self._admissions.drop(event.object.id)
                case Node():
                    self._node_changed(event)
                case Secret() | Config() | Network():
                    for session in self.sessions.values():
                        session.tasks_touched = True
        self._touch(delta)
        self._hold_back(delta)

    def _touch(self, delta: Delta) -> None:
        if delta.empty:
            return
        for session in self.sessions.values():
            session.touched.networks |= delta.networks
            session.touched.peers |= delta.peers
            session.touched.endpoints |= delta.endpoints
            session.touched.services |= delta.services

    def _hold_back(self, delta: Delta) -> None:
        """Begin the withdrawal of tasks that are to stop while balancers still know them."""
        now = self._clock.monotonic()
        for task_id in delta.withdrawn:
            task = self._view.get(Task, task_id)
            if task is None or not task.desired_state.stops or task.status.state.terminal:
                continue
            session = self.sessions.get(task.node_id)
            if session is not None and session.told.sequence:
                known = session.told.tasks.get(task_id)
            else:  # between two sessions, as after a change of leader: the next must not begin with the stop
                node = self._view.get(Node, task.node_id)
                present = node is not None and node.status.state != NodeState.DOWN
                known = replace(task, desired_state=TaskState.RUNNING) if present else None
            if known is not None and not known.desired_state.stops:
                self._withdrawals.begin(known, now)

    def _inherit_withdrawals(self) -> None:
        """Begin anew the withdrawals that the previous leader may not have finished: a task that still runs
        is told to stop once the nodes have applied their first assignment in this term."""
        now = self._clock.monotonic()
        present = [node.id for node in self._view.all(Node) if node.status.state != NodeState.DOWN]
        for task in self._view.all(Task):
            # One that is starting may be in the balancers already (manager.dispatcher.admissions).
            stops = task.desired_state.stops and task.status.state in (TaskState.STARTING, TaskState.RUNNING)
            if stops and task.node_id in present and any(self._index.networks_of(task.id)):
                self._withdrawals.inherit(replace(task, desired_state=TaskState.RUNNING), present, now)

    def _go_on(self, step: Callable[[Rounds], list[str]]) -> None:
        """Do with the tasks that a step of their round sets free what they waited for."""
        for session, updates in self._admissions.take(step(self._admissions)):
            self.statuses.take(session, updates)
        self._released(step(self._withdrawals))

    def _released(self, task_ids: Iterable[str]) -> None:
        """These tasks may be told to stop."""
        touched = False
        for task_id in task_ids:
            task = self._view.get(Task, task_id)
            if task is not None and task.node_id in self.sessions:
                self.sessions[task.node_id].tasks_touched = touched = True
        if touched:
            self._flush()

    def _flush(self) -> None:
        """Tell every session what it does not know yet."""
        for session in self.sessions.values():
            if session.congested or session.closing:
                continue
            if not session.tasks_touched and session.touched.empty:
                continue
            message = session.told.next(
                self._view,
                self._index,
                self._withdrawals.held,
                session.touched,
                tasks_touched=session.tasks_touched,
            )
            session.touched, session.tasks_touched = Delta(), False
            if message is not None:
                session.send(message)
        self._go_on(lambda rounds: rounds.tell(self.sessions.values(), self._away, self._index.networks_of))

    def _ready(self) -> set[str]:
        return {node.id for node in self._view.all(Node) if node.status.state == NodeState.READY}

    def _away(self) -> set[str]:
        """The nodes that are between two sessions."""
        return self._ready() - self.sessions.keys()

    # --- nodes ----------------------------------------------------------------------------------------

    def _node_changed(self, event: Event) -> None:
        node = event.object
        assert isinstance(node, Node)
        session = self.sessions.get(node.id)
        if event.new is None:
            self._liveness.forget(node.id)
            if session is not None:
                session.close(Removed(message=REMOVED))
        elif session is not None and isinstance(event.old, Node) and event.old.spec.role != node.spec.role:
            session.send(RoleChanged(role=node.spec.role.value))
        if session is not None and isinstance(event.old, Node) and event.old.containers != node.containers:
            session.tasks_touched = True  # its networks may be others
        if session is not None and isinstance(event.old, Node):
            before, now = event.old.description.encryption.method, node.description.encryption.method
            session.tasks_touched = session.tasks_touched or before != now
        self._managers_maybe_changed()

    def _managers_maybe_changed(self) -> None:
        managers = manager_addresses(self._view)
        if managers != self._managers:
            self._managers = managers
            for session in self.sessions.values():
                session.send(ManagersChanged(managers=managers))

    async def _watch_time(self) -> None:
        """Notice silent nodes, and withdrawals and admissions that took too long."""
        while True:
            now = self._clock.monotonic()
            planned = min(
                self._withdrawals.next_deadline or now + LONGEST_SLEEP,
                self._admissions.next_deadline or now + LONGEST_SLEEP,
                self._liveness.next_deadline or now + LONGEST_SLEEP,
                now + LONGEST_SLEEP,
            )
            # What fell due while nodes were being marked down is no sign that this process stood still.
            planned = max(planned, now + MILLISECOND)
            await self._clock.sleep(planned - now)
            now = self._clock.monotonic()
            late = now - planned
            if late > LONGEST_SLEEP:
                log.warning("the dispatcher was held up", extra={"milliseconds": late // MILLISECOND})
                self._liveness.delayed(late)
            self._go_on(partial(Rounds.expire, now=now))
            if silent := self._liveness.silent(now):
                self._hear(silent, silent=True)
            if lost := self._liveness.expired(now):
                await self._mark_down(lost)

    async def _mark_down(self, node_ids: list[str]) -> None:
        log.warning("nodes are down", extra={"nodes": node_ids})
        for node_id in node_ids:
            session = self.sessions.get(node_id)
            if session is not None:
                self.closed(session)
                session.close()
        try:
            await self._store.batch(
                [partial(mark_down, node_id=id, reason="heartbeat failure") for id in node_ids]
            )
            back = [id for id in node_ids if id in self.sessions]
            await self._store.batch([partial(mark_ready, node_id=id) for id in back])
        except ShoalError as error:
            log.warning("will mark nodes down later", extra={"nodes": node_ids, "reason": str(error)})
            self._liveness.expect(node_ids, 0, self._clock.monotonic() + LONGEST_SLEEP)
