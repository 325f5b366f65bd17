"""Each hardening taken out again: then the scene that it is there for must fail."""

from collections.abc import Callable

import pytest

from manager.raft import replication
from manager.raft.changes import MemberChanges
from manager.raft.journal import Journal
from manager.raft.node import RaftNode
from manager.raft.peer import Peer
from manager.raft.reads import ReadIndex
from manager.raft.replication import Replication
from manager.raft.snapshot import SnapshotMeta, Snapshots, _Check
from manager.raft.wire import AppendEntries, Progress, SnapshotChunk
from tests.unit.raft import test_defects as defects
from tests.unit.raft import test_partitions as partitions

Mutate = Callable[[pytest.MonkeyPatch], None]


def _snapshot_clears_the_log(patch: pytest.MonkeyPatch) -> None:
    """D2, D3: as stock, whatever the journal holds behind the snapshot goes."""
    adopt = Replication.adopt_snapshot

    def clearing(self: Replication, meta: SnapshotMeta, chunks: object) -> None:
        self.journal().reset([meta.previous, meta.last])
        adopt(self, meta, chunks)  # type: ignore[arg-type]

    patch.setattr(Replication, "adopt_snapshot", clearing)


def _snapshots_commit_the_tail(patch: pytest.MonkeyPatch) -> None:
    """D1: the leader's index counts for a tail that was never compared with its log."""
    receive = Replication._receive_snapshot

    def trusting(self: Replication, peer: Peer, chunk: SnapshotChunk) -> None:
        self.set_commit_index(max(self.raftCommitIndex, min(chunk.index, self.journal().last_index())))
        self._SyncObj__applyLogEntries()  # In stock, the next tick comes before the rest of the snapshot.
        receive(self, peer, chunk)

    patch.setattr(Replication, "_receive_snapshot", trusting)


def _every_term_counts(patch: pytest.MonkeyPatch) -> None:
    """D6."""
    progress = Replication._progress

    def careless(self: Replication, peer: Peer, message: Progress) -> None:
        message.term = self.raftCurrentTerm
        progress(self, peer, message)

    patch.setattr(Replication, "_progress", careless)


def _append_cuts(patch: pytest.MonkeyPatch) -> None:
    """D12: as stock, what follows the message's entries goes."""
    append = Replication._append

    def cutting(self: Replication, peer: Peer, message: AppendEntries) -> None:
        if self.journal().first_index() <= message.previous_index < self.journal().last_index():
            self._cut(message.previous_index + 1)
        append(self, peer, message)

    patch.setattr(Replication, "_append", cutting)


def _acknowledged_before_the_sync(patch: pytest.MonkeyPatch) -> None:
    append = Replication._append

    def hasty(self: Replication, peer: Peer, message: AppendEntries) -> None:
        append(self, peer, message)
        if peer in self._acks:
            self._send(peer, self._acks.pop(peer))

    patch.setattr(Replication, "_append", hasty)


def _votes_stay_in_memory(patch: pytest.MonkeyPatch) -> None:
    def remember(self: Journal, term: int, vote: str | None) -> None:
        self._term, self._vote = term, vote

    patch.setattr(Journal, "setCurrentTerm", remember)


def _no_answer_when_leadership_ends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftNode, "_fail_under_way", lambda self, *reason: None)


def _failed_writes_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    sync = Journal.sync

    def deaf(self: Journal) -> None:
        fail_stop, self._fail_stop = self._fail_stop, lambda reason: None  # type: ignore[assignment, return-value]
        try:
            sync(self)
        finally:
            self._fail_stop = fail_stop

    patch.setattr(Journal, "sync", deaf)


def _no_pre_vote(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replication, "_SyncObj__connectedToAnyone", lambda self: True)


def _pre_votes_for_everyone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replication, "_hears_leader", lambda self: False)


def _reads_without_a_round(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReadIndex, "ask", lambda self, answer: answer(self._index))


def _snapshot_is_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Check, "intact", lambda self: True)


def _missing_files_are_a_new_node(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Snapshots, "exists", lambda self: False)


MUTATIONS: list[tuple[str, Mutate, Callable[[], None]]] = [
    ("D1", _snapshots_commit_the_tail, defects.test_d1_snapshot_commits_nothing_of_an_unverified_tail),
    (
        "D2 D3",
        _snapshot_clears_the_log,
        defects.test_d2_snapshot_older_than_the_log_keeps_the_acknowledged_tail,
    ),
    ("D4", _snapshot_is_believed, defects.test_d4_snapshot_damaged_on_its_way_is_not_installed),
    (
        "D5",
        _missing_files_are_a_new_node,
        lambda: defects.test_d5_damaged_state_refuses_to_start("missing log"),
    ),
    ("D6", _every_term_counts, defects.test_d6_acknowledgement_of_an_older_term_counts_for_nothing),
    (
        "D7",
        lambda patch: patch.setattr(MemberChanges, "_change_objection", lambda self: None),
        defects.test_d7_one_membership_change_at_a_time,
    ),
    ("D11", _no_answer_when_leadership_ends, defects.test_d11_every_waiter_hears_when_leadership_is_lost),
    ("D12", _append_cuts, defects.test_d12_repeated_append_does_not_cut_the_log),
    (
        "D13",
        lambda patch: patch.setattr(Journal, "getRaftCommitIndex", lambda self: self._commit_index),
        defects.test_d13_commit_index_never_exceeds_the_log,
    ),
    ("D14", _failed_writes_are_forgotten, defects.test_d14_full_disk_is_fail_stop_and_acknowledges_nothing),
    ("sync", _acknowledged_before_the_sync, defects.test_follower_acknowledges_only_what_is_synced),
    ("vote", _votes_stay_in_memory, defects.test_vote_survives_power_loss),
    ("pre-vote", _no_pre_vote, defects.test_pre_vote_keeps_a_returning_node_from_unseating_the_leader),
    ("pre-vote", _no_pre_vote, partitions.test_a_flapping_a_sleeping_and_a_restarted_follower_cost_no_term),
    (
        "pre-vote",
        _pre_votes_for_everyone,
        partitions.test_a_follower_cut_from_the_leader_only_asks_in_vain,
    ),
    (
        "D8",
        lambda patch: patch.setattr(replication, "BACKLOG", 1 << 62),
        partitions.test_a_slow_follower_is_sent_no_more_than_it_takes,
    ),
    ("reads", _reads_without_a_round, defects.test_read_barrier_needs_the_majority_now),
]


@pytest.mark.parametrize(("mutate", "scene"), [pytest.param(*rest, id=name) for name, *rest in MUTATIONS])
def test_without_it_the_scene_fails(
    monkeypatch: pytest.MonkeyPatch, mutate: Mutate, scene: Callable[[], None]
) -> None:
    scene()
    mutate(monkeypatch)
    with pytest.raises((AssertionError, IndexError, TypeError, ValueError, pytest.fail.Exception)):
        scene()
