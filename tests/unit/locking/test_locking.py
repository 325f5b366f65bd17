"""A manager follows the cluster's lock, and its daemon always knows every key that may be in force."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Sequence

import pytest
from msgspec.structs import replace

from cluster.errors import Unavailable
from cluster.objects import Cluster
from cluster.spec import ClusterSpec
from manager.keys.locks import UNLOCKED, Lock, format_unlock_key
from manager.keys.sealing import new_key
from manager.locking import RETRY, DaemonPipe, LockFollower
from manager.store import Store
from shoal.daemon.lock_pipe import serve_locks
from tests.fakes.clock import ManualClock, settle
from tests.fakes.proposer import LocalProposer

RANDOM = random.Random(11)
KEYS = [new_key(RANDOM) for _ in range(3)]


class Rig:
    """Raft and the daemon as the follower sees them; notes in which order they hear what."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = Store(self.clock, RANDOM)
        LocalProposer(self.store)
        self.lock = UNLOCKED
        self.locks: tuple[Lock, ...] = (UNLOCKED,)
        self.story: list[tuple[str, bytes | None]] = []
        self.refuse = ""

    def _tell(self, what: str, lock: Lock) -> None:
        if self.refuse == what:
            raise Unavailable(f"no {what} today")
        self.story.append((what, lock.key))

    async def prepare(self, lock: Lock) -> None:
        self._tell("prepare", lock)

    async def settle(self, lock: Lock) -> None:
        self._tell("settle", lock)

    async def change_lock(self, lock: Lock) -> None:
        self._tell("change", lock)
        self.lock = lock

    async def want(self, key: bytes | None) -> None:
        """Write the cluster object."""
        text = format_unlock_key(key) if key else ""

        def write(tx) -> None:
            cluster = tx.cluster()
            if cluster is None:
                tx.create(Cluster(id="c", spec=ClusterSpec(), unlock_key=text))
            else:
                tx.update(replace(cluster, unlock_key=text))

        await self.store.update(write)
        await settle()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    task = asyncio.create_task(LockFollower(made.store, made, made, made.clock).run())
    await settle()
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def steps(key: bytes | None) -> list[tuple[str, bytes | None]]:
    return [("prepare", key), ("change", key), ("settle", key)]


async def test_the_daemon_hears_of_a_key_before_and_after_it_is_used(rig: Rig) -> None:
    assert rig.story == [("settle", None)], "an earlier rotation may have broken off before that"
    rig.story.clear()
    await rig.want(KEYS[0])
    await rig.want(KEYS[1])
    await rig.want(None)
    assert rig.story == steps(KEYS[0]) + steps(KEYS[1]) + steps(None)


async def test_other_changes_of_the_cluster_change_no_lock(rig: Rig) -> None:
    await rig.want(KEYS[0])
    rig.story.clear()
    await rig.want(KEYS[0])
    assert rig.story == []


async def test_an_older_state_of_the_cluster_is_not_followed(rig: Rig) -> None:
    """As when a manager starts again and reads its log: the lock on disk is newer."""
    rig.lock = Lock(KEYS[2], 1000)
    await rig.want(KEYS[0])
    assert rig.lock.key == KEYS[2]
    rig.lock = Lock(KEYS[2], 0)
    await rig.want(KEYS[1])
    assert rig.lock.key == KEYS[1]


async def test_a_change_that_may_have_reached_the_disk_voids_no_key(rig: Rig) -> None:
    """As when the keyring was renamed and its directory could not be synced."""
    rig.story.clear()
    rig.refuse = "change"
    await rig.want(KEYS[0])
    await rig.clock.advance(5 * RETRY)
    assert set(rig.story) == {("prepare", KEYS[0])}
    rig.story.clear()
    rig.refuse = ""
    await rig.want(None)  # what it was: but on the disk there may be the other
    await rig.clock.advance(5 * RETRY)
    assert rig.story[-3:] == steps(None)


@pytest.mark.parametrize("refuse", ["prepare", "change", "settle"])
async def test_what_fails_is_tried_again(rig: Rig, refuse: str) -> None:
    rig.refuse = refuse
    await rig.want(KEYS[0])
    assert rig.lock.key == (KEYS[0] if refuse == "settle" else None)
    if refuse == "prepare":
        assert ("change", KEYS[0]) not in rig.story, "no key may be used that the daemon does not know"
    rig.refuse = ""
    await rig.clock.advance(2 * RETRY)
    assert rig.lock.key == KEYS[0]
    assert rig.story[-1] == ("settle", KEYS[0])


# --- the pipe -------------------------------------------------------------------------------------------


class Daemon:
    """What the daemon keeps."""

    def __init__(self, *locks: Lock) -> None:
        self.locks: tuple[Lock, ...] = locks
        self.full = False

    def keep_locks(self, locks: Sequence[Lock]) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.locks = tuple(locks)


async def piped(daemon: Daemon) -> tuple[DaemonPipe, "asyncio.Task[None]"]:
    ours, theirs = socket.socketpair()
    serving = asyncio.create_task(serve_locks(ours, daemon))
    return await DaemonPipe.open(theirs.detach()), serving


async def test_locks_travel_over_the_pipe() -> None:
    first, second = Lock(KEYS[0], 3), Lock(KEYS[1], 9)
    daemon = Daemon(first)
    pipe, serving = await piped(daemon)
    assert pipe.locks == (first,)
    await pipe.prepare(second)
    assert daemon.locks == pipe.locks == (first, second)
    await pipe.settle(second)
    await pipe.prepare(Lock(None, 12))
    assert daemon.locks == pipe.locks == (second, Lock(None, 12))
    pipe.close()
    await serving


async def test_a_daemon_that_can_t_write_says_so() -> None:
    daemon = Daemon(UNLOCKED)
    pipe, serving = await piped(daemon)
    daemon.full = True
    with pytest.raises(Unavailable, match="No space left"):
        await pipe.prepare(Lock(KEYS[0], 1))
    assert pipe.locks == (UNLOCKED,)
    daemon.full = False
    await pipe.prepare(Lock(KEYS[0], 1))
    assert daemon.locks == (UNLOCKED, Lock(KEYS[0], 1))
    pipe.close()
    await serving


async def test_a_pipe_that_closes_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with pytest.raises(Unavailable, match="pipe"):
        await DaemonPipe.open(theirs.detach())
