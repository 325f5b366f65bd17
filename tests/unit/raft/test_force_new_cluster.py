"""One survivor becomes a cluster of its own: what it keeps, what a crash leaves, who is left behind."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.errors import Conflict
from manager.raft.errors import FailStop
from tests.fakes.raft import TlsCluster
from tests.fakes.raft_world import PowerLoss, SimNode, World


def survivor(snapshot: bool = False, removed: bool = False) -> tuple[World, list[bytes]]:
    """A of three, alone; the last acknowledged write is in its log, not known there to be committed."""
    world = World()
    world.elect("B")
    written = [b"one", b"two"]
    for entry in written:
        world["B"].propose(entry)
        world.rounds(3)
    if removed:
        node = world["B"].node
        assert node is not None
        node.remove_member("C", lambda result, error: None)
        world.rounds(4)
    if snapshot:
        world.compact("A")
    outcome = world["B"].propose(b"acknowledged")
    world.step("B")
    world.deliver("B", "A")
    world.step("A")
    world.deliver("A", "B")
    world.step("B")
    assert isinstance(outcome[0], int)  # by A and B; A has not heard of the commit
    for node_id in "ABC":
        world.crash(node_id)
    return world, [*written, b"acknowledged"]


def alone(world: World, node_id: str) -> SimNode:
    """Step a node by itself until it leads or a second has passed."""
    node = world[node_id].node
    assert node is not None
    node.begin()
    for _ in range(20):
        world.clock.time += 50_000_000
        world.step(node_id)
    return world[node_id]


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("removed", [False, True])
def test_the_survivor_leads_alone_with_everything_that_was_acknowledged(
    snapshot: bool, removed: bool
) -> None:
    world, written = survivor(snapshot, removed)
    world["A"].start()
    assert not alone(world, "A").leads  # a minority, as before
    world.crash("A")

    world["A"].start(force_new_cluster=True)
    node = alone(world, "A")
    assert node.leads
    assert node.machine.entries == written
    assert node.node is not None
    assert node.node.members() == {"A": "A"}
    assert node.node.status.generation == 1
    outcome = node.propose(b"new")
    world.step("A")
    world.step("A")
    assert isinstance(outcome[0], int)

    world.compact("A")
    world.crash("A")  # and so it stays, without being forced again; also from the snapshot
    world["A"].start()
    node = alone(world, "A")
    assert node.leads
    assert node.machine.entries == [*written, b"new"]
    assert node.node is not None
    assert node.node.members() == {"A": "A"}
    assert node.node.status.generation == 1


def test_a_crash_at_every_step_leaves_the_old_members_or_the_new_and_every_write() -> None:
    outcomes = []
    for step in range(40):
        world, written = survivor()
        left = step

        def failing(operation: str, path: Path) -> bool:
            nonlocal left
            left -= 1
            return left < 0

        world["A"].disk.fail = failing
        try:
            world["A"].start(force_new_cluster=True)
            alone(world, "A")
        except (FailStop, PowerLoss, OSError):
            pass
        world.crash("A")
        world["A"].disk.fail = lambda operation, path: False
        world["A"].start()
        node = alone(world, "A")
        assert node.node is not None
        outcomes.append(node.leads)
        if not node.leads:  # nothing has changed: A still needs one of the others
            assert set(node.node.members()) == {"A", "B", "C"}
            world.crash("A")
            world["A"].start(force_new_cluster=True)
            node = alone(world, "A")
        assert node.leads
        assert node.machine.entries == written
        assert node.node is not None
        assert node.node.members() == {"A": "A"}
        if left >= 0:
            break
    assert {True, False} == set(outcomes)
    assert outcomes == sorted(outcomes)  # once it is done, it stays done
    assert left >= 0, "the steps were not all tried"


@pytest.mark.parametrize("snapshot", [False, True])
def test_being_left_behind_is_over_once_a_new_cluster_was_forced_here(snapshot: bool) -> None:
    """Also when power is lost before the removal of the note of it is durable."""
    world, written = survivor()
    sim = world["A"]
    sim.start()
    assert told(world, "A")
    note = Path("/r/left-behind")
    content = sim.disk.files[note]
    world.crash("A")
    sim.start(force_new_cluster=True)
    assert alone(world, "A").leads
    if snapshot:
        world.compact("A")
    world.crash("A")
    assert note not in sim.disk.files
    sim.disk.files[note] = content
    sim.start()
    assert alone(world, "A").leads
    assert sim.machine.entries == written
    assert note not in sim.disk.files


def test_a_forced_survivor_can_be_moved_to_another_address() -> None:
    world, _ = survivor()
    world["A"].start(address="elsewhere", force_new_cluster=True)
    node = alone(world, "A")
    assert node.node is not None
    assert node.node.members() == {"A": "elsewhere"}


def test_members_that_were_added_and_removed_stay_so_after_a_restart() -> None:
    """A change counts once, when it is logged: applied again later it would undo those after it."""
    world = World("ABCD")
    leader = world.elect("A").node
    assert leader is not None
    leader.remove_member("D", lambda result, error: None)
    world.rounds(4)
    leader.add_member("D", "D", lambda result, error: None)
    world.rounds(12)
    leader.remove_member("C", lambda result, error: None)
    world.rounds(4)
    world.crash("B")
    world["B"].start()
    node = world["B"].node
    assert node is not None
    assert {peer.id for peer in node.voters()} == {"A", "D"}
    seen: list[set[str]] = []
    apply = node._SyncObj__doApplyCommand

    def watched(command: bytes) -> object:
        result = apply(command)
        seen.append({peer.id for peer in node.voters()})
        return result

    node._SyncObj__doApplyCommand = watched
    world.heal("B")
    world.rounds(4)
    assert seen
    assert all(voters == {"A", "D"} for voters in seen)


def told(world: World, node_id: str, generation: int = 1) -> bool:
    """Tell a node that it was left behind; whether it believes it."""
    node = world[node_id].node
    assert node is not None
    node._was_left_behind(generation, "left behind")
    return node.left_behind is not None


def test_only_a_node_that_finds_no_leader_believes_that_it_was_left_behind() -> None:
    world = World()
    assert not told(world, "A", generation=0)  # that is its own
    world.elect("A")
    assert not told(world, "A")
    assert not told(world, "B")
    world.crash("A")
    assert world["B"].node is not None
    world["B"].node.set_leader(None)  # an election, and over in a moment
    assert not told(world, "B")
    world.clock.time += 5_000_000_000  # no leader for long: the quorum is lost
    assert told(world, "B")
    world.restart("A")  # it has just come back, and may find one or not
    assert told(world, "A")
    assert world["A"].node is not None
    world["A"].node.elect_at_once()
    world.rounds(10)
    assert not world["A"].leads
    assert not world["C"].leads  # one vote of three is left


def test_what_could_not_be_noted_on_a_full_disk_is_noted_later() -> None:
    world = World()
    sim = world["A"]
    sim.disk.fail = lambda operation, path: path.name.startswith("left-behind")
    assert told(world, "A")
    sim.disk.fail = lambda operation, path: False
    assert told(world, "A")
    world.crash("A")
    world["A"].start()
    assert world["A"].node is not None
    assert world["A"].node.left_behind is not None


async def wait(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.realtime
async def test_those_left_behind_are_told_and_never_vote_again(tmp_path: Path) -> None:
    cluster = TlsCluster(tmp_path)
    try:
        await cluster.grow(3)
        await cluster.propose(b"kept")
        await cluster.converge()
        await cluster.stop()
        one, two, three = cluster.members.values()
        await one.start(force_new_cluster=True)
        await cluster.propose(b"new")

        await two.start()
        await wait(lambda: two.live.left_behind is not None)
        told = two.live.left_behind
        assert told is not None
        assert "forced on manager n1" in told.reason
        assert one.live.is_leader
        await one.stop()  # what they were told, they keep, also without anyone who says it
        await two.stop()
        await two.start()
        await three.start()
        assert two.live.left_behind == told
        await asyncio.sleep(2)  # several election timeouts of n3, which was not told
        assert not two.live.is_leader
        assert not three.live.is_leader
        await two.stop()
        await three.stop()

        await one.start()  # forced once, not again
        await cluster.propose(b"newer")
        assert one.recorder.entries == [b"kept", b"new", b"newer"]
        assert dict(one.live.members) == {"n1": one.address}

        await two.start(force_new_cluster=True)  # the operator's choice, if n1 is gone for good
        await wait(lambda: two.live.is_leader)
        assert two.live.left_behind is None
        assert two.live.status().generation == 2
    finally:
        await cluster.stop()


@pytest.mark.realtime
async def test_a_working_majority_is_not_stopped_by_one_that_was_forced_apart(tmp_path: Path) -> None:
    cluster = TlsCluster(tmp_path)
    try:
        await cluster.grow(3)
        one = cluster.members["n1"]
        await one.stop()
        await cluster.propose(b"by the majority")
        await one.start(force_new_cluster=True)
        await wait(lambda: one.live.is_leader)
        await asyncio.sleep(1)  # n2 and n3 dial n1 all the time
        others = [cluster.members["n2"], cluster.members["n3"]]
        assert [member.live.left_behind for member in others] == [None, None]
        assert any(member.live.is_leader for member in others)
    finally:
        await cluster.stop()


async def test_a_new_member_of_the_forced_cluster_is_no_member_of_an_old_one(tmp_path: Path) -> None:
    cluster = TlsCluster(tmp_path)
    try:
        await cluster.grow(1)
        await cluster.stop()
        await cluster.members["n1"].start(force_new_cluster=True)
        await cluster.leader()
        joined = await cluster.join("n4")
        await cluster.propose(b"together")
        await cluster.converge()
        assert joined.live.left_behind is None
        assert joined.live.status().generation == 1
    finally:
        await cluster.stop()


def test_an_empty_node_has_nothing_to_force() -> None:
    world = World("A")
    with pytest.raises(Conflict, match="no state"):
        SimNode(world, "A").start(force_new_cluster=True)
