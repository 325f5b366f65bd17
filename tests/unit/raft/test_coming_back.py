"""A manager that left comes back under its id, with an empty disk: demoted, promoted again."""

from pathlib import Path

import pytest

from manager.raft.wire import FrameReader, RequestPreVote, RequestVote, encode
from tests.fakes.raft import Member, TlsCluster
from tests.fakes.raft_world import SimDisk, SimNode, World


def newcomer(world: World, node_id: str, knows: str) -> SimNode:
    """A node that starts with nothing on its disk and that manager's address."""
    world.nodes[node_id] = node = SimNode(world, node_id)
    node.disk = SimDisk()
    node.start(members={knows: knows})
    for other in world.nodes:
        if other != node_id:
            world.connect(node_id, other)
    return node


def add(world: World, leader: str, node_id: str) -> list[object]:
    outcome: list[object] = []
    node = world[leader].node
    assert node is not None
    node.add_member(node_id, node_id, lambda result, error: outcome.append(error or "added"))
    return outcome


def a_founder_that_left(*, compacted: bool) -> World:
    """A founded the cluster, B joined and leads alone; A's disk is wiped, and it knows of B."""
    world = World("A")
    world.elect("A")
    for entry in (b"one", b"two"):
        world["A"].propose(entry)
        world.rounds(2)
    if compacted:
        world.compact("A")  # the members of this snapshot: A alone
    newcomer(world, "B", "A")
    added = add(world, "A", "B")
    world.rounds(8)
    assert added == ["added"]
    node, founder = world["B"].node, world["A"].node
    assert node is not None
    assert founder is not None
    founder.hand_over("B", lambda result, error: None)
    world.rounds(8)
    assert world["B"].leads
    node.remove_member("A", lambda result, error: None)
    world.rounds(4)
    assert set(node.members()) == {"B"}
    world["B"].propose(b"three")
    world.rounds(3)
    world.crash("A")
    newcomer(world, "A", "B")
    return world


def test_it_does_not_learn_of_the_time_when_it_was_a_member() -> None:
    for compacted in (False, True):
        world = a_founder_that_left(compacted=compacted)
        added = add(world, "B", "A")
        node, leader = world["A"].node, world["B"].node
        assert node is not None
        assert leader is not None
        for _ in range(30):
            assert node._standing() < 0 or node.voters(), "it takes itself for the only member"
            world.rounds(1)
        assert added == ["added"]
        assert set(leader.members()) == set(node.members()) == {"A", "B"}
        world["B"].propose(b"four")
        world.rounds(4)
        assert world["A"].machine.entries == world["B"].machine.entries == [b"one", b"two", b"three", b"four"]
        assert not world.violations


def test_cut_off_at_any_moment_of_learning_it_does_not_lead() -> None:
    for rounds in range(1, 14):
        world = a_founder_that_left(compacted=True)
        added = add(world, "B", "A")
        world.rounds(rounds)
        world.isolate("A")
        if added:
            break
        node = world["A"].node
        assert node is not None
        for _ in range(20):
            world.clock.time += 500_000_000
            world.step("A")
            assert not world["A"].leads
    else:
        raise AssertionError("it never became a member")


def test_before_it_has_learnt_anything_it_gives_no_vote() -> None:
    """One who has not heard that it left may still count on it, and on others who came back."""
    world = a_founder_that_left(compacted=False)
    world.rounds(1)
    world.links.clear()
    last = world["B"].journal[-1]
    for request in (RequestVote(99, last[1], last[2]), RequestPreVote(99, last[1], last[2])):
        world["A"].transport.deliver("B", encode(request))
        world.step("A")
        sent = [m for frame in world.links["A", "B"] for m in FrameReader().feed(frame)]
        assert not any("Vote" in type(message).__name__ for message in sent)


@pytest.mark.parametrize("told", [{}, {"n1": "127.0.0.1:1"}])
async def test_one_that_joins_is_no_member_whatever_it_is_told(tmp_path: Path, told: dict[str, str]) -> None:
    """Of nobody, or of itself, as a former manager may be: it was the only member of a cluster of its own."""
    member = Member(TlsCluster(tmp_path), "n1")
    try:
        raft = await member.start(peers=told)
        assert not raft.members
        assert not raft.status().member
        assert raft.leader_id is None
    finally:
        await member.stop()
