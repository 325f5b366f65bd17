"""A manager becomes a member also when an answer takes too long, and when the leader dies meanwhile."""

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from cluster.errors import ShoalError
from cluster.objects import Node
from cluster.seams import SECOND, SystemClock
from cluster.spec import ClusterSpec
from cluster.states import Role
from manager.ca.authority import found_cluster
from manager.core import Core
from manager.raft import Raft
from manager.rpc.join import Answered, JoinRefused, ask_to_be_member
from manager.settings import Founding
from tests.fakes.clock import ManualClock, settle
from tests.fakes.raft import Authority
from tests.fakes.raft_world import SimNode, World


class Managers:
    """Answers one request after the other, the last one for ever."""

    def __init__(self, *answers: Answered | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def post(self, manager: str, path: str, content: bytes) -> Answered:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_to_ask_again_while_it_learns_is_no_conflict() -> None:
    """It was answered 409 "already a manager at another address", which a joiner takes for the last word."""
    world = World("A")
    leader = world.elect("A").node
    assert leader is not None
    world.nodes["B"] = SimNode(world, "B")
    first: list[object] = []
    again: list[Exception | None] = []
    leader.add_member("B", "B", lambda result, error: first.append(error))
    world.rounds(3, only="A")
    leader.add_member("B", "B", lambda result, error: again.append(error))
    assert not first
    refusal = again[0]
    assert isinstance(refusal, ShoalError)
    assert refusal.status == 503

    world["B"].start(members={"A": "A"})
    world.connect("A", "B")
    world.rounds(8)
    assert first == [None]
    assert set(leader.members()) == {"A", "B"}


async def test_a_joiner_goes_on_asking_after_an_answer_that_did_not_come_in_time() -> None:
    clock = ManualClock()
    managers = Managers(
        TimeoutError("15 s"),
        Answered(503, "being added already", False),
        Answered(200, "", False),
    )
    asking = asyncio.create_task(ask_to_be_member("B", "b:2377", ["a:2377"], managers.post, clock))
    for _ in range(3):
        await settle()
        await clock.advance(SECOND)
    await asking
    assert managers.asked == 3


async def test_a_joiner_that_is_refused_for_good_asks_no_more() -> None:
    managers = Managers(Answered(403, "promote it first", False))
    with pytest.raises(JoinRefused, match="promote it first"):
        await ask_to_be_member("B", "b:2377", ["a:2377"], managers.post, ManualClock())
    assert managers.asked == 1


async def nobody(manager: str, path: str, content: bytes) -> Answered:
    raise ConnectionError("no other manager")


async def a_manager(stack: AsyncExitStack, directory: Path) -> Core:
    """One that has founded a cluster."""
    clock, rng = SystemClock(), random.Random(1)
    cluster = found_cluster(ClusterSpec(), clock=clock, rng=rng)
    core = Core("m1", "127.0.0.1:2377", clock, rng)
    tls = Authority(cluster.id).issue("m1")
    raft = Raft(
        node_id="m1",
        cluster_id=cluster.id,
        address=core.advertise,
        directory=directory,
        state_machine=core.store,
        tls=tls,
    )
    await core.start(stack, raft, core)  # type: ignore[arg-type]  # it leads, and asks no other
    await core.found(cluster, Founding())
    return core


async def test_a_member_of_raft_that_the_state_does_not_know_as_manager_makes_up_for_it(
    tmp_path: Path,
) -> None:
    """The leader that made it a member died before it wrote that down: no agent was ever told of it."""
    async with AsyncExitStack() as stack:
        core = await a_manager(stack, tmp_path)

        def forget(tx) -> None:  # type: ignore[no-untyped-def]
            tx.update(replace(tx.get(Node, "m1"), manager_status=None))

        await core.store.update(forget)
        stop = asyncio.Event()
        running = asyncio.create_task(core.lead_until(stop, nobody))
        async with asyncio.timeout(10):
            while (node := core.store.view().get(Node, "m1")) is None or node.manager_status is None:
                await asyncio.sleep(0.02)
        assert node.manager_status.address == core.advertise
        stop.set()
        await running


async def test_one_that_is_being_demoted_does_not_ask_to_be_known_again(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        core = await a_manager(stack, tmp_path)
        assert not core._moved()

        def demote(tx) -> None:  # type: ignore[no-untyped-def]
            node = tx.get(Node, "m1")
            tx.update(replace(node, spec=replace(node.spec, role=Role.WORKER), manager_status=None))

        await core.store.update(demote)
        assert not core._moved()
