"""The dispatcher with agents in memory, on virtual time."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from cluster.errors import Unavailable
from cluster.messages import (
    Applied,
    DescriptionChanged,
    Heartbeat,
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
from cluster.objects import (
    Endpoint,
    ManagerStatus,
    Network,
    NetworkAttachment,
    Node,
    NodeDescription,
    NodeStatus,
    Service,
    StoreObject,
    Subnet,
    Task,
    TaskStatus,
    VirtualIP,
)
from cluster.seams import MILLISECOND, SECOND
from cluster.spec import NetworkSpec, NodeSpec, ServiceSpec
from cluster.states import NodeState, Role, TaskState
from manager.dispatcher import Dispatcher
from manager.dispatcher.session import MAX_QUEUED, MAX_REPORTS
from manager.store import Store
from tests.fakes.agent import FakeAgent
from tests.fakes.clock import ManualClock, settle
from tests.fakes.proposer import LocalProposer


class Cluster:
    """A leading manager's store and dispatcher."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = Store(self.clock, random.Random(1))
        self.proposer = LocalProposer(self.store)
        self.dispatcher = Dispatcher(self.store, self.clock, random.Random(2), lambda: "10.0.0.1:2377")
        self.agents: list[FakeAgent] = []

    async def put(self, *objects: StoreObject) -> None:
        def change(tx):  # type: ignore[no-untyped-def]
            for obj in objects:
                stored = tx.get(type(obj), obj.id)
                if stored is None:
                    tx.create(obj)
                else:
                    tx.update(replace(obj, version=stored.version))

        await self.store.update(change)

    def get(self, cls, id):  # type: ignore[no-untyped-def]
        found = self.store.view().get(cls, id)
        assert found is not None
        return found

    async def delete(self, obj: StoreObject) -> None:
        await self.store.update(lambda tx: tx.delete(type(obj), obj.id))

    async def nodes(self, *ids: str) -> None:
        await self.put(*(Node(id=id, spec=NodeSpec()) for id in ids))

    async def agent(self, node_id: str, role: Role = Role.WORKER) -> FakeAgent:
        agent = FakeAgent(self.dispatcher, node_id, role)
        self.agents.append(agent)
        await settle()
        agent.listen()
        return agent

    async def talk(self, nanoseconds: int = 20 * MILLISECOND) -> None:
        """Let time pass with all agents listening."""
        for _ in range(4):
            await self.clock.advance(nanoseconds // 4)
            for agent in self.agents:
                agent.listen()
            await settle()

    async def web(self, network: bool = True) -> None:
        """A service in an overlay network, with one running task on each of n1 and n2."""
        await self.put(
            Network(
                id="net",
                spec=NetworkSpec(name="net"),
                subnets=(Subnet(subnet="10.9.0.0/24"),),
                vni=4097,
            ),
            Service(
                id="web",
                spec=ServiceSpec(name="web"),
                endpoint=Endpoint(virtual_ips=(VirtualIP(network_id="net", address="10.9.0.2/24"),)),
            ),
            *(
                Task(
                    id=f"t{number}",
                    service_id="web",
                    service_name="web",
                    slot=number,
                    node_id=f"n{number}",
                    status=TaskStatus(state=TaskState.RUNNING),
                    desired_state=TaskState.RUNNING,
                    networks=(
                        (NetworkAttachment(network_id="net", addresses=(f"10.9.0.{number + 2}/24",)),)
                        if network
                        else ()
                    ),
                )
                for number in (1, 2)
            ),
        )


@asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[None]:
    leading = asyncio.create_task(cluster.dispatcher.run())
    await settle()
    try:
        yield
    finally:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await settle()
        for agent in cluster.agents:
            agent.serving.cancel()
        results = await asyncio.gather(*(agent.serving for agent in cluster.agents), return_exceptions=True)
        assert not [error for error in results if isinstance(error, Exception)]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    return Cluster()  # type: ignore[return-value]


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


async def stop(cluster: Cluster, task_id: str) -> None:
    await cluster.put(replace(cluster.get(Task, task_id), desired_state=TaskState.SHUTDOWN))


async def test_a_task_leaves_all_balancers_before_it_is_told_to_stop(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        one, two = await cluster.agent("n1"), await cluster.agent("n2")
        await cluster.talk()
        two.applies = False
        await stop(cluster, "t1")
        await cluster.talk()
        for agent in (one, two):
            assert not agent.knows.endpoints["net", "t1"].serving  # type: ignore[attr-defined]
        assert one.knows.tasks["t1"].desired_state == TaskState.RUNNING
        two.applies = True
        two.say(Applied(sequence=two.knows.sequence))
        await cluster.talk()
        assert one.knows.tasks["t1"].desired_state == TaskState.SHUTDOWN


async def test_a_silent_node_holds_a_stop_up_for_two_seconds_only(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        one, two = await cluster.agent("n1"), await cluster.agent("n2")
        await cluster.talk()
        two.applies = False
        await stop(cluster, "t1")
        await cluster.talk(1900 * MILLISECOND)
        assert one.knows.tasks["t1"].desired_state == TaskState.RUNNING
        await cluster.talk(200 * MILLISECOND)
        assert one.knows.tasks["t1"].desired_state == TaskState.SHUTDOWN


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_node_between_two_sessions_is_waited_for(cluster: Cluster, when: str) -> None:
    """It balances on by what it knows, until its next session tells it otherwise."""
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        one, two = await cluster.agent("n1"), await cluster.agent("n2")
        await cluster.talk()
        two.applies = False
        if when == "before":
            two.drop()
            await cluster.talk()
        await stop(cluster, "t1")
        await cluster.talk()
        if when == "after":
            two.drop()
            await cluster.talk()
        assert one.knows.tasks["t1"].desired_state == TaskState.RUNNING
        again = await cluster.agent("n2")
        await cluster.talk()
        assert not again.knows.endpoints["net", "t1"].serving  # type: ignore[attr-defined]
        assert one.knows.tasks["t1"].desired_state == TaskState.SHUTDOWN


async def test_a_node_that_stays_away_holds_a_stop_up_for_two_seconds_only(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        one, two = await cluster.agent("n1"), await cluster.agent("n2")
        await cluster.talk()
        two.drop()
        await cluster.talk()
        await stop(cluster, "t1")
        await cluster.talk(1900 * MILLISECOND)
        assert one.knows.tasks["t1"].desired_state == TaskState.RUNNING
        await cluster.talk(200 * MILLISECOND)
        assert one.knows.tasks["t1"].desired_state == TaskState.SHUTDOWN


async def test_a_removed_node_is_not_waited_for(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        one, two = await cluster.agent("n1"), await cluster.agent("n2")
        await cluster.talk()
        two.applies = False
        await stop(cluster, "t1")
        await cluster.talk()
        await cluster.store.update(lambda tx: tx.delete(Node, "n2"))
        await cluster.talk()
        two.drop()
        await cluster.talk()
        assert one.knows.tasks["t1"].desired_state == TaskState.SHUTDOWN


async def test_a_new_leader_withdraws_anew_before_it_stops_what_its_predecessor_decided(
    cluster: Cluster,
) -> None:
    await cluster.nodes("n1", "n2", "n3")
    await cluster.web()
    await stop(cluster, "t1")
    gone = Node(id="n4", status=NodeStatus(state=NodeState.DOWN))
    await cluster.put(gone)
    async with running(cluster):
        one = await cluster.agent("n1")
        await cluster.talk()
        assert one.knows.tasks["t1"].desired_state == TaskState.RUNNING
        assert not one.knows.endpoints["net", "t1"].serving  # type: ignore[attr-defined]
        await cluster.agent("n2")
        three = FakeAgent(cluster.dispatcher, "n3")
        three.applies = False
        cluster.agents.append(three)
        await cluster.talk()
        assert one.knows.tasks["t1"].desired_state == TaskState.RUNNING
        three.say(Applied(sequence=1))
        await cluster.talk()
        assert one.knows.tasks["t1"].desired_state == TaskState.SHUTDOWN


async def test_a_new_leader_waits_two_seconds_at_most_for_nodes_that_stay_away(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    await stop(cluster, "t1")
    async with running(cluster):
        one = await cluster.agent("n1")
        await cluster.talk(1900 * MILLISECOND)
        assert one.knows.tasks["t1"].desired_state == TaskState.RUNNING
        await cluster.talk(200 * MILLISECOND)
        assert one.knows.tasks["t1"].desired_state == TaskState.SHUTDOWN


async def test_without_a_network_a_task_stops_at_once(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web(network=False)
    async with running(cluster):
        one = await cluster.agent("n1")
        one.applies = False
        await stop(cluster, "t1")
        await cluster.talk()
        assert one.knows.tasks["t1"].desired_state == TaskState.SHUTDOWN


async def test_an_unhealthy_task_gets_no_new_connections(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        one, two = await cluster.agent("n1"), await cluster.agent("n2")
        one.report("t1", healthy=False)
        await cluster.talk()
        assert not two.knows.endpoints["net", "t1"].serving  # type: ignore[attr-defined]
        one.report("t1", healthy=True)
        await cluster.talk()
        assert two.knows.endpoints["net", "t1"].serving  # type: ignore[attr-defined]


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
