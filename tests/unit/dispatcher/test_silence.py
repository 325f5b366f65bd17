"""A node that is not heard of is avoided before it is down."""

import random

from msgspec.structs import replace

from cluster.messages import Heartbeat
from cluster.objects import Node
from cluster.seams import MILLISECOND, SECOND
from cluster.states import NodeState
from manager.dispatcher.liveness import Liveness
from tests.fakes.agent import FakeAgent
from tests.fakes.dispatching import Cluster, running


def avoids(agent: FakeAgent, node_id: str) -> bool:
    return agent.knows.peers[node_id].silent  # type: ignore[attr-defined,no-any-return]


async def pass_beating(cluster: Cluster, agent: FakeAgent, nanoseconds: int) -> None:
    for _ in range(nanoseconds // (100 * MILLISECOND)):
        agent.say(Heartbeat())
        await cluster.talk(100 * MILLISECOND)


async def test_a_silent_node_is_avoided_after_a_period_and_a_half_and_no_more_once_heard(
    cluster: Cluster,
) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        one, two = await cluster.agent("n1"), await cluster.agent("n2")
        await cluster.talk()
        two.applies = False  # or it would answer the news of its own silence
        await pass_beating(cluster, one, 1300 * MILLISECOND)
        assert not avoids(one, "n2")
        await pass_beating(cluster, one, 400 * MILLISECOND)
        assert avoids(one, "n2")
        assert not avoids(one, "n1")
        assert one.knows.endpoints["net", "t2"].serving, "it is not down"  # type: ignore[attr-defined]
        assert cluster.get(Node, "n2").status.state == NodeState.READY
        two.say(Heartbeat())
        await cluster.talk()
        assert not avoids(one, "n2")
        await pass_beating(cluster, one, 1600 * MILLISECOND)
        assert avoids(one, "n2")


async def test_a_node_that_is_down_is_silent_no_more_and_its_tasks_serve_no_more(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        one = await cluster.agent("n1")
        two = await cluster.agent("n2")
        await cluster.talk()
        two.applies = False
        await pass_beating(cluster, one, 3200 * MILLISECOND)
        assert cluster.get(Node, "n2").status.state == NodeState.DOWN
        assert not one.knows.endpoints["net", "t2"].serving  # type: ignore[attr-defined]
        assert not avoids(one, "n2")


async def test_a_node_that_opens_a_session_is_avoided_no_more(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        one, two = await cluster.agent("n1"), await cluster.agent("n2")
        await cluster.talk()
        two.applies = False
        await pass_beating(cluster, one, 1700 * MILLISECOND)
        assert avoids(one, "n2")
        again = await cluster.agent("n2")
        await cluster.talk()
        assert not avoids(one, "n2")
        assert not avoids(again, "n2")


async def test_a_daemon_that_is_started_anew_does_not_make_its_node_silent(cluster: Cluster) -> None:
    """Its containers go on, and what is under way to them is not to choose again."""
    await cluster.nodes("n1", "n2")
    await cluster.web()
    async with running(cluster):
        one, two = await cluster.agent("n1"), await cluster.agent("n2")
        await cluster.talk()
        two.drop()
        await pass_beating(cluster, one, 2500 * MILLISECOND)
        assert not avoids(one, "n2")
        await pass_beating(cluster, one, 800 * MILLISECOND)
        assert avoids(one, "n2")  # it takes so long that the machine may be going down
        assert cluster.get(Node, "n2").status.state == NodeState.READY


async def test_a_new_leader_avoids_nodes_that_do_not_come(cluster: Cluster) -> None:
    await cluster.nodes("n1", "n2")
    await cluster.web()
    await cluster.put(replace(cluster.get(Node, "n2"), data_path_address="10.0.0.2"))
    async with running(cluster):
        one = await cluster.agent("n1")
        await cluster.talk()
        await pass_beating(cluster, one, 1600 * MILLISECOND)
        assert avoids(one, "n2")


def test_a_leader_that_stood_still_takes_no_node_for_silent() -> None:
    liveness = Liveness(random.Random(1))
    liveness.opened("n", SECOND, 0)
    liveness.delayed(5 * SECOND)
    assert liveness.silent(6 * SECOND) == []
    assert liveness.silent(7 * SECOND) == ["n"]
    assert liveness.silent(7 * SECOND) == [], "it is told once"
    liveness.heard("n", 7 * SECOND)
    assert liveness.silent(9 * SECOND) == ["n"]
    liveness.forget("n")
    assert liveness.next_deadline is None
