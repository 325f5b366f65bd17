"""The dispatcher with agents in memory, on virtual time."""

import asyncio
import random

import pytest
from msgspec.structs import replace

from cluster.errors import Unavailable
from cluster.messages import (
    DescriptionChanged,
    Heartbeat,
    HeartbeatAck,
    LogChunk,
    LogEnd,
    LogRequest,
    ManagersChanged,
    Removed,
    RoleChanged,
    SessionRedirect,
    StatusAck,
    StatusReport,
    TaskStatusUpdate,
    Welcome,
)
from cluster.objects import Cluster as StoredCluster
from cluster.objects import (
    ManagerStatus,
    Node,
    NodeDescription,
    NodeStatus,
    Task,
    TaskStatus,
)
from cluster.seams import MILLISECOND, SECOND
from cluster.spec import ClusterSpec, DispatcherConfig
from cluster.states import NodeState, Role, TaskState
from manager.dispatcher.session import MAX_QUEUED, MAX_REPORTS
from manager.store import Store
from tests.fakes.agent import FakeAgent
from tests.fakes.clock import settle
from tests.fakes.dispatching import Cluster, running
from tests.fakes.proposer import LocalProposer


async def test_follower_redirects(cluster: Cluster) -> None:
    await cluster.nodes("n1")
    agent = await cluster.agent("n1")
    assert agent.messages == [SessionRedirect(leader="10.0.0.1:2377")]
    assert agent.channel.closed
    await agent.serving


async def test_hello_makes_the_node_ready_and_gets_everything(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        agent = await cluster.agent("n1")
        assert isinstance(agent.messages[0], Welcome)
        assert agent.messages[0].heartbeat_period == SECOND
        node = cluster.get(Node, "n1")
        assert (node.status.state, node.status.address) == (NodeState.READY, "10.0.0.1")
        assert node.description.hostname == "n1"
        assert set(agent.knows.tasks) == {"t1"}
        assert set(agent.knows.networks) == {"net"}
        assert set(agent.knows.endpoints) == {("net", "t1"), ("net", "t2")}
        assert set(agent.knows.services) == {("net", "web")}


async def test_unknown_node_is_told_that_it_was_removed(cluster: Cluster) -> None:
    async with running(cluster):
        agent = await cluster.agent("n1")
        assert isinstance(agent.messages[0], Removed)


async def test_statuses_are_written_and_acknowledged(cluster: Cluster) -> None:
    await cluster.nodes("n1")
    async with running(cluster):
        agent = await cluster.agent("n1")
        await cluster.put(
            Task(
                id="t1",
                node_id="n1",
                status=TaskStatus(state=TaskState.ASSIGNED),
                desired_state=TaskState.RUNNING,
            )
        )
        await cluster.talk()
        assert set(agent.knows.tasks) == {"t1"}
        sent = len(agent.messages)
        number = agent.report("t1")
        await cluster.talk()
        assert agent.messages[sent:] == [StatusAck(number=number)], "its own report is not sent back to it"
        task = cluster.get(Task, "t1")
        assert task.status.state == TaskState.RUNNING
        assert task.running_at > 0
        agent.report("t1", state=TaskState.PREPARING)
        await cluster.talk()
        assert cluster.get(Task, "t1").status.state == TaskState.RUNNING


async def test_reports_on_unknown_or_foreign_tasks_are_answered_with_removal(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        agent = await cluster.agent("n1")
        agent.report("gone", "t2", state=TaskState.FAILED)
        await cluster.talk()
        assert cluster.get(Task, "t2").status.state == TaskState.RUNNING
        assert agent.knows.sequence == 2
        assert agent.messages[-1].removed_tasks == ("gone", "t2")  # type: ignore[union-attr]


async def test_a_silent_node_is_down_after_three_missed_heartbeats(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        await cluster.agent("n1")
        two = await cluster.agent("n2")
        for _ in range(29):
            two.say(Heartbeat())
            await cluster.clock.advance(100 * MILLISECOND)
            two.listen()
        assert cluster.get(Node, "n1").status.state == NodeState.READY
        for _ in range(5):
            two.say(Heartbeat())
            await cluster.clock.advance(100 * MILLISECOND)
            two.listen()
        node = cluster.get(Node, "n1")
        assert (node.status.state, node.status.message) == (NodeState.DOWN, "heartbeat failure")
        assert not two.knows.endpoints["net", "t1"].serving  # type: ignore[attr-defined]
        back = await cluster.agent("n1")
        assert isinstance(back.messages[0], Welcome)
        assert cluster.get(Node, "n1").status.state == NodeState.READY


async def test_a_node_whose_daemon_restarts_has_ten_seconds(cluster: Cluster) -> None:
    await cluster.nodes("n1")
    async with running(cluster):
        agent = await cluster.agent("n1")
        agent.drop()
        await agent.serving
        await cluster.clock.advance(9900 * MILLISECOND)
        assert cluster.get(Node, "n1").status.state == NodeState.READY
        await cluster.clock.advance(200 * MILLISECOND)
        assert cluster.get(Node, "n1").status.state == NodeState.DOWN


async def test_a_changed_heartbeat_counts_for_open_sessions(cluster: Cluster) -> None:
    await cluster.nodes("n1")
    await cluster.web()
    async with running(cluster):
        agent = await cluster.agent("n1")

        async def beat(period: int) -> None:
            spec = ClusterSpec(dispatcher=DispatcherConfig(heartbeat_period=period))
            here = cluster.store.view().cluster()
            await cluster.put(replace(here or StoredCluster(id="c"), spec=spec))
            agent.say(Heartbeat())
            await cluster.talk()
            assert agent.messages[-1] == HeartbeatAck(period=period)

        async def state_after(seconds: int) -> NodeState:
            await cluster.clock.advance(seconds * SECOND)
            return cluster.get(Node, "n1").status.state

        await beat(20 * SECOND)
        assert await state_after(59) is NodeState.READY
        await beat(2 * SECOND)  # it still waits 20 s for its next one
        assert await state_after(59) is NodeState.READY
        await beat(2 * SECOND)
        assert await state_after(8) is NodeState.DOWN


async def test_after_a_change_of_leader_nodes_have_a_period_more(cluster: Cluster) -> None:
    await cluster.put(Node(id="n1", status=NodeStatus(state=NodeState.READY)))
    async with running(cluster):
        await cluster.clock.advance(3900 * MILLISECOND)
        assert cluster.get(Node, "n1").status.state == NodeState.READY
        await cluster.clock.advance(500 * MILLISECOND)
        assert cluster.get(Node, "n1").status.state == NodeState.DOWN


async def test_only_a_process_that_stood_still_says_so(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    await cluster.put(*(Node(id=f"n{n}", status=NodeStatus(state=NodeState.READY)) for n in (1, 2)))
    async with running(cluster):
        await cluster.agent("n2")
        cluster.proposer.hold()  # n2 falls silent while n1's end waits for a quorum
        await cluster.clock.advance(8 * SECOND)
        cluster.proposer.release()
        await cluster.clock.advance(SECOND)
        assert cluster.get(Node, "n1").status.state == NodeState.DOWN
        assert cluster.get(Node, "n2").status.state == NodeState.DOWN
    assert "the dispatcher was held up" not in caplog.text


async def test_a_newer_session_replaces_the_older(cluster: Cluster) -> None:
    await cluster.nodes("n1")
    async with running(cluster):
        old = await cluster.agent("n1")
        new = await cluster.agent("n1")
        await settle()
        assert old.channel.closed
        assert not new.channel.closed
        assert cluster.dispatcher.connected == {"n1"}


async def test_managers_roles_and_removal_are_told(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    async with running(cluster):
        agent = await cluster.agent("n1")
        node = cluster.get(Node, "n1")
        await cluster.put(replace(node, spec=replace(node.spec, role=Role.MANAGER)))
        await cluster.talk()
        assert agent.messages[-1] == RoleChanged(role="manager")
        node = cluster.get(Node, "n2")
        await cluster.put(replace(node, manager_status=ManagerStatus(address="10.0.0.2:2377")))
        await cluster.talk()
        told = [message for message in agent.messages if isinstance(message, ManagersChanged)]
        assert told[0].managers[0].address == "10.0.0.2:2377"
        await cluster.delete(cluster.get(Node, "n1"))
        await cluster.talk()
        assert isinstance(agent.messages[-1], Removed)
        assert agent.channel.closed


async def test_logs_come_from_every_node_and_a_missing_one_is_named(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        one = await cluster.agent("n1")
        found: list[bytes] = []

        async def read() -> None:
            async for chunk in cluster.dispatcher.logs(LogRequest(request=0, task_ids=("t1", "t2"))):
                found.append(chunk.data)

        reading = asyncio.create_task(read())
        await settle()
        request = one.listen()[-1]
        assert isinstance(request, LogRequest)
        assert request.task_ids == ("t1",)
        one.say(LogChunk(request=request.request, task_id="t1", timestamp=1, stream=1, data=b"hello\n"))
        one.say(LogEnd(request=request.request))
        with pytest.raises(Unavailable, match="node n2 is not connected"):
            await reading
        assert found == [b"hello\n"]


def expect_task_set(agent: FakeAgent, cluster: Cluster) -> None:
    tasks = cluster.store.view().tasks_on_node(agent.node_id)
    assert {id: task.desired_state for id, task in agent.knows.tasks.items()} == {
        task.id: task.desired_state for task in tasks
    }


def task_on(node_id: str, number: int) -> Task:
    status = TaskStatus(state=TaskState.ASSIGNED)
    return Task(id=f"x{number}", node_id=node_id, status=status, desired_state=TaskState.RUNNING)


async def test_a_slow_agent_gets_few_larger_messages_and_catches_up(cluster: Cluster) -> None:
    await cluster.nodes("n1")
    async with running(cluster):
        agent = await cluster.agent("n1")
        agent.channel.flowing.clear()
        for number in range(60):
            await cluster.put(task_on("n1", number))
            await cluster.clock.advance(20 * MILLISECOND)
        before = len(agent.messages)
        agent.channel.flowing.set()
        await cluster.talk()
        assert len(agent.messages) - before < 30
        expect_task_set(agent, cluster)


async def test_after_a_snapshot_replaced_the_state_sessions_get_the_difference(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        agent = await cluster.agent("n1")
        other = Store(cluster.clock, random.Random(9))
        other.restore(cluster.proposer.index, iter(list(cluster.store.snapshot())))
        proposer = LocalProposer(other)
        proposer.entries = [b""] * cluster.proposer.index
        task = other.view().get(Task, "t2")
        assert task is not None
        await other.update(lambda tx: tx.delete(Task, task.id))
        await other.update(lambda tx: tx.create(task_on("n1", 1)))
        cluster.store.restore(proposer.index, iter(list(other.snapshot())))
        await cluster.talk()
        assert set(agent.knows.endpoints) == {("net", "t1")}
        expect_task_set(agent, cluster)


async def test_a_node_that_reconnects_in_a_loop_is_slowed_down(cluster: Cluster) -> None:
    await cluster.nodes("n1")
    async with running(cluster):
        for _ in range(5):
            agent = await cluster.agent("n1")
            assert isinstance(agent.messages[0], Welcome)
        late = await cluster.agent("n1")
        assert late.messages == []
        await cluster.clock.advance(SECOND)
        late.listen()
        assert isinstance(late.messages[0], Welcome)


async def test_when_leadership_ends_sessions_end_and_redirect(cluster: Cluster) -> None:
    await cluster.nodes("n1")
    async with running(cluster):
        agent = await cluster.agent("n1")
    assert agent.channel.closed
    again = await cluster.agent("n1")
    assert isinstance(again.messages[0], SessionRedirect)
    await again.serving


async def test_a_report_on_a_task_that_is_deleted_meanwhile_does_no_harm(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        agent = await cluster.agent("n1")
        cluster.proposer.hold()
        agent.report("t1", state=TaskState.FAILED)
        await settle()
        task = cluster.get(Task, "t1")
        deleting = asyncio.create_task(cluster.delete(task))
        await settle()
        assert cluster.proposer.held == 2
        cluster.proposer.release(lambda numbers: list(reversed(numbers)))
        await deleting
        await cluster.talk(SECOND)
        assert cluster.store.view().get(Task, "t1") is None
        assert agent.messages.count(StatusAck(number=1)) == 1
        assert cluster.dispatcher.connected == {"n1"}


async def test_a_node_heard_of_while_it_is_marked_down_is_ready_again(cluster: Cluster) -> None:
    await cluster.nodes("n1")
    async with running(cluster):
        await cluster.agent("n1")
        cluster.proposer.hold()
        await cluster.clock.advance(3200 * MILLISECOND)
        assert cluster.proposer.held == 1
        await cluster.agent("n1")
        cluster.proposer.release()
        await cluster.talk()
        assert cluster.get(Node, "n1").status.state == NodeState.READY
        assert cluster.dispatcher.connected == {"n1"}


# --- agents that ask more than they read ------------------------------------------------------------------


async def test_an_agent_that_never_reads_its_answers_is_cut_off() -> None:
    cluster = Cluster()
    await cluster.nodes("n1", "n2")
    async with running(cluster):
        deaf, other = await cluster.agent("n1"), await cluster.agent("n2")
        deaf.channel.flowing.clear()
        for _ in range(MAX_QUEUED + 100):
            deaf.say(Heartbeat())
        await settle(MAX_QUEUED + 200)
        assert deaf.serving.done()
        assert not other.serving.done()


async def test_an_agent_that_floods_the_managers_with_statuses_is_cut_off() -> None:
    cluster = Cluster()
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        agent, other = await cluster.agent("n1"), await cluster.agent("n2")
        cluster.proposer.hold()
        for number in range(MAX_REPORTS + 10):
            status = TaskStatus(state=TaskState.RUNNING, message=f"{number}")
            agent.say(StatusReport(number=number, updates=(TaskStatusUpdate("t1", status),)))
            await settle(5)
        assert agent.serving.done()
        assert not other.serving.done()
        cluster.proposer.release()


async def test_of_a_node_s_descriptions_only_the_newest_waits() -> None:
    cluster = Cluster()
    await cluster.nodes("n1")
    async with running(cluster):
        agent = await cluster.agent("n1")
        cluster.proposer.hold()
        for number in range(500):
            description = NodeDescription(hostname=f"h{number}")
            agent.say(DescriptionChanged(description=description))
        await settle(600)
        assert cluster.proposer.held <= 1
        cluster.proposer.release()
        await cluster.talk()
        assert cluster.get(Node, "n1").description.hostname == "h499"
