"""Defects of stock pysyncobj (see docs/raft.md), each as a scene that goes wrong without our mitigation."""

import subprocess
import sys

import pytest

from manager.raft.errors import NotLeader, OutcomeUnknown, RaftCorrupt
from manager.raft.replication import CHUNKS_AT_ONCE, CHUNKS_PAUSE
from manager.raft.timing import RaftLimits
from manager.raft.wire import AppendEntries, HigherTerm, Progress, encode
from tests.fakes.raft_world import World


def isolated_leader_with_tail(world: World, tail: int) -> list[list[object]]:
    """A leads and is cut off with entries that nobody else has; B leads the rest."""
    world.elect("A")
    first = world["A"].propose(b"kept")
    world.rounds()
    assert isinstance(first[0], int)
    world.isolate("A")
    lost = [world["A"].propose(b"lost%d" % n) for n in range(tail)]
    world.step("A")
    world.elect("B", only="BC")
    return lost


def test_d1_snapshot_commits_nothing_of_an_unverified_tail() -> None:
    world = World()
    lost = isolated_leader_with_tail(world, 3)
    for n in range(8):
        world["B"].propose(b"new%d" % n)
        world.rounds(2, only="BC")
    world.compact("B")
    world["B"].propose(b"after")
    world.rounds(2, only="BC")
    world.heal("A")
    world.rounds(12)
    assert all(isinstance(answer[0], OutcomeUnknown) for answer in lost)
    assert world["A"].machine.entries == world["B"].machine.entries
    assert not any(entry.startswith(b"lost") for entry in world["A"].machine.entries)
    assert not world.violations


def test_d2_snapshot_older_than_the_log_keeps_the_acknowledged_tail() -> None:
    world = World()
    world.elect("A")
    for n in range(5):
        world["A"].propose(b"%d" % n)
    world.rounds()
    world.hold_writers = True
    world.compact("B")
    answers = [world["A"].propose(b"tail%d" % n) for n in range(5)]
    world.rounds()
    assert all(isinstance(answer[0], int) for answer in answers)
    for write in world.writers:  # The snapshot reaches the disk only now, with more acknowledged behind it.
        write()
    world.step("B")
    assert world["B"].node.status is not None
    for node_id in "ABC":
        world.crash(node_id)
    world.hold_writers = False
    for node_id in "ABC":
        world[node_id].start()
    for node_id in "ABC":
        world.heal(node_id)
    world.elect("B")
    world.rounds()
    assert [e for e in world["B"].machine.entries if e.startswith(b"tail")] == [
        b"tail%d" % n for n in range(5)
    ]


def test_d4_damaged_snapshot_is_not_answered_with_success() -> None:
    world = World()
    isolated_leader_with_tail(world, 20)
    for n in range(4):
        world["B"].propose(b"n%d" % n)
        world.rounds(2, only="BC")
    world.compact("B")
    world.heal("A")
    world.disconnect("B", "C")
    path = next(path for path in world["B"].disk.files if path.name == "snapshot")
    world["B"].disk.files[path][30] ^= 0xFF
    world.clock.time += 60_000_000
    world.step("B")
    world.deliver("B", "A")
    world.step("A")
    world.deliver("A", "B")
    peer = next(peer for peer in world["B"].node.voters() if peer.id == "A")
    assert world["B"].node.match_index()[peer] == 0
    answer = world["B"].propose(b"alone")
    world.rounds(2, only="AB")
    world.heal("C")
    world.rounds(20)  # B notices its own damage and takes another snapshot.
    assert isinstance(answer[0], int)
    assert world["A"].machine.entries == world["B"].machine.entries
    assert not world.violations


def test_d4_snapshot_damaged_on_its_way_is_not_installed() -> None:
    world = World()
    isolated_leader_with_tail(world, 3)
    for n in range(8):
        world["B"].propose(b"n%d" % n)
        world.rounds(2, only="BC")
    world.compact("B")
    before = world["A"].node.raftLastApplied
    chunk = world["B"].node._snapshots.next_chunk("A", world["B"].node.raftCurrentTerm)
    assert chunk.last
    chunk.data = chunk.data.replace(b"n1", b"n9")
    world.connect("A", "B")
    world["A"].transport.deliver("B", encode(chunk))
    world.step("A")
    assert world["A"].node.raftLastApplied == before
    assert world["A"].node._snapshots.index == 0


@pytest.mark.parametrize("damage", ["flip", "missing snapshot", "missing log"])
def test_d5_damaged_state_refuses_to_start(damage: str) -> None:
    world = World(segment_bytes=100)
    world.elect("A")
    for n in range(10):
        world["A"].propose(b"%d" % n)
        world.rounds(2)
    world.compact("B")
    files = world["B"].disk.files
    snapshot = next(path for path in files if path.name == "snapshot")
    world.crash("B")
    files = world["B"].disk.files
    if damage == "flip":
        files[snapshot][len(files[snapshot]) // 2] ^= 1
    elif damage == "missing snapshot":
        del files[snapshot]
    else:
        for path in [path for path in files if path.name.startswith("log.")]:
            del files[path]
    with pytest.raises(RaftCorrupt, match="join again"):
        world["B"].start()


def test_d6_acknowledgement_of_an_older_term_counts_for_nothing() -> None:
    world = World()
    world.elect("A")
    world.rounds()
    old = world["A"].node.raftCurrentTerm
    world.elect("B")
    world.elect("A")
    for other in "BC":
        world.disconnect("A", other)
    answer = world["A"].propose(b"only here")
    world.step("A")
    last = world["A"].journal.last_index()
    world["A"].transport.deliver("B", encode(Progress(old, last + 1, success=True)))
    world.step("A")
    assert answer == []
    assert world["A"].node.raftCommitIndex < last


def test_d7_one_membership_change_at_a_time() -> None:
    world = World()
    world.elect("A")
    world.rounds()
    node = world["A"].node
    answers: list[object] = []
    for other in "BC":
        node.remove_member(other, lambda result, error: answers.append(error))
    world.step("A")
    assert answers == [error for error in answers if error is not None], "only one is under way"
    assert "another change" in str(answers[0])
    assert {peer.id for peer in node.voters()} == {"C"}
    world.rounds()
    assert answers[1] is None
    assert world["C"].node.members() == {"A": "A", "C": "C"}


def test_d7_no_change_before_the_leader_has_committed() -> None:
    world = World()
    world.elect("A")
    world.rounds()
    world.isolate("A")
    node = world["A"].node
    node._SyncObj__noopIDx = node.raftLastApplied + 1
    answers: list[object] = []
    node.remove_member("B", lambda result, error: answers.append(error))
    world.step("A")
    assert "try again" in str(answers[0])


def test_d8_a_full_connection_gets_heartbeats_only() -> None:
    world = World(limits=RaftLimits(keep_entries=0))
    world.elect("A")
    world.rounds()
    world.disconnect("A", "C")
    big = b"x" * (1 << 20)
    for _ in range(12):
        world["A"].propose(big)
        world.rounds(1, only="AB")
    world.compact("A")
    world.connect("A", "C")
    sent = []
    for _ in range(6):  # Nobody reads at C.
        world.clock.time += 60_000_000
        world.step("A")
        sent.append(sum(b"confirmleader" not in frame for frame in world.links["A", "C"]))
    assert sent[0] == CHUNKS_AT_ONCE, "commits have their turn between the pieces"
    assert world["A"].node.next_heartbeat() > world["A"].node.now() + CHUNKS_PAUSE
    assert sent[5] - sent[4] == 1, "one heartbeat, not a busy loop"
    world.rounds(30)
    assert world["C"].machine.entries == world["A"].machine.entries


def test_d10_a_waiter_that_raises_stops_the_node_and_applies_nothing_twice() -> None:
    world = World()
    world.elect("A")
    node = world["A"].node

    def explode(result: object, error: Exception | None) -> None:
        raise RuntimeError("boom")

    node.propose(b"once", explode)
    world.rounds()
    assert world["A"].fatal
    assert "boom" in world["A"].fatal[0]
    assert world["A"].machine.entries.count(b"once") == 1
    assert world["B"].machine.entries.count(b"once") <= 1


def test_d11_followers_refuse_instead_of_forwarding() -> None:
    world = World()
    world.elect("A")
    world.rounds()
    answer = world["B"].propose(b"x")
    world.step("B")
    assert isinstance(answer[0], NotLeader)
    assert answer[0].leader_id == "A"


def test_d11_every_waiter_hears_when_leadership_is_lost() -> None:
    world = World()
    lost = isolated_leader_with_tail(world, 3)
    world.rounds(20, only="A")
    assert [type(answer[0]) for answer in lost] == [OutcomeUnknown] * 3
    assert not world["A"].leads


def test_d12_repeated_append_does_not_cut_the_log() -> None:
    world = World()
    world.elect("A")
    world.rounds()
    world["A"].propose(b"one")
    world.step("A")
    stale = list(world.links["A", "B"])
    world.rounds()
    world["A"].propose(b"two")
    world.rounds()
    before = world["B"].log()
    for frame in stale:
        world["B"].transport.deliver("A", frame)
    world.step("B")
    assert world["B"].log() == before


def test_append_that_contradicts_a_committed_entry_is_fail_stop() -> None:
    world = World()
    world.elect("A")
    world["A"].propose(b"one")
    world.rounds()
    term = world["B"].node.raftCurrentTerm
    committed = world["B"].node.raftCommitIndex
    forged = AppendEntries(term + 1, committed, 1, 0, [(b"\0other", 2, term + 1)])
    world["B"].transport.deliver("A", encode(forged))
    assert "contradicts the committed entry" in world["B"].fatal[0]


def test_d13_commit_index_never_exceeds_the_log() -> None:
    world = World()
    world.elect("A")
    world.rounds()
    journal = world["A"].journal
    journal._commit_index = 10_000
    journal.setCurrentTerm(journal.getCurrentTerm(), journal.getVotedForNodeId())
    world.crash("A")
    node = world["A"].start()
    assert node.raftCommitIndex <= world["A"].journal.last_index()


def test_d14_full_disk_is_fail_stop_and_acknowledges_nothing() -> None:
    world = World()
    world.elect("A")
    world.rounds()
    world["A"].disk.fail = lambda operation, path: operation in ("write", "sync")
    answer = world["A"].propose(b"x")
    world.rounds()
    assert "can't be written" in world["A"].fatal[0]
    assert isinstance(answer[0], OutcomeUnknown)


def test_snapshot_on_a_full_disk_is_tried_again_and_nothing_is_lost() -> None:
    world = World()
    world.elect("A")
    for n in range(5):
        world["A"].propose(b"%d" % n)
    world.rounds()
    world["A"].disk.fail = lambda operation, path: operation == "write" and path.name.startswith("snapshot")
    world.compact("A")
    assert world["A"].node._snapshots.index == 0
    world["A"].disk.fail = lambda operation, path: False
    world.clock.time += 11_000_000_000
    world["A"].node.last_response().update(
        {peer: world.clock.time / 1e9 for peer in world["A"].node.voters()}
    )
    world.compact("A")
    assert world["A"].node._snapshots.index > 0
    assert not world["A"].fatal


def test_follower_acknowledges_only_what_is_synced() -> None:
    world = World()
    world.elect("A")
    world.rounds()
    answer = world["A"].propose(b"x")
    world.step("A")
    world.deliver("A", "B")
    world.deliver("A", "C")  # Received, and not stepped: nothing is synced at B and C yet.
    world.deliver("B", "A")
    world.deliver("C", "A")
    world.step("A")
    assert answer == []
    world.rounds(2)
    assert isinstance(answer[0], int)


def test_vote_survives_power_loss() -> None:
    world = World()
    world.elect("A")
    term = world["B"].node.raftCurrentTerm
    world.crash("B")
    world.restart("B")
    assert world["B"].journal.getVotedForNodeId() == "A"
    assert world["B"].node.raftCurrentTerm == term


def test_pre_vote_keeps_a_returning_node_from_unseating_the_leader() -> None:
    world = World()
    world.elect("A")
    world.rounds()
    world.isolate("C")
    for _ in range(50):
        world.rounds(2, only="AB")
        world["C"].node.elect_at_once()
        world.step("C")
    term = world["A"].node.raftCurrentTerm
    assert world["C"].node.raftCurrentTerm == term
    world.heal("C")
    world["C"].node.elect_at_once()
    world.rounds(5)
    assert world["A"].leads
    assert world["A"].node.raftCurrentTerm == term


def test_leader_without_a_majority_steps_down() -> None:
    world = World()
    world.elect("A")
    world.isolate("A")
    world.rounds(15, only="A")
    assert not world["A"].leads
    answers: list[int | None] = []
    world["A"].node.read_barrier(answers.append)
    assert answers == [None]


def test_read_barrier_needs_the_majority_now() -> None:
    world = World()
    world.elect("A")
    world.rounds()
    world.isolate("A")
    answers: list[int | None] = []
    world["A"].node.read_barrier(answers.append)
    world.step("A")
    assert answers == []  # It still believes that it leads, and must not serve a read on that belief.
    world.rounds(15, only="A")
    assert answers == [None]


def test_answer_of_a_higher_term_makes_a_stale_leader_step_down() -> None:
    world = World()
    world.elect("A")
    term = world["A"].node.raftCurrentTerm
    world["A"].transport.deliver("B", encode(HigherTerm(term + 5)))
    assert not world["A"].leads
    assert world["A"].journal.getCurrentTerm() == term + 5


def test_snapshot_install_acknowledges_only_the_snapshot() -> None:
    """A tail that happens to follow the snapshot's entry is not known to be the leader's."""
    world = World()
    world.elect("A")
    for n in range(4):
        world["A"].propose(b"%d" % n)
    world.rounds()
    world.isolate("A")
    for n in range(5):
        world["A"].propose(b"tail%d" % n)
    world.step("A")
    world.elect("B", only="BC")
    world.compact("B")
    node, term = world["A"].node, world["B"].node.raftCurrentTerm
    index = world["B"].node._snapshots.index
    node._SyncObj__raftLastApplied = index - 1  # As if it had not applied yet what it holds.
    chunk = world["B"].node._snapshots.next_chunk("A", term)
    world.connected.add(frozenset("AB"))
    world["A"].transport.up("B")
    world["A"].transport.deliver("B", encode(chunk))
    acknowledged = node._acks[next(iter(node._acks))]
    assert acknowledged.next_index == index + 1
    assert world["A"].journal.last_index() >= index


def test_late_local_snapshot_does_not_replace_a_newer_installed_one() -> None:
    world = World()
    world.elect("A")
    for n in range(4):
        world["A"].propose(b"%d" % n)
    world.rounds()
    world.hold_writers = True
    world.compact("C")
    world.hold_writers = False
    world.isolate("C")
    for n in range(4):
        world["A"].propose(b"more%d" % n)
        world.rounds(2, only="AB")
    world.compact("A")
    world.heal("C")
    world.rounds(6)
    newest = world["C"].node._snapshots.index
    for write in world.writers:
        write()
    world.rounds(2)
    assert world["C"].node._snapshots.index == newest
    world.crash("C")
    world.restart("C")
    world.rounds(6)
    assert world["C"].machine.entries == world["A"].machine.entries


def test_importing_the_engine_leaves_the_socket_module_alone() -> None:
    """Stock pysyncobj replaces socket.inet_ntop with a function for Windows."""
    code = "import socket, manager.raft; print(socket.inet_ntop(socket.AF_INET, bytes([192, 0, 2, 1])))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "192.0.2.1"
