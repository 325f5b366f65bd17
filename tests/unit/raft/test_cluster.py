"""Three managers in one process, over real TLS, disks and sockets."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.errors import Unavailable
from manager.raft import NotLeader, Raft, RaftLimits, TooLarge
from tests.fakes.raft import CLUSTER, Authority, Member, Recorder, TlsCluster

pytestmark = pytest.mark.realtime


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[TlsCluster]:
    made = TlsCluster(tmp_path)
    yield made
    await made.stop()
    assert [member.fatal for member in made.members.values()] == [[] for _ in made.members]


@pytest.fixture
async def compacting(tmp_path: Path) -> AsyncIterator[TlsCluster]:
    made = TlsCluster(tmp_path, RaftLimits(compact_entries=40, keep_entries=5))
    yield made
    await made.stop()
    assert [member.fatal for member in made.members.values()] == [[] for _ in made.members]


async def until(condition, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_single_manager_leads_at_once_and_remembers(cluster: TlsCluster) -> None:
    member = await cluster.join("n1")
    assert [await member.live.propose(b"%d" % n) for n in range(5)] == [1, 2, 3, 4, 5]
    await member.stop()
    raft = await member.start()
    await cluster.leader()
    assert await raft.propose(b"5") == 6
    assert member.recorder.entries == [b"%d" % n for n in range(6)]
    assert dict(raft.members) == {"n1": member.address}


async def test_leader_killed_writes_go_on_and_it_catches_up(cluster: TlsCluster) -> None:
    await cluster.grow(3)
    for n in range(20):
        await cluster.propose(b"%d" % n)
    old = await cluster.leader()
    term = old.live.term
    await old.stop()
    begun = asyncio.get_running_loop().time()
    await cluster.propose(b"after")
    assert asyncio.get_running_loop().time() - begun < 5
    assert (await cluster.leader()).live.term > term
    await old.start()
    entries = await cluster.converge()
    assert entries == [b"%d" % n for n in range(20)] + [b"after"]


async def test_all_restart_and_nothing_is_lost(cluster: TlsCluster) -> None:
    await cluster.grow(3)
    await asyncio.gather(*(cluster.propose(b"%d" % n) for n in range(100)))
    for member in list(cluster.members.values()):
        await member.stop()
    for member in cluster.members.values():
        await member.start()
    assert sorted(await cluster.converge()) == sorted(b"%d" % n for n in range(100))
    assert set((await cluster.leader()).live.members) == {"n1", "n2", "n3"}


async def test_followers_refuse_and_serve_reads_after_the_leaders_barrier(cluster: TlsCluster) -> None:
    await cluster.grow(3)
    leader = await cluster.leader()
    follower = next(member for member in cluster.running() if member is not leader)
    with pytest.raises(NotLeader) as refused:
        await follower.live.propose(b"x")
    assert refused.value.leader_id == leader.node_id
    with pytest.raises(NotLeader):
        await follower.live.read_barrier()
    with pytest.raises(TooLarge):
        await leader.live.propose(bytes((4 << 20) + 1))
    await leader.live.propose(bytes(4 << 20))
    index = await leader.live.read_barrier()
    await follower.live.wait_applied(index, timeout=5_000_000_000)
    assert follower.recorder.entries == leader.recorder.entries
    with pytest.raises(TimeoutError):
        await follower.live.wait_applied(index + 1000, timeout=1_000_000)


async def test_members_come_and_go(cluster: TlsCluster) -> None:
    await cluster.grow(3)
    await cluster.propose(b"before")
    await cluster.join("n4")
    leader = await cluster.leader()
    gone = next(member for member in cluster.running() if member is not leader)
    await leader.live.remove_member(gone.node_id)
    await leader.live.remove_member(gone.node_id)  # Not a member is no error.
    term = leader.live.term
    assert gone.node_id not in leader.live.members
    await asyncio.sleep(1.5)  # The removed node may try to stand; it must not disturb.
    assert leader.live.is_leader
    assert leader.live.term == term
    await gone.stop()
    del cluster.members[gone.node_id]
    shutil.rmtree(gone.directory)
    await cluster.join("n5")
    await cluster.propose(b"after")
    assert await cluster.converge() == [b"before", b"after"]
    assert set((await cluster.leader()).live.members) == {"n1", "n2", "n3", "n4", "n5"} - {gone.node_id}


async def test_a_member_that_slept_through_a_change_of_all_others_comes_back(cluster: TlsCluster) -> None:
    await cluster.grow(3)
    sleeper = cluster.members["n3"]
    await sleeper.stop()
    for joins, leaves in (("n4", "n1"), ("n5", "n2")):
        await cluster.join(joins)
        await cluster.retry(lambda raft, leaves=leaves: raft.remove_member(leaves))
        await cluster.members.pop(leaves).stop()
    await cluster.propose(b"while you slept")
    await sleeper.start()  # It knows n1 and n2, who are gone, and has never heard of n4 and n5.
    await until(lambda: sleeper.recorder.entries == [b"while you slept"], 15)
    await (await cluster.leader()).stop()
    await cluster.propose(b"good morning")  # Two of three: the sleeper's vote and log count again.
    assert await cluster.converge() == [b"while you slept", b"good morning"]


async def test_the_leader_hands_over_before_its_own_removal(cluster: TlsCluster) -> None:
    await cluster.grow(3)
    leader = await cluster.leader()
    with pytest.raises(NotLeader) as refused:
        await leader.live.remove_member(leader.node_id)
    assert refused.value.leader_id != leader.node_id
    await cluster.retry(lambda raft: raft.remove_member(leader.node_id))
    assert leader.node_id not in (await cluster.leader()).live.members


async def test_leadership_goes_where_it_is_sent(cluster: TlsCluster) -> None:
    await cluster.grow(3)
    seen: list[tuple[bool, int]] = []

    async def send(raft: Raft) -> Member:
        other = next(member for member in cluster.running() if member.live is not raft)
        seen.clear()
        unwatch = other.live.watch_leadership(lambda leads, term: seen.append((leads, term)))
        try:
            await raft.transfer_leadership(other.node_id)
        except NotLeader:
            unwatch()
            raise
        return other

    other = await cluster.retry(send)  # a machine that is held up may lose its leader by itself
    assert await cluster.leader() is other
    await until(lambda: len(seen) > 1)
    assert seen[0][0] is False
    assert seen[-1] == (True, other.live.term)


async def test_removal_that_would_cost_the_majority_is_refused(cluster: TlsCluster) -> None:
    await cluster.grow(3)
    leader = await cluster.leader()
    dead, alive = [member for member in cluster.running() if member is not leader]
    await dead.stop()
    await until(
        lambda: any(p.node_id == dead.node_id and not p.connected for p in leader.live.status().peers)
    )
    await asyncio.sleep(0.8)
    with pytest.raises(Unavailable, match="bring the others back"):
        await leader.live.remove_member(alive.node_id)
    await leader.live.remove_member(dead.node_id)


async def test_an_unreachable_node_never_gets_a_vote(
    cluster: TlsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manager.raft.changes.LEARNING_TIMEOUT", 500_000_000)
    member = await cluster.join("n1")
    with pytest.raises(Unavailable, match=r"can 127\.0\.0\.1:1 be reached"):
        await member.live.add_member("ghost", "127.0.0.1:1")
    assert await member.live.propose(b"still works") == 1
    assert set(member.live.members) == {"n1"}


async def test_wiped_follower_installs_a_snapshot_under_a_new_name(compacting: TlsCluster) -> None:
    await compacting.grow(3)
    for n in range(100):
        await compacting.propose(b"%d" % n)
    leader = await compacting.leader()
    await until(lambda: leader.live.status().snapshot_index > 50)
    wiped = next(member for member in compacting.running() if member is not leader)
    await wiped.stop()
    shutil.rmtree(wiped.directory)
    del compacting.members[wiped.node_id]
    await compacting.retry(lambda raft: raft.remove_member(wiped.node_id))
    term = leader.live.term
    fresh = await compacting.join("n9")
    assert len(await compacting.converge()) == 100
    assert fresh.recorder.restored_at
    assert leader.live.term == term
    await fresh.stop()
    await fresh.start()
    assert fresh.recorder.restored_at, "start returns with the snapshot restored"
    assert len(await compacting.converge()) == 100
    assert (await compacting.leader()).live.status().journal_bytes < 100_000


async def test_renewed_certificate_without_restart(cluster: TlsCluster) -> None:
    await cluster.grow(3)
    for member in cluster.members.values():
        member.tls = cluster.authority.issue(member.node_id)
        member.live.update_tls(member.tls)
    leader = await cluster.leader()
    other = next(member for member in cluster.running() if member is not leader)
    await other.stop()
    await other.start()
    await cluster.propose(b"x")
    assert await cluster.converge() == [b"x"]


@pytest.mark.parametrize("case", ["worker", "foreign cluster", "foreign root", "not a member"])
async def test_strangers_are_refused(cluster: TlsCluster, tmp_path: Path, caplog, case: str) -> None:
    caplog.set_level(logging.WARNING)
    member = await cluster.join("n1")
    authority = Authority() if case == "foreign root" else cluster.authority
    role = "swarm-worker" if case == "worker" else "swarm-manager"
    tls = authority.issue("intruder", role, "elsewhere" if case == "foreign cluster" else None)
    raft = Raft(
        node_id="intruder",
        cluster_id="elsewhere" if case == "foreign cluster" else CLUSTER,
        address="127.0.0.1:1",
        directory=tmp_path / "intruder",
        state_machine=Recorder(),
        tls=tls,
        peers={"n1": member.address},
    )
    await raft.start()
    here, there = {
        "worker": (
            "refused manager connection of node intruder",
            "n1 refuses this node: its certificate has",
        ),
        "foreign cluster": ("refused a connection from", "is not it: its certificate belongs to cluster"),
        "foreign root": ("refused a connection from", "can't reach manager n1"),
        "not a member": (
            "refused manager connection of node intruder",
            "n1 refuses this node: node intruder",
        ),
    }[case]
    try:
        await until(lambda: here in caplog.text and there in caplog.text)
        assert await member.live.propose(b"x") == 1
        assert raft.leader_id is None
    finally:
        await raft.stop()


async def test_stop_answers_those_who_wait(cluster: TlsCluster) -> None:
    await cluster.grow(2)
    leader = await cluster.leader()
    follower = next(member for member in cluster.running() if member is not leader)
    await follower.stop()
    waiting = asyncio.create_task(leader.live.propose(b"x"))
    await asyncio.sleep(0.05)
    await leader.stop()
    with pytest.raises(Unavailable):
        await waiting


async def test_stop_answers_readers_and_joiners_too(cluster: TlsCluster) -> None:
    await cluster.grow(2)
    leader = await cluster.leader()
    follower = next(member for member in cluster.running() if member is not leader)
    await follower.stop()
    raft = leader.live
    reader = asyncio.create_task(raft.read_barrier())
    joiner = asyncio.create_task(raft.add_member("n9", "127.0.0.1:1"))
    await asyncio.sleep(0.05)
    await leader.stop()
    async with asyncio.timeout(5):
        with pytest.raises(NotLeader):
            await reader
        with pytest.raises(Unavailable):
            await joiner
