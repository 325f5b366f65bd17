"""A task that is ready is in all balancers before it counts as running."""

import pytest
from msgspec.structs import replace

from cluster.messages import Applied, StatusAck
from cluster.objects import Task, TaskStatus
from cluster.seams import MILLISECOND
from cluster.states import TaskState
from manager.dispatcher.session import MAX_REPORTS
from tests.fakes.agent import FakeAgent
from tests.fakes.dispatching import Cluster, running


@pytest.fixture
async def starting(cluster: Cluster) -> Cluster:
    """Three nodes; task t1 of n1 starts, and t2 of n2 serves."""
    await cluster.nodes("n1", "n2", "n3")
    await cluster.web()
    # A store takes no task back, so the one that starts is another one.
    task = replace(cluster.get(Task, "t1"), id="new", version=0, status=TaskStatus(state=TaskState.STARTING))
    await cluster.put(task)
    return cluster


def state(cluster: Cluster) -> TaskState:
    return cluster.get(Task, "new").status.state  # type: ignore[no-any-return]


def serves(agent: FakeAgent) -> bool:
    return agent.knows.endpoints["net", "new"].serving  # type: ignore[attr-defined,no-any-return]


async def test_a_task_runs_once_every_balancer_that_knows_its_network_has_it(starting: Cluster) -> None:
    async with running(starting):
        one, two = await starting.agent("n1"), await starting.agent("n2")
        await starting.agent("n3")  # has no task in the network: not asked
        await starting.talk()
        two.applies = False
        one.report("new")
        await starting.talk()
        assert serves(one)
        assert serves(two)
        assert state(starting) == TaskState.STARTING
        two.say(Applied(sequence=two.knows.sequence))
        await starting.talk()
        assert state(starting) == TaskState.RUNNING
        assert starting.get(Task, "new").running_at > 0
        assert serves(two)


async def test_the_report_is_acknowledged_so_that_the_node_may_report_on(starting: Cluster) -> None:
    async with running(starting):
        one, two = await starting.agent("n1"), await starting.agent("n2")
        await starting.agent("n3")
        await starting.talk()
        two.applies = False
        number = one.report("new")
        await starting.talk()
        assert StatusAck(number) in one.messages
        assert state(starting) == TaskState.STARTING
        number = one.report("new", state=TaskState.FAILED)
        await starting.talk()
        assert StatusAck(number) in one.messages
        assert state(starting) == TaskState.FAILED
        two.say(Applied(sequence=two.knows.sequence))
        await starting.talk(2100 * MILLISECOND)
        assert state(starting) == TaskState.FAILED, "what it was before is forgotten"
        assert ("net", "new") not in two.knows.endpoints


async def test_a_silent_node_holds_it_up_for_two_seconds_only(starting: Cluster) -> None:
    async with running(starting):
        one, two = await starting.agent("n1"), await starting.agent("n2")
        await starting.agent("n3")
        await starting.talk()
        two.applies = False
        one.report("new")
        await starting.talk(1900 * MILLISECOND)
        assert state(starting) == TaskState.STARTING
        await starting.talk(200 * MILLISECOND)
        assert state(starting) == TaskState.RUNNING


async def test_a_node_between_two_sessions_is_waited_for(starting: Cluster) -> None:
    async with running(starting):
        one, two = await starting.agent("n1"), await starting.agent("n2")
        await starting.agent("n3")
        await starting.talk()
        two.applies = False
        one.report("new")
        await starting.talk()
        two.drop()
        await starting.talk()
        assert state(starting) == TaskState.STARTING
        again = await starting.agent("n2")
        await starting.talk()
        assert serves(again)
        assert state(starting) == TaskState.RUNNING


async def test_the_nodes_own_session_may_end_meanwhile(starting: Cluster) -> None:
    async with running(starting):
        one, two = await starting.agent("n1"), await starting.agent("n2")
        await starting.agent("n3")
        await starting.talk()
        two.applies = False
        one.report("new")
        await starting.talk()
        one.drop()
        await starting.talk()
        again = await starting.agent("n1")
        await starting.talk()
        assert serves(again), "what was admitted stays so"
        again.report("new")
        await starting.talk()
        assert state(starting) == TaskState.STARTING
        two.say(Applied(sequence=two.knows.sequence))
        await starting.talk()
        assert state(starting) == TaskState.RUNNING


async def test_the_next_leader_is_told_again_and_begins_anew(starting: Cluster) -> None:
    async with running(starting):
        one, two = await starting.agent("n1"), await starting.agent("n2")
        await starting.agent("n3")
        await starting.talk()
        two.applies = False
        one.report("new")
        await starting.talk()
    starting.agents.clear()
    async with running(starting):
        one, two = await starting.agent("n1"), await starting.agent("n2")
        await starting.agent("n3")
        await starting.talk()
        # So an agent sees that the leader knows less than it does, and reports again.
        assert one.knows.tasks["new"].status.state == TaskState.STARTING
        assert not serves(two)
        two.applies = False
        one.report("new")
        await starting.talk()
        assert serves(two)
        assert state(starting) == TaskState.STARTING
        two.say(Applied(sequence=two.knows.sequence))
        await starting.talk()
        assert state(starting) == TaskState.RUNNING


async def test_a_task_that_was_never_healthy_never_counts(starting: Cluster) -> None:
    async with running(starting):
        one, two = await starting.agent("n1"), await starting.agent("n2")
        await starting.agent("n3")
        await starting.talk()
        two.applies = False
        one.report("new")
        await starting.talk()
        number = one.report("new", healthy=False)
        await starting.talk()
        assert StatusAck(number) in one.messages
        assert not serves(two)
        await starting.talk(2100 * MILLISECOND)
        assert state(starting) == TaskState.STARTING
        one.report("new", state=TaskState.FAILED)
        await starting.talk()
        assert state(starting) == TaskState.FAILED


async def test_a_task_that_is_to_stop_meanwhile_leaves_the_balancers_first(starting: Cluster) -> None:
    async with running(starting):
        one, two = await starting.agent("n1"), await starting.agent("n2")
        await starting.agent("n3")
        await starting.talk()
        two.applies = False
        one.report("new")
        await starting.talk()
        await starting.put(replace(starting.get(Task, "new"), desired_state=TaskState.SHUTDOWN))
        await starting.talk()
        assert not serves(two)
        assert one.knows.tasks["new"].desired_state == TaskState.RUNNING
        two.say(Applied(sequence=two.knows.sequence))
        await starting.talk()
        assert one.knows.tasks["new"].desired_state == TaskState.SHUTDOWN


async def test_without_a_network_a_task_runs_at_once(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web(network=False)
    new = replace(cluster.get(Task, "t1"), id="new", version=0, status=TaskStatus(state=TaskState.STARTING))
    await cluster.put(new)
    async with running(cluster):
        one = await cluster.agent("n1")
        one.applies = False
        one.report("new")
        await cluster.talk()
        assert state(cluster) == TaskState.RUNNING


async def test_many_that_are_admitted_at_once_are_written_as_one_report(starting: Cluster) -> None:
    """A session may have only so many reports that wait."""
    many = [f"m{number}" for number in range(2 * MAX_REPORTS)]
    await starting.put(*(replace(starting.get(Task, "new"), id=id, version=0) for id in many))
    async with running(starting):
        one = await starting.agent("n1")
        await starting.agent("n2")
        await starting.agent("n3")
        await starting.talk()
        for id in many:
            one.report(id)
        await starting.talk()
        await starting.talk()
        assert {starting.get(Task, id).status.state for id in many} == {TaskState.RUNNING}
