"""A disk without room: nothing is acknowledged that is not kept, nobody dies of it, it passes by itself."""

import errno
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.seams import SECOND
from manager.raft.disk import SystemDisk
from manager.raft.errors import NoRoom, OutcomeUnknown
from manager.raft.room import Room
from manager.raft.timing import RaftLimits
from tests.fakes.raft_world import SimDisk, SimNode, World

RESERVE = 6000
ENTRY = b"x" * 400


def world(ids: str = "ABC", seed: int = 1, **limits: int) -> World:
    return World(ids, seed, limits=RaftLimits(keep_entries=0, reserve=RESERVE, **limits))


def used(node: SimNode) -> int:
    return sum(map(len, node.disk.files.values()))


def fill(node: SimNode, left: int = 100) -> None:
    """Somebody else takes the disk."""
    node.disk.capacity = used(node) + left


def settle(world: World, rounds: int = 20) -> None:
    """50 ms each; elections are left to the nodes."""
    for node in world.nodes.values():
        if node.node is not None and not node.leads:
            node.node.postpone_election()
    for _ in range(rounds):
        world.clock.time += SECOND // 20
        for node_id in world.nodes:
            world.step(node_id)
        for source, target in list(world.links):
            world.deliver(source, target)


def check(world: World) -> None:
    assert world.violations == []
    assert {node_id: node.fatal for node_id, node in world.nodes.items() if node.fatal} == {}


def leader(world: World) -> SimNode:
    return next(node for node in world.nodes.values() if node.leads)


def test_a_full_leader_hands_over_and_what_it_had_accepted_is_kept() -> None:
    w = world()
    a = w.elect("A")
    fill(a)
    outcome = a.propose(ENTRY)
    w.rounds(4)
    assert isinstance(outcome[0], int)
    assert a.room.full
    w.rounds(10)
    assert not a.leads
    assert leader(w) is not a
    refused = leader(w).propose(b"later")
    w.rounds(6)
    assert isinstance(refused[0], int)
    check(w)


def test_a_full_follower_takes_no_entries_but_votes_and_catches_up_when_there_is_room() -> None:
    w = world()
    a, b = w.elect("A"), w["B"]
    fill(b)
    for _ in range(40):
        a.propose(ENTRY)
        w.rounds(1)
    w.rounds(4)
    assert b.room.full
    behind = b.journal.last_index()
    assert behind < a.journal.last_index()
    assert used(b) < b.disk.capacity
    w.elect("C", only="BC")  # it needs B's vote
    c = w["C"]
    answer = c.propose(b"one more")
    w.rounds(8)
    assert isinstance(answer[0], int)
    assert b.journal.last_index() == behind
    b.disk.capacity = None
    settle(w, 60)
    assert not b.room.full
    assert b.journal.last_index() == c.journal.last_index()
    assert b.machine.entries == c.machine.entries
    check(w)


def test_what_a_full_follower_lacks_is_not_sent_again_and_again() -> None:
    w = world()
    a, b = w.elect("A"), w["B"]
    fill(b)
    for _ in range(40):
        a.propose(ENTRY)
        w.rounds(1)
    w.rounds(4)
    sent = 0
    for _ in range(20):
        w.clock.time += SECOND // 20
        for node_id in "ABC":
            w.step(node_id)
        sent += sum(len(frame) for frame in w.links["A", "B"])
        for source, target in list(w.links):
            w.deliver(source, target)
        w.calm()
    assert sent < 20 * 200  # heartbeats
    check(w)


def test_without_a_majority_that_has_room_writes_are_refused_and_reads_are_not() -> None:
    w = world()
    a = w.elect("A")
    fill(w["B"])
    fill(w["C"])
    answers = []
    for _ in range(40):
        answers.append(a.propose(ENTRY))
        w.rounds(1)
    w.rounds(3)
    late = a.propose(b"late")
    w.rounds(3)
    assert isinstance(late[0], NoRoom)
    assert "B, C" in str(late[0])
    assert late[0].status == 507
    kinds = {type(answer[0]) for answer in answers}
    assert kinds <= {int, OutcomeUnknown, NoRoom}
    barrier: list[int | None] = []
    assert a.node is not None
    a.node.read_barrier(barrier.append)
    w.rounds(3)
    assert isinstance(barrier[0], int)
    w["B"].disk.capacity = None
    settle(w, 60)
    after = a.propose(b"after")
    w.rounds(4)
    assert isinstance(after[0], int)
    check(w)


def test_a_single_full_manager_refuses_writes_serves_reads_and_recovers() -> None:
    w = world("A")
    a = w.elect("A")
    fill(a)
    first = a.propose(ENTRY)
    w.rounds(3)
    assert isinstance(first[0], int)
    second = a.propose(ENTRY)
    w.rounds(3)
    assert isinstance(second[0], NoRoom)
    assert "/r" in str(second[0])
    assert a.leads
    a.disk.capacity = used(a) + 50  # some room, but not enough for the whole reserve
    w.crash("A")
    w.restart("A")
    a = w.elect("A")
    assert a.room.full
    a.disk.capacity = None
    settle(w, 60)
    third = a.propose(b"third")
    w.rounds(3)
    assert isinstance(third[0], int)
    assert a.machine.entries[-2:] == [ENTRY, b"third"]
    check(w)


def test_a_full_node_does_not_stand_while_another_can_lead() -> None:
    w = world()
    w.elect("A")
    fill(w["B"])
    w["B"].room._now_full()
    w.crash("A")
    settle(w, 60)
    assert leader(w) is w["C"]
    check(w)


def test_when_all_are_full_one_still_leads_so_that_reads_are_served() -> None:
    w = world()
    w.elect("A")
    for node in w.nodes.values():
        fill(node, 50)
        node.room._now_full()
    w.crash("A")
    settle(w, 150)
    assert leader(w).node_id in "BC"
    check(w)


def test_a_snapshot_that_does_not_fit_is_asked_for_later() -> None:
    w = world(compact_entries=10**6)
    a = w.elect("A")
    w.isolate("B")
    for number in range(60):
        a.propose(b"%d" % number + ENTRY)
        w.rounds(1, only="AC")
    w.rounds(3, only="AC")
    w.compact("A")
    fill(w["B"], RESERVE // 3)
    w.heal("B")
    w.rounds(10)
    assert w["B"].machine.entries == []
    assert Path("/r/snapshot.in") not in w["B"].disk.files
    w["B"].disk.capacity = None
    settle(w, 260)
    assert w["B"].machine.entries == a.machine.entries
    check(w)


def test_a_snapshot_that_can_not_be_written_leaves_nothing_behind() -> None:
    w = world()
    a = w.elect("A")
    for number in range(30):
        a.propose(b"%d" % number + ENTRY)
        w.rounds(1)
    a.disk.fail = lambda operation, path: operation == "write" and path.name == "snapshot.new"
    w.compact("A")
    assert Path("/r/snapshot.new") not in a.disk.files
    assert a.leads
    check(w)


def test_a_failed_sync_is_still_fail_stop() -> None:
    w = world()
    a = w.elect("A")
    a.disk.fail = lambda operation, path: operation == "sync"
    outcome = a.propose(ENTRY)
    w.rounds(3)
    assert a.fatal
    assert not isinstance(outcome[0], int)


def test_a_full_disk_without_reserve_is_fail_stop() -> None:
    w = World(limits=RaftLimits(keep_entries=0))
    a = w.elect("A")
    fill(a)
    outcome = a.propose(ENTRY)
    w.rounds(3)
    assert "no space left" in a.fatal[0]
    assert not isinstance(outcome[0], int)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=5, max_size=40), st.integers(0, 10**6)
)
@settings(deadline=None, max_examples=60)
def test_disks_that_fill_up_and_empty_at_random(script: list[tuple[int, int]], seed: int) -> None:
    """What was acknowledged stays, in one order everywhere; and in the end, with room, all write again."""
    w = world(seed=seed)
    acknowledged: list[tuple[bytes, list[object]]] = []
    for number, (action, which) in enumerate(script):
        node = w["ABC"[which % 3]]
        if action == 0:
            fill(node, which * 300)
        elif action == 1:
            node.disk.capacity = None
        for each in w.nodes.values():
            if each.leads:
                entry = b"%d" % number + ENTRY
                acknowledged.append((entry, each.propose(entry)))
        settle(w, 15)
    for node in w.nodes.values():
        node.disk.capacity = None
    settle(w, 120)
    check(w)
    entries = leader(w).machine.entries
    for entry, outcome in acknowledged:
        if outcome and isinstance(outcome[0], int):
            assert entries.count(entry) == 1
        elif outcome and isinstance(outcome[0], NoRoom):
            assert entry not in entries
    last = leader(w).propose(b"last")
    settle(w, 10)
    assert isinstance(last[0], int)
    assert len({tuple(node.machine.entries) for node in w.nodes.values()}) == 1


# --- the reserve ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_torn_write_is_cut_off_and_repeated(error: int) -> None:
    disk = SimDisk()
    room = Room(disk, Path("/r"), RESERVE, World("A").clock)
    file = room.for_log().create(Path("/r/log.1"))
    file.write(b"first")
    disk.capacity = RESERVE + 8
    take = disk.take

    def refusing(size: int) -> None:
        try:
            take(size)
        except OSError:
            raise OSError(error, "full") from None

    disk.take = refusing
    file.write(b"second")
    assert bytes(disk.files[Path("/r/log.1")]) == b"firstsecond"
    assert room.full
    assert 0 < len(disk.files[Path("/r/reserve")]) < RESERVE


def test_other_errors_are_not_taken_for_a_full_disk() -> None:
    disk = SimDisk()
    room = Room(disk, Path("/r"), RESERVE, World("A").clock)
    file = room.for_log().create(Path("/r/log.1"))

    def broken(size: int) -> None:
        raise OSError(errno.EIO, "broken")

    disk.take = broken
    with pytest.raises(OSError, match="broken"):
        file.write(b"data")
    assert not room.full


def test_the_reserve_of_a_real_disk_takes_room(tmp_path: Path) -> None:
    room = Room(SystemDisk(), tmp_path, 1 << 20, World("A").clock)
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 1 << 20
    assert not room.full
    file = room.for_log().create(tmp_path / "log.1")
    file.write(b"abc")
    file.close()
    again = room.for_log().open_append(tmp_path / "log.1")
    again.truncate(2)
    again.write(b"z")
    again.close()
    assert (tmp_path / "log.1").read_bytes() == b"abz"
