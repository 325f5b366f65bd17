"""Agents' sessions on the cluster port of real managers: redirect, welcome, refusal."""

import asyncio
import random
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.identity import Identity
from cluster.messages import Hello, Removed, SessionRedirect, Welcome
from cluster.objects import NodeDescription
from manager.certificates import load_identity, save_identity
from shoal.daemon.join import renew
from shoal.daemon.membership import MembershipStore
from tests.host.manager.managers import CLOCK, Managers
from worker.agent.seek import SessionClosed
from worker.agent.transport import TLSConnector

pytestmark = pytest.mark.host
HELLO = Hello(description=NodeDescription(hostname="worker1"))


@pytest.fixture
async def managers(tmp_path: Path) -> AsyncIterator[Managers]:
    async with Managers(tmp_path, prefix="127.0.78") as managers:
        yield managers


def connector(root: Path, identity: Identity) -> TLSConnector:
    membership = MembershipStore(root / str(random.random()))
    save_identity(membership.certificates, identity)
    return TLSConnector(membership.client_context, lambda: identity.peer.cluster_id)


async def test_a_session_is_redirected_to_the_leader_and_opened_there(
    managers: Managers, tmp_path: Path
) -> None:
    founder = await managers.found()
    follower = await managers.add()
    joined = await managers.join_node((await managers.tokens())["Worker"], follower)
    connect = connector(tmp_path, joined.identity).connect
    channel = await connect(follower.address)
    await channel.send(HELLO)
    redirect = await channel.receive()
    assert isinstance(redirect, SessionRedirect)
    assert redirect.leader == founder.address
    assert {manager.address for manager in redirect.managers} == {founder.address, follower.address}
    await channel.close()
    channel = await connect(redirect.leader)
    await channel.send(HELLO)
    welcome = await channel.receive()
    assert isinstance(welcome, Welcome)
    node = await follower.get("/nodes/worker1")
    assert (node["ID"], node["Status"]["State"]) == (joined.answer.node_id, "ready")
    await channel.close()


async def test_a_renewed_certificate_is_used_without_a_restart(managers: Managers) -> None:
    founder = await managers.found()
    assert founder.process is not None
    before = load_identity(founder.certificates)
    renewed, _ = await renew(before, [founder.address], clock=CLOCK)
    save_identity(founder.certificates, renewed)
    founder.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(5):
        while await served_certificate(founder.address) == before.certificate:
            await asyncio.sleep(0.02)
    assert await served_certificate(founder.address) == renewed.certificate
    follower = await managers.add()  # Raft and the HTTP side go on with it
    assert (await follower.create_service("web"))[0] == 201


async def served_certificate(address: str) -> bytes:
    host, _, port = address.rpartition(":")
    pem = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
    return pem.encode()


async def test_a_removed_node_is_told_so(managers: Managers, tmp_path: Path) -> None:
    founder = await managers.found()
    joined = await managers.join_node((await managers.tokens())["Worker"], founder)
    assert (await founder.request("DELETE", f"/nodes/{joined.answer.node_id}?force=1"))[0] == 200
    channel = await connector(tmp_path, joined.identity).connect(founder.address)
    await channel.send(HELLO)
    assert isinstance(await channel.receive(), Removed)
    await channel.close()


async def test_without_a_certificate_of_the_cluster_there_is_no_session(
    managers: Managers, tmp_path: Path
) -> None:
    founder = await managers.found()
    other = Managers(tmp_path / "other", prefix="127.0.79")
    async with other:
        stranger = await other.found()
        joined = await other.join_node((await other.tokens())["Worker"], stranger)
        with pytest.raises(SessionClosed):
            await connector(tmp_path, joined.identity).connect(founder.address)
