"""The scheduler's loop over a store: assignments, explanations, retries."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from cluster.objects import Node, Task, TaskStatus
from cluster.seams import MILLISECOND, SECOND
from cluster.states import NodeState, TaskState
from manager.scheduler import Scheduler
from manager.store import Store
from tests.fakes.clock import ManualClock, settle
from tests.fakes.proposer import LocalProposer
from tests.unit.scheduler.cluster_of import node, task


class World:
    """A store, a running scheduler, and short words for both."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = Store(self.clock)
        self.proposer = LocalProposer(self.store)
        self.scheduler = Scheduler(self.store, self.clock)

    async def create(self, *objects: object) -> None:
        await self.store.batch([lambda tx, obj=obj: tx.create(obj) for obj in objects])
        await settle()

    async def change(self, cls: type, id: str, **fields: object) -> None:
        await self.store.update(lambda tx: tx.update(replace(tx.get(cls, id), **fields)))
        await settle()

    async def end(self, id: str, state: TaskState = TaskState.COMPLETE) -> None:
        await self.change(Task, id, status=TaskStatus(state=state))

    def task(self, id: str) -> Task:
        return self.store.view().get(Task, id)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    running = asyncio.ensure_future(world.scheduler.run())
    await settle()
    yield world
    assert not running.done(), running.exception()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_pending_tasks_are_assigned_at_once_and_in_one_entry(world: World) -> None:
    await world.create(node("a"), node("b"), *(task(f"t{number}") for number in range(100)))
    assigned = list(world.store.view().all(Task))
    assert Counter(one.node_id for one in assigned) == {"a": 50, "b": 50}
    assert {one.status.state for one in assigned} == {TaskState.ASSIGNED}
    assert assigned[0].status.message == "scheduler assigned task to node"
    assert assigned[0].status.timestamp == world.clock.now()
    assert len(world.proposer.entries) == 2


async def test_tasks_that_were_there_before_the_scheduler_started(world: World) -> None:
    await world.create(node("a"))
    other = World()
    await other.create(node("a"), task("t"), task("running", node_id="a", state=TaskState.RUNNING, cpus=4))
    await other.create(task("big", service="big", cpus=1))
    running = asyncio.ensure_future(other.scheduler.run())
    await settle()
    assert other.task("t").node_id == "a"
    assert other.task("big").status.error == "no suitable node (insufficient resources on 1 node)"
    running.cancel()


async def test_new_tasks_and_those_not_wanted_any_more_are_left_alone(world: World) -> None:
    await world.create(
        node("a"), task("new", state=TaskState.NEW), task("unwanted", desired=TaskState.SHUTDOWN)
    )
    assert world.task("new").node_id == ""
    assert world.task("unwanted").node_id == ""


async def test_a_task_that_fits_nowhere_says_why_and_is_tried_again_when_a_node_changes(world: World) -> None:
    await world.create(node("a"), task("t", constraints=["node.labels.disk==ssd"]))
    waiting = world.task("t")
    assert waiting.status.state is TaskState.PENDING
    assert waiting.status.error == "no suitable node (scheduling constraints not satisfied on 1 node)"
    entries = len(world.proposer.entries)
    await world.clock.advance(5 * SECOND)
    assert len(world.proposer.entries) == entries
    spec = world.store.view().get(Node, "a").spec
    await world.change(Node, "a", spec=replace(spec, labels={"disk": "ssd"}))
    assert world.task("t").node_id == ""
    await world.clock.advance(50 * MILLISECOND)
    assert world.task("t").node_id == "a"
    assert world.task("t").status.error == ""


async def test_a_stream_of_changes_delays_the_retry_a_second_at_most(world: World) -> None:
    await world.create(node("a"), task("t", cpus=5))
    await world.create(node("big", cpus=8))
    for number in range(30):
        await world.clock.advance(40 * MILLISECOND)
        if world.task("t").node_id:
            break
        await world.change(Node, "a", data_path_address=str(number))
    assert world.task("t").node_id == "big"
    assert world.clock.monotonic() <= 1040 * MILLISECOND


async def test_room_freed_by_an_ended_task_is_used(world: World) -> None:
    await world.create(node("a", cpus=1), task("first", cpus=1))
    await world.create(task("second", cpus=1))
    assert world.task("first").node_id == "a"
    assert world.task("second").status.error == "no suitable node (insufficient resources on 1 node)"
    await world.end("first")
    await world.clock.advance(50 * MILLISECOND)
    assert world.task("second").node_id == "a"


async def test_an_explanation_that_changes_is_told(world: World) -> None:
    await world.create(node("a", cpus=1), task("t", cpus=2))
    assert world.task("t").status.error == "no suitable node (insufficient resources on 1 node)"
    await world.change(
        Node, "a", status=replace(world.store.view().get(Node, "a").status, state=NodeState.DOWN)
    )
    await world.clock.advance(50 * MILLISECOND)
    assert world.task("t").status.error == "no suitable node (1 node not available for new tasks)"


async def test_a_preassigned_task_is_confirmed(world: World) -> None:
    await world.create(node("a"), node("b", state=NodeState.DOWN))
    await world.create(task("ga", "g", node_id="a", slot=0), task("gb", "g", node_id="b", slot=0))
    assert world.task("ga").status.state is TaskState.ASSIGNED
    assert world.task("ga").status.message == "scheduler confirmed task can run on preassigned node"
    assert world.task("gb").status.error == "no suitable node (1 node not available for new tasks)"
    await world.change(
        Node, "b", status=replace(world.store.view().get(Node, "b").status, state=NodeState.READY)
    )
    await world.clock.advance(50 * MILLISECOND)
    assert world.task("gb").status.state is TaskState.ASSIGNED


async def test_a_task_changed_while_its_assignment_is_on_the_way_keeps_the_change(world: World) -> None:
    await world.create(node("a"))
    world.proposer.hold()
    creation = asyncio.ensure_future(world.create(task("t")))
    await settle()
    world.proposer.release()
    world.proposer.hold()
    await settle()
    change = asyncio.ensure_future(
        world.store.update(lambda tx: tx.update(replace(tx.get(Task, "t"), registry_auth="x")))
    )
    await settle()
    assert world.proposer.held == 2
    world.proposer.release(lambda numbers: numbers[::-1])
    await settle()
    await asyncio.gather(creation, change)
    assert (world.task("t").node_id, world.task("t").registry_auth) == ("a", "x")


async def test_a_task_no_longer_wanted_is_not_assigned_and_its_room_is_free(world: World) -> None:
    await world.create(node("a", cpus=1))
    world.proposer.hold()
    creation = asyncio.ensure_future(world.create(task("t", cpus=1)))
    await settle()
    world.proposer.release()
    world.proposer.hold()
    await settle()
    stop = asyncio.ensure_future(
        world.store.update(lambda tx: tx.update(replace(tx.get(Task, "t"), desired_state=TaskState.REMOVE)))
    )
    await settle()
    world.proposer.release(lambda numbers: numbers[::-1])
    await asyncio.gather(creation, stop)
    await world.create(task("next", cpus=1))
    assert world.task("t").node_id == ""
    assert world.task("next").node_id == "a"


async def test_a_task_whose_node_went_away_meanwhile_goes_elsewhere(world: World) -> None:
    await world.create(node("a"), node("b"), task("x", "other", node_id="b", state=TaskState.RUNNING))
    world.proposer.hold()
    creation = asyncio.ensure_future(world.create(task("t"), task("u")))
    await settle()
    world.proposer.release()
    world.proposer.hold()
    await settle()
    removal = asyncio.ensure_future(
        world.store.batch([lambda tx: tx.update(tx.get(Task, "u")), lambda tx: tx.delete(Node, "a")])
    )
    await settle()
    assert world.proposer.held == 2
    world.proposer.release(lambda numbers: numbers[::-1])
    await asyncio.gather(creation, removal)
    assert (world.task("t").node_id, world.task("u").node_id) == ("b", "b")


async def test_a_node_where_tasks_keep_failing_is_avoided(world: World) -> None:
    await world.create(node("a"))
    for number in range(5):
        await world.create(task(f"f{number}"))
        await world.end(f"f{number}", TaskState.FAILED)
    await world.create(node("b"), *(task(f"t{number}") for number in range(3)))
    assert {world.task(f"t{number}").node_id for number in range(3)} == {"b"}


async def test_a_lost_write_is_tried_again_from_a_fresh_view() -> None:
    world = World()
    world.proposer = LocalProposer(world.store, fail=lambda number: {1: "lost", 2: "unknown"}.get(number))
    running = asyncio.ensure_future(world.scheduler.run())
    await settle()
    await world.create(node("a"), task("t"))
    assert world.task("t").node_id == ""
    await world.clock.advance(SECOND)
    assert world.task("t").node_id == "a"
    assert not running.done()
    running.cancel()
