"""A stopping task leaves all balancers before its node is told to stop it."""

import pytest
from msgspec.structs import replace

from cluster.messages import Applied
from cluster.objects import Node, NodeStatus, Task
from cluster.seams import MILLISECOND
from cluster.states import NodeState, TaskState
from tests.fakes.agent import FakeAgent
from tests.fakes.dispatching import Cluster, running


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


async def test_a_node_s_next_session_does_not_begin_with_a_stop_that_others_have_not_heard_of(
    cluster: Cluster,
) -> None:
    """The managers decide while the task's own node is between two sessions, as after a change of leader."""
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        one, two = await cluster.agent("n1"), await cluster.agent("n2")
        await cluster.talk()
        two.applies = False
        one.drop()
        await cluster.talk()
        await stop(cluster, "t1")  # not yet taken in when the next session opens
        again = await cluster.agent("n1")
        await cluster.talk()
        assert again.knows.tasks["t1"].desired_state == TaskState.RUNNING
        two.applies = True
        two.say(Applied(sequence=two.knows.sequence))
        await cluster.talk()
        assert again.knows.tasks["t1"].desired_state == TaskState.SHUTDOWN
