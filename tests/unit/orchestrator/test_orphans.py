"""Tasks of lost nodes: their containers may still run, so their addresses are not given to others at once."""

import pytest
from msgspec.structs import replace

from cluster.objects import NetworkAttachment, Node, NodeStatus, Service, Task
from cluster.seams import SECOND
from cluster.spec import ReplicatedMode, ServiceMode
from cluster.states import NodeState, TaskState
from manager.allocator.claims import claims
from manager.orchestrator.node_down import HELD, ORPHANED_AFTER
from tests.fakes.clock import settle
from tests.unit.orchestrator.test_controllers import Manager, running


async def lose(manager: Manager, *, removed: bool) -> None:
    """The node of a task with an address is lost for good."""
    await manager.create(ServiceMode(replicated=ReplicatedMode(replicas=1)))
    await settle()
    attachment = NetworkAttachment(network_id="net", addresses=("10.0.1.7/24",))

    def attach(tx) -> None:  # type: ignore[no-untyped-def]
        tx.update(replace(tx.get(Task, manager.tasks[0].id), networks=(attachment,)))

    await manager.store.update(attach)
    await manager.report(manager.tasks[0], TaskState.RUNNING)

    def end(tx) -> None:  # type: ignore[no-untyped-def]
        if removed:
            tx.delete(Node, "a")
        else:
            tx.update(replace(tx.get(Node, "a"), status=NodeStatus(state=NodeState.DOWN)))

    await manager.store.update(end)
    await settle()
    if not removed:
        assert claims(manager.tasks[0])
        await manager.clock.advance(ORPHANED_AFTER)
        await settle()


@pytest.mark.parametrize("removed", [True, False])
async def test_an_orphaned_task_keeps_its_addresses_for_a_while(removed: bool) -> None:
    manager = Manager()
    await manager.node("a")
    async with running(manager):
        await lose(manager, removed=removed)
        task = manager.tasks[0]
        assert task.status.state is TaskState.ORPHANED
        assert claims(task)
        await manager.clock.advance(HELD - SECOND)
        assert claims(manager.tasks[0])
        await manager.clock.advance(SECOND)
        assert manager.tasks[0].id == task.id
        assert not claims(manager.tasks[0])


async def test_without_its_service_it_is_deleted_when_it_has_no_addresses_any_more() -> None:
    manager = Manager()
    await manager.node("a")
    async with running(manager):
        await lose(manager, removed=True)
        orphan = manager.tasks[0].id
        await manager.store.update(lambda tx: tx.delete(Service, "web"))
        await manager.clock.advance(HELD - SECOND)
        assert [task.id for task in manager.tasks] == [orphan]
        assert claims(manager.tasks[0])
        await manager.clock.advance(SECOND)
        assert manager.tasks == []


async def test_a_new_leader_keeps_them_too() -> None:
    manager = Manager()
    await manager.node("a")
    async with running(manager):
        await lose(manager, removed=True)
        await manager.store.update(lambda tx: tx.delete(Service, "web"))
        await manager.clock.advance(SECOND)
    async with running(manager):
        await manager.clock.advance(HELD - 2 * SECOND)
        assert claims(manager.tasks[0])
        await manager.clock.advance(SECOND)
        assert manager.tasks == []
