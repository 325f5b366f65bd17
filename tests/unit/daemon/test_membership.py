"""What a node remembers of its cluster, and what interruptions leave of it."""

from pathlib import Path

import pytest

from cluster.errors import Unavailable
from cluster.states import Role
from shoal.daemon.membership import Membership, MembershipStore

MEMBERSHIP = Membership(
    node_id="n1",
    cluster_id="c1",
    role=Role.MANAGER,
    listen_address="0.0.0.0:2377",
    advertise_address="192.0.2.1:2377",
    data_path_address="192.0.2.1",
)


def test_kept_and_forgotten(tmp_path: Path) -> None:
    store = MembershipStore(tmp_path / "swarm")
    assert store.load() is None
    store.save(MEMBERSHIP)
    assert MembershipStore(tmp_path / "swarm").load() == MEMBERSHIP
    store.forget()
    store.forget()
    assert store.load() is None
    assert list(tmp_path.iterdir()) == []


def test_a_leave_cut_short_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MembershipStore(tmp_path / "swarm")
    store.save(MEMBERSHIP)
    monkeypatch.setattr("shutil.rmtree", lambda path: None)  # the power fails here
    store.forget()
    monkeypatch.undo()
    assert MembershipStore(tmp_path / "swarm").load() is None
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_record_says_what_to_do(tmp_path: Path) -> None:
    store = MembershipStore(tmp_path / "swarm")
    store.save(MEMBERSHIP)
    (tmp_path / "swarm/state.json").write_text("{")
    with pytest.raises(Unavailable, match="restore the file, or remove"):
        store.load()


def test_the_state_of_the_cluster_is_noticed(tmp_path: Path) -> None:
    store = MembershipStore(tmp_path / "swarm")
    assert not store.has_raft()
    store.raft.mkdir(parents=True)
    assert not store.has_raft()
    (store.raft / "log.1").touch()
    assert store.has_raft()
