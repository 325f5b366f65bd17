"""Real managers: founding, joining, forwarding, failover, and whom they refuse."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from cluster.errors import Forbidden, Unauthorized, Unavailable
from cluster.identity import Identity, create_csr, create_root_ca, issue_certificate, parse_join_token
from cluster.seams import SECOND
from cluster.states import Role
from manager.certificates import load_identity
from manager.rpc.join import JoinRefused, ask_to_be_member, posting
from manager.rpc.tls import client_context
from shoal.daemon.join import JoinFailed, join, renew
from tests.host.manager.managers import CLOCK, Managers

HOUR = 3600 * SECOND
pytestmark = pytest.mark.host


@pytest.fixture
async def managers(tmp_path: Path) -> AsyncIterator[Managers]:
    async with Managers(tmp_path) as managers:
        yield managers


async def three(managers: Managers) -> None:
    await managers.found()
    await managers.add()
    await managers.add(by=managers.all[1])  # by a follower


async def test_three_managers_agree_and_followers_forward(managers: Managers) -> None:
    await three(managers)
    for number, manager in enumerate(managers.all):
        status, created = await manager.create_service(f"web{number}")
        assert status == 201, created
        for other in managers.all:  # a read by anyone sees the write at once
            assert (await other.get(f"/services/{created['ID']}"))["Spec"]["Name"] == f"web{number}"
    follower = managers.all[2]
    status, problem = await follower.create_service("web0")
    assert status == 409
    assert "already exists" in problem["message"]
    nodes = await follower.get("/nodes")
    assert [n["ManagerStatus"]["Reachability"] for n in nodes] == ["reachable"] * 3
    assert [n["ManagerStatus"].get("Leader", False) for n in nodes] == [True, False, False]
    info = await follower.get("/internal/info")
    assert (info["Managers"], info["Nodes"], info["ControlAvailable"]) == (3, 3, True)
    assert len(info["RemoteManagers"]) == 3


async def test_failover_keeps_every_acknowledged_write(managers: Managers) -> None:
    await three(managers)
    status, created = await managers.all[1].create_service("before")
    assert status == 201
    leader = await managers.leader()
    survivors = [m for m in managers.all if m is not leader]
    await leader.kill()
    begun = time.monotonic()
    status, answer = await survivors[0].create_service("after")
    assert status == 201, answer
    assert time.monotonic() - begun < 5
    names = {s["Spec"]["Name"] for s in await survivors[1].get("/services")}
    assert names == {"before", "after"}
    assert (await survivors[1].get(f"/services/{created['ID']}"))["Spec"]["Name"] == "before"
    await leader.start()
    assert len(await leader.get("/services")) == 2


async def test_without_a_majority_everything_is_refused_as_docker_does(managers: Managers) -> None:
    await three(managers)
    await managers.all[1].kill()
    await managers.all[2].kill()
    status, problem = await managers.all[0].create_service("web")
    assert status == 503
    assert problem["message"]
    status, problem = await managers.all[0].request("GET", "/services")
    assert status == 503
    assert "The swarm does not have a leader" in problem["message"]
    assert "does not have a leader" in (await managers.all[0].get("/internal/info"))["Error"]
    await managers.all[1].start()
    assert (await managers.all[0].create_service("again"))[0] == 201


async def test_a_stopped_leader_hands_over(managers: Managers) -> None:
    await three(managers)
    leader = await managers.leader()
    assert await leader.stop() == 0
    begun = time.monotonic()
    survivor = next(m for m in managers.all if m is not leader)
    assert (await survivor.create_service("web"))[0] == 201
    assert time.monotonic() - begun < 1.5


async def test_a_restarted_cluster_has_its_state(managers: Managers) -> None:
    await three(managers)
    assert (await managers.all[0].create_service("web"))[0] == 201
    for manager in managers.all:
        await manager.kill()
    await asyncio.gather(*(manager.start() for manager in managers.all))
    assert [s["Spec"]["Name"] for s in await managers.all[2].get("/services")] == ["web"]


async def test_wrong_tokens_are_refused(managers: Managers, tmp_path: Path) -> None:
    founder = await managers.found()
    tokens = await managers.tokens()
    right = parse_join_token(tokens["Worker"])
    with pytest.raises(Unauthorized, match="token"):
        await managers.join_node(str(right._replace(secret="0" * 25)), founder)
    with pytest.raises(Unauthorized, match="does not match fingerprint"):
        await managers.join_node(str(right._replace(digest="0" * 50)), founder)
    status, _ = await founder.request(
        "POST",
        f"/swarm/update?version={(await founder.get('/swarm'))['Version']['Index']}&rotateWorkerToken=1",
        {},
    )
    assert status == 200
    with pytest.raises(Unauthorized, match="rotated"):
        await managers.join_node(tokens["Worker"], founder)
    assert len(await founder.get("/nodes")) == 1
    with pytest.raises(Unavailable, match="could be reached"):
        await join(["127.0.77.99"], tokens["Manager"], clock=CLOCK)


async def test_foreign_and_expired_certificates_are_refused_on_both_sides(managers: Managers) -> None:
    founder = await managers.found()
    joined = await managers.join_node((await managers.tokens())["Worker"], founder)
    now = CLOCK.now()
    other_ca = create_root_ca(now)
    key, csr = create_csr()
    node_id, cluster_id = joined.answer.node_id, joined.answer.cluster_id

    def issue(lifetime: int, cluster: str = cluster_id) -> bytes:
        return issue_certificate(
            other_ca, csr, node_id=node_id, role=Role.MANAGER, cluster_id=cluster, now=now, lifetime=lifetime
        )

    # the node itself notices what can't work
    with pytest.raises(Unauthorized, match="not issued by the cluster's root CA"):
        await renew(Identity(issue(HOUR), key, joined.identity.root_ca), [founder.address], clock=CLOCK)
    with pytest.raises(Unauthorized, match="expired at"):
        await renew(Identity(issue(-SECOND), key, other_ca[0]), [founder.address], clock=CLOCK)
    # a node of another cluster refuses this one's manager
    with pytest.raises(Unavailable, match="no manager of this cluster"):
        await renew(Identity(issue(HOUR), key, other_ca[0]), [founder.address], clock=CLOCK)
    # and the manager refuses it when it insists
    context = client_context(Identity(issue(HOUR), key, other_ca[0]))
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:
        with pytest.raises(aiohttp.ClientError):
            await http.post(f"https://{founder.address}/renew", data=b"{}")
    async with asyncio.timeout(5):
        while "refused a connection to the cluster port" not in founder.log():
            await asyncio.sleep(0.01)


async def test_a_worker_may_renew_but_not_act_as_a_manager(managers: Managers) -> None:
    founder = await managers.found()
    joined = await managers.join_node((await managers.tokens())["Worker"], founder)
    renewed, answer = await renew(joined.identity, [founder.address], clock=CLOCK)
    assert answer.role is Role.WORKER
    assert renewed.peer.node_id == joined.answer.node_id
    assert renewed.certificate != joined.identity.certificate
    with pytest.raises(JoinRefused, match="worker") as refused:
        async with posting(renewed) as post:
            await ask_to_be_member(joined.answer.node_id, "127.0.77.9:2377", [founder.address], post, CLOCK)
    assert refused.value.status == Forbidden.status
    # promoted, it gets a manager's certificate
    node = await founder.get(f"/nodes/{joined.answer.node_id}")
    spec = {**node["Spec"], "Role": "manager"}
    status, problem = await founder.request(
        "POST", f"/nodes/{node['ID']}/update?version={node['Version']['Index']}", spec
    )
    assert status == 200, problem
    promoted, answer = await renew(renewed, [founder.address], clock=CLOCK)
    assert answer.role is Role.MANAGER
    assert promoted.peer.role is Role.MANAGER


async def test_a_removed_node_is_refused(managers: Managers) -> None:
    founder = await managers.found()
    joined = await managers.join_node((await managers.tokens())["Worker"], founder)
    status, problem = await founder.request("DELETE", f"/nodes/{joined.answer.node_id}?force=1")
    assert status == 200, problem
    with pytest.raises(JoinFailed, match="removed from the cluster"):
        await renew(joined.identity, [founder.address], clock=CLOCK)


async def test_demotion_takes_a_manager_out_of_raft_also_the_leader(managers: Managers) -> None:
    await three(managers)
    leader = await managers.leader()
    other = next(m for m in managers.all if m is not leader)
    node = await other.get(f"/nodes/{leader.node_id}")
    status, problem = await other.request(
        "POST",
        f"/nodes/{leader.node_id}/update?version={node['Version']['Index']}",
        {**node["Spec"], "Role": "worker"},
    )
    assert status == 200, problem
    _, answer = await renew(load_identity(leader.certificates), [other.address], clock=CLOCK)
    assert answer.role is Role.WORKER
    nodes = {n["ID"]: n for n in await other.get("/nodes")}
    assert "ManagerStatus" not in nodes[leader.node_id]
    assert len([n for n in nodes.values() if "ManagerStatus" in n]) == 2
    await leader.kill()  # two managers are left and need no third
    assert (await other.create_service("web"))[0] == 201


async def test_a_manager_that_leaves_is_no_longer_counted(managers: Managers) -> None:
    await three(managers)
    leader = await managers.leader()
    status, problem = await leader.request("POST", "/internal/leave", {})
    assert status == 503
    assert (
        "You are attempting to leave the swarm on a node that is participating as a manager"
        in problem["message"]
    )
    status, answer = await leader.request("POST", "/internal/leave?force=1", {})
    assert (status, answer) == (200, {"Warning": ""})
    await leader.stop()
    other = next(m for m in managers.all if m is not leader)
    nodes = {n["ID"]: n for n in await other.get("/nodes")}
    assert nodes[leader.node_id]["Spec"]["Role"] == "worker"
    assert len([n for n in nodes.values() if "ManagerStatus" in n]) == 2
    # and the next demotion would leave a single reachable manager of one: allowed; then it is the last
    version = nodes[other.node_id]["Version"]["Index"]
    third = next(m for m in managers.all if m not in (leader, other))
    await third.kill()
    status, problem = await other.request(
        "POST",
        f"/nodes/{other.node_id}/update?version={version}",
        {"Role": "worker", "Availability": "active"},
    )
    assert status in (400, 503), problem
