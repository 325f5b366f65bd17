"""A manager's TLS key on disk follows its lock; the unlock key is nowhere on disk."""

import random
from pathlib import Path

import pytest

from cluster.errors import Unavailable
from cluster.identity import Identity
from cluster.seams import SystemClock
from cluster.spec import ClusterSpec
from manager.ca.authority import first_identity, found_cluster
from manager.keys.locks import UNLOCKED, Lock, format_unlock_key
from manager.keys.sealing import WrongKey, new_key
from manager.raft.disk import SystemDisk
from manager.raft.keyring import KEYRING, open_keyring
from shoal.daemon.membership import InvalidUnlockKey, MembershipStore

RANDOM = random.Random(2)
FIRST, SECOND = Lock(new_key(RANDOM), 1), Lock(new_key(RANDOM), 2)


@pytest.fixture
def identity() -> Identity:
    cluster = found_cluster(ClusterSpec(), clock=SystemClock(), rng=RANDOM)
    return first_identity(cluster, "n1", SystemClock())


@pytest.fixture
def store(tmp_path: Path, identity: Identity) -> MembershipStore:
    made = MembershipStore(tmp_path / "swarm")
    made.save_identity(identity)
    return made


def restarted(store: MembershipStore) -> MembershipStore:
    """As a new daemon finds it."""
    found = MembershipStore(store.root)
    found.look_at_lock()
    return found


def with_keyring(store: MembershipStore, lock: Lock) -> None:
    store.raft.mkdir(exist_ok=True)
    open_keyring(SystemDisk(), store.raft, "c1", "n1", RANDOM, (lock,))


def encrypted(store: MembershipStore) -> int:
    return (store.certificates / "node.key").read_text().count("ENCRYPTED PRIVATE KEY-----\n") // 2


def test_a_rotation_step_by_step(store: MembershipStore, identity: Identity) -> None:
    assert not store.keep_locks((UNLOCKED,))
    for locks, copies in (
        ((UNLOCKED, FIRST), 0),
        ((FIRST,), 1),
        ((FIRST, SECOND), 2),
        ((SECOND,), 1),
        ((SECOND, Lock(None, 3)), 0),
        ((Lock(None, 3),), 0),
    ):
        store.keep_locks(locks)
        assert encrypted(store) == copies
        assert store.locks == locks
        assert store.identity().certificate == identity.certificate
    assert store.identity().key == identity.key


def test_a_locked_node_needs_the_key(store: MembershipStore, identity: Identity) -> None:
    with_keyring(store, FIRST)
    store.keep_locks((FIRST,))
    found = restarted(store)
    assert found.locked
    with pytest.raises(WrongKey):
        found.identity()
    with pytest.raises(PermissionError, match="locked"):
        found.client_context()
    with pytest.raises(Unavailable, match="docker swarm unlock"):
        found.save_identity(identity)
    with pytest.raises(Unavailable, match="docker swarm unlock"):
        found.keep_locks((UNLOCKED,))
    assert found.peer() == identity.peer
    assert SECOND.key is not None
    assert FIRST.key is not None
    with pytest.raises(InvalidUnlockKey):
        found.unlock(SECOND.key)
    assert found.locked
    found.unlock(FIRST.key)
    assert found.locks == (FIRST,)
    assert found.identity() == identity
    found.client_context()


def test_a_tls_key_that_a_crash_left_in_clear_is_locked_at_the_next_unlocking(store: MembershipStore) -> None:
    with_keyring(store, FIRST)
    found = restarted(store)
    assert found.locked
    assert FIRST.key is not None
    found.unlock(FIRST.key)
    assert encrypted(found) == 1


def test_a_manager_that_is_not_locked_starts_by_itself(store: MembershipStore) -> None:
    assert not restarted(store).locked, "an older version has no keyring"
    with_keyring(store, UNLOCKED)
    assert not restarted(store).locked


def test_a_damaged_keyring_is_left_to_the_manager_s_complaint(store: MembershipStore) -> None:
    with_keyring(store, FIRST)
    (store.raft / KEYRING).write_bytes(b"SHOALKEYS1\n{}\n")
    assert not restarted(store).locked
    assert store.identity()


def test_the_unlock_key_is_in_no_file(store: MembershipStore) -> None:
    with_keyring(store, FIRST)
    store.keep_locks((FIRST,))
    assert FIRST.key is not None
    words = [format_unlock_key(FIRST.key).encode(), FIRST.key]
    files = [path for path in store.root.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files for word in words if word in path.read_bytes()]


def test_a_node_that_left_is_not_locked(store: MembershipStore) -> None:
    with_keyring(store, FIRST)
    found = restarted(store)
    found.forget()
    assert not found.locked
    assert not store.root.exists()


def test_a_keyring_alone_is_no_state(store: MembershipStore) -> None:
    with_keyring(store, UNLOCKED)
    assert not store.has_raft()
    (store.raft / "log.1").touch()
    assert store.has_raft()
