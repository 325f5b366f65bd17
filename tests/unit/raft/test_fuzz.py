"""Seeded trouble: crashes with power loss, partitions, stalls, snapshots. A failing seed replays exactly."""

import logging

import pytest

from manager.raft.changes import MemberChanges
from manager.raft.journal import Journal
from manager.raft.peer import Peer
from manager.raft.replication import Replication
from manager.raft.wire import AppendEntries
from tests.fakes.raft_fuzz import ComebackFuzz, Fuzz, MemberFuzz


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@pytest.mark.parametrize("seed", range(14))
def test_three_nodes_keep_every_promise(seed: int) -> None:
    fuzz = Fuzz(seed)
    assert fuzz.run() == []
    assert fuzz.count["acknowledged"] > 20


@pytest.mark.parametrize("seed", range(8))
def test_five_nodes_keep_every_promise(seed: int) -> None:
    assert Fuzz(seed, "ABCDE").run() == []


@pytest.mark.parametrize("seed", range(8))
def test_members_come_and_go_and_every_promise_is_kept(seed: int) -> None:
    fuzz = MemberFuzz(seed)
    assert fuzz.run() == []
    assert fuzz.count["added"] + fuzz.count["removed"] > 3


@pytest.mark.parametrize("seed", range(8))
def test_members_come_back_with_empty_disks_and_every_promise_is_kept(seed: int) -> None:
    fuzz = ComebackFuzz(seed)
    assert fuzz.run() == []
    assert fuzz.count["added"] > 2


def test_the_fuzz_notices_a_learner_that_reads_of_its_former_membership(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MemberChanges, "_left_at", lambda self, node_id: 0)
    assert any(ComebackFuzz(seed).run() for seed in range(3, 22))


def test_the_fuzz_notices_a_vote_by_one_who_has_forgotten_what_it_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Replication, "_may_vote", lambda self: True)
    assert any(ComebackFuzz(seed).run() for seed in range(20, 40))


def test_a_seed_replays_exactly() -> None:
    first, second = MemberFuzz(5, steps=1500), MemberFuzz(5, steps=1500)
    assert first.run() == second.run()
    assert first.count == second.count
    assert first.world.applied == second.world.applied


def test_the_fuzz_notices_a_missing_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise its silence would prove nothing."""
    monkeypatch.setattr(Journal, "sync", lambda self: None)
    assert any(Fuzz(seed).run() for seed in range(6))


def test_the_fuzz_notices_an_acknowledgement_before_the_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower that answers at once, and syncs a moment later."""
    append = Replication._append

    def hasty(self: Replication, peer: Peer, message: AppendEntries) -> None:
        append(self, peer, message)
        if peer in self._acks:
            self._send(peer, self._acks.pop(peer))

    monkeypatch.setattr(Replication, "_append", hasty)
    assert any(Fuzz(seed).run() for seed in range(4, 14))


def test_the_fuzz_notices_a_forgotten_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Terms survive a loss of power, and whom the node voted for doesn't."""
    record = Journal._ballot_record

    def without_the_vote(self: Journal) -> bytes:
        vote, self._vote = self._vote, None
        try:
            return record(self)
        finally:
            self._vote = vote

    monkeypatch.setattr(Journal, "_ballot_record", without_the_vote)
    assert any(Fuzz(seed).run() for seed in range(5))
