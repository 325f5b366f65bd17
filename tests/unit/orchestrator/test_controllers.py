"""The controllers on a store with a proposer, on virtual time; and the leadership that runs them."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from cluster.objects import Node, NodeDescription, NodeStatus, Service, Task, TaskStatus
from cluster.seams import SECOND
from cluster.spec import GlobalMode, ReplicatedMode, RestartPolicy, ServiceMode, ServiceSpec, TaskSpec
from cluster.states import NodeState, TaskState
from manager.leader import Leadership
from manager.orchestrator.node_down import OrphanKeeper
from manager.orchestrator.orchestrator import GlobalOrchestrator, ReplicatedOrchestrator
from manager.orchestrator.reaper import Reaper
from manager.store import Store
from tests.fakes.clock import ManualClock, settle
from tests.fakes.proposer import LocalProposer


class Manager:
    """A store with its proposer, and the controllers of a term."""

    def __init__(self, fail: Callable[[int], str | None] = lambda number: None) -> None:
        self.clock = ManualClock()
        self.store = Store(self.clock, random.Random(1))
        self.proposer = LocalProposer(self.store, fail=fail)

    def controllers(self) -> Sequence[ReplicatedOrchestrator | GlobalOrchestrator | Reaper | OrphanKeeper]:
        rng = random.Random(2)
        return (
            ReplicatedOrchestrator(self.store, self.clock, rng),
            GlobalOrchestrator(self.store, self.clock, rng),
            Reaper(self.store, self.clock),
            OrphanKeeper(self.store, self.clock),
        )

    @property
    def tasks(self) -> list[Task]:
        return list(self.store.view().all(Task))

    async def create(self, mode: ServiceMode, name: str = "web") -> None:
        template = TaskSpec(restart_policy=RestartPolicy(delay=5 * SECOND))
        spec = ServiceSpec(name=name, mode=mode, task_template=template)
        await self.store.update(lambda tx: tx.create(Service(id=name, spec=spec)))

    async def node(self, name: str) -> None:
        node = Node(
            id=name,
            description=NodeDescription(hostname=name),
            status=NodeStatus(state=NodeState.READY),
        )
        await self.store.update(lambda tx: tx.create(node))

    async def report(self, task: Task, state: TaskState) -> None:
        def change(tx) -> None:  # type: ignore[no-untyped-def]
            now = tx.get(Task, task.id)
            tx.update(replace(now, node_id=now.node_id or "a", status=TaskStatus(state=state)))

        await self.store.update(change)


@asynccontextmanager
async def running(manager: Manager) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(controller.run()) for controller in manager.controllers()]
        await settle()
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


REPLICATED = ServiceMode(replicated=ReplicatedMode(replicas=3))


async def test_a_new_service_gets_its_tasks_in_one_entry() -> None:
    manager = Manager()
    async with running(manager):
        await manager.create(REPLICATED)
        before = manager.proposer.index
        await settle()
        assert [task.slot for task in manager.tasks] == [1, 2, 3]
        assert manager.proposer.index == before + 1


async def test_services_that_exist_when_the_term_begins_are_looked_after() -> None:
    manager = Manager()
    await manager.create(REPLICATED)
    async with running(manager):
        assert len(manager.tasks) == 3


async def test_a_failed_task_is_replaced_and_starts_after_its_delay_also_under_a_new_leader() -> None:
    manager = Manager()
    await manager.node("a")
    await manager.create(ServiceMode(replicated=ReplicatedMode(replicas=1)))
    async with running(manager):
        await manager.report(manager.tasks[0], TaskState.RUNNING)
        await manager.report(manager.tasks[0], TaskState.FAILED)
        await settle()
        assert [task.desired_state for task in manager.tasks] == [TaskState.SHUTDOWN, TaskState.READY]
        await manager.clock.advance(3 * SECOND)
    async with running(manager):
        assert manager.tasks[1].desired_state == TaskState.READY
        await manager.clock.advance(2 * SECOND)
        assert manager.tasks[1].desired_state == TaskState.RUNNING


async def test_global_services_follow_the_nodes() -> None:
    manager = Manager()
    async with running(manager):
        await manager.create(ServiceMode(global_=GlobalMode()))
        await manager.node("a")
        await manager.node("b")
        await settle()
        assert [task.node_id for task in manager.tasks] == ["a", "b"]


async def test_a_removed_service_leaves_nothing() -> None:
    manager = Manager()
    await manager.node("a")
    async with running(manager):
        await manager.create(REPLICATED)
        await settle()
        await manager.report(manager.tasks[0], TaskState.RUNNING)
        await manager.store.update(lambda tx: tx.delete(Service, "web"))
        await settle()
        assert [task.desired_state for task in manager.tasks] == [TaskState.REMOVE], "it still runs"
        await manager.report(manager.tasks[0], TaskState.SHUTDOWN)
        await settle()
        assert manager.tasks == []


async def test_tasks_of_a_removed_node_are_orphaned() -> None:
    manager = Manager()
    await manager.node("a")
    async with running(manager):
        await manager.create(ServiceMode(replicated=ReplicatedMode(replicas=1)))
        await settle()
        await manager.report(manager.tasks[0], TaskState.RUNNING)
        await manager.store.update(lambda tx: tx.delete(Node, "a"))
        await settle()
        assert [task.status.state for task in manager.tasks] == [TaskState.ORPHANED, TaskState.NEW]


async def test_a_write_without_quorum_is_tried_again() -> None:
    manager = Manager(fail=lambda number: "lost" if 1 <= number <= 3 else None)
    async with running(manager):
        await manager.create(REPLICATED)
        await settle()
        assert manager.tasks == []
        await manager.clock.advance(SECOND)
        assert len(manager.tasks) == 3


async def test_a_write_whose_outcome_is_unknown_makes_no_more_tasks_than_asked() -> None:
    manager = Manager(fail=lambda number: "unknown" if number == 1 else None)
    async with running(manager):
        await manager.create(REPLICATED)
        await manager.clock.advance(SECOND)
        wanted = [task.slot for task in manager.tasks if task.desired_state <= TaskState.RUNNING]
        assert sorted(wanted) == [1, 2, 3]


class FakeLeadership:
    """Raft's word on who leads."""

    def __init__(self) -> None:
        self.tell: Callable[[bool, int], None] = lambda leads, term: None

    def watch(self, watcher: Callable[[bool, int], None]) -> Callable[[], None]:
        self.tell = watcher
        watcher(False, 0)
        return lambda: None


class Recorder:
    """A controller that writes down when it runs; `error` is raised at once if given."""

    def __init__(self, said: list[str], error: Exception | None = None) -> None:
        self.said = said
        self.error = error

    async def run(self) -> None:
        self.said.append("start")
        try:
            if self.error is not None:
                raise self.error
            await asyncio.Event().wait()
        finally:
            self.said.append("stop")


async def test_controllers_run_while_this_manager_leads() -> None:
    raft, said = FakeLeadership(), []  # type: ignore[var-annotated]
    leadership = Leadership(raft.watch, lambda: [Recorder(said)])
    running = asyncio.create_task(leadership.run())
    await settle()
    assert said == []
    raft.tell(True, 1)
    await settle()
    assert said == ["start"]
    assert leadership.leading
    raft.tell(True, 2)  # lost and won again between two looks
    await settle()
    assert said == ["start", "stop", "start"]
    raft.tell(False, 3)
    await settle()
    assert said == ["start", "stop"] * 2
    assert not leadership.leading
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_controller_that_fails_takes_the_leader_down_with_its_error() -> None:
    raft = FakeLeadership()
    leadership = Leadership(raft.watch, lambda: [Recorder([], ValueError("broken")), Recorder([])])
    running = asyncio.create_task(leadership.run())
    await settle()
    raft.tell(True, 1)
    with pytest.raises(ExceptionGroup) as failure:
        await running
    assert failure.group_contains(ValueError, match="broken")
