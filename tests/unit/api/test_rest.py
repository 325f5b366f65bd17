"""Nodes, tasks, networks, secrets, configs, swarm, logs, and what holds for all."""

import json
import struct
from typing import Any

import pytest
from msgspec.structs import replace

from cluster.messages import LogChunk
from cluster.objects import Cluster, ManagerStatus, Network, Node, Task, TaskStatus
from cluster.spec import NetworkSpec, NodeSpec
from cluster.states import NodeState, Role, TaskState
from tests.unit.api.manager import Api, service_body

# --- versions and errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "status"), [("1.24", 200), ("1.50", 200), ("1.23", 400), ("1.51", 400)])
async def test_api_versions(api: Api, version: str, status: int) -> None:
    got, answer = await api("GET", f"/v{version}/services")
    assert got == status
    if status == 400:
        assert f"client version {version} is too" in answer["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("PUT", "/services", 405), ("GET", "/v1.9x/nodes", 404)],
)
async def test_unknown_routes_have_docker_shape(api: Api, method: str, path: str, status: int) -> None:
    got, answer = await api(method, path)
    assert got == status
    assert list(answer) == ["message"]


@pytest.mark.parametrize(
    "raw", [b"{", b"[]", b'"x"', b"\xff", b'{"Name":3}', b'{"TaskTemplate":[]}', b"[" * 2000]
)
async def test_bodies_that_are_not_the_right_json(api: Api, raw: bytes) -> None:
    status, answer = await api("POST", "/services/create", raw=raw)
    assert status == 400
    assert answer["message"].startswith("invalid request body")


async def test_null_is_the_same_as_left_out(api: Api) -> None:
    body = {**service_body(), "Labels": None, "Networks": None, "UpdateConfig": None, "EndpointSpec": None}
    await api.ok("POST", "/services/create", body)


# --- nodes ----------------------------------------------------------------------------------------------


async def test_nodes_show_leadership_and_reachability(api: Api) -> None:
    await api.node("w1", "host2")
    await api.node("m2", "host3", role=Role.MANAGER, manager_status=ManagerStatus(address="10.0.0.3:2377"))
    nodes = {node["ID"]: node for node in await api.ok("GET", "/nodes")}
    assert nodes["founder"]["ManagerStatus"] == {
        "Leader": True,
        "Reachability": "reachable",
        "Addr": "10.0.0.1:2377",
    }
    assert nodes["m2"]["ManagerStatus"] == {"Reachability": "unreachable", "Addr": "10.0.0.3:2377"}
    assert "ManagerStatus" not in nodes["w1"]
    assert (await api.ok("GET", "/nodes/host2"))["ID"] == "w1"


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"role": ["manager"]}, ["founder"]),
        ({"name": ["host"]}, ["w1", "w2"]),
        ({"node.label": ["zone=a"]}, ["w1"]),
        ({"membership": ["pending"]}, []),
        ({"id": {"w2": True}}, ["w2"]),
    ],
)
async def test_node_filters(api: Api, filters: dict[str, Any], found: list[str]) -> None:
    await api.node("w1", "host1", spec=NodeSpec(labels={"zone": "a"}))
    await api.node("w2", "host2", spec=NodeSpec(labels={"zone": "b"}))
    assert [n["ID"] for n in await api.ok("GET", f"/nodes?filters={json.dumps(filters)}")] == found


async def test_two_nodes_of_one_hostname_are_ambiguous(api: Api) -> None:
    await api.node("w1", "same")
    await api.node("w2", "same")
    status, problem = await api("GET", "/nodes/same")
    assert (status, problem["message"]) == (400, "node same is ambiguous (2 matches found)")


async def update_node(api: Api, id: str, **changes: object) -> tuple[int, Any]:
    node = await api.ok("GET", f"/nodes/{id}")
    return await api(
        "POST", f"/nodes/{id}/update?version={node['Version']['Index']}", {**node["Spec"], **changes}
    )


async def test_availability_and_labels(api: Api) -> None:
    await api.node("w1", "host1")
    assert (await update_node(api, "w1", Availability="drain", Labels={"a": "b"}))[0] == 200
    assert (await api.ok("GET", "/nodes/w1"))["Spec"] == {
        "Labels": {"a": "b"},
        "Role": "worker",
        "Availability": "drain",
    }
    assert (await update_node(api, "w1", Availability="sometimes"))[0] == 400
    status, problem = await api(
        "POST", "/nodes/w1/update?version=1", {"Role": "worker", "Availability": "active"}
    )
    assert status == 400
    assert "update out of sequence" in problem["message"]
    assert (await api("POST", "/nodes/w1/update", {}))[0] == 400


async def test_the_last_manager_stays(api: Api) -> None:
    status, problem = await update_node(api, "founder", Role="worker")
    assert status == 400
    assert problem["message"].startswith("attempting to demote the last manager of the swarm")


async def test_a_demotion_that_would_lose_quorum_is_refused(api: Api) -> None:
    spec = NodeSpec(role=Role.MANAGER)
    for id in ("m2", "m3"):
        await api.node(id, id, role=Role.MANAGER, spec=spec)
        api.manager.members.add(id)
    api.manager.reachable.add("m2")
    status, problem = await update_node(api, "m2", Role="worker")
    assert status == 400
    assert "loss of quorum" in problem["message"]
    assert (await update_node(api, "m3", Role="worker"))[0] == 200  # the one that is down may go


async def test_removing_nodes(api: Api) -> None:
    await api.node("w1", "host1")
    status, problem = await api("DELETE", "/nodes/w1")
    assert status == 400
    assert "is not down and can't be removed" in problem["message"]
    assert await api("DELETE", "/nodes/w1?force=true") == (200, b"")
    cluster = api.manager.store.view().cluster()
    assert isinstance(cluster, Cluster)
    assert cluster.removed_nodes == ("w1",)
    status, problem = await api("DELETE", "/nodes/founder?force=1")
    assert status == 400
    assert "must be demoted to worker before removal" in problem["message"]
    await api.node("w2", "host2")
    node = api.manager.store.view().get(Node, "w2")
    assert node is not None
    down = replace(node, status=replace(node.status, state=NodeState.DOWN))
    await api.manager.store.update(lambda tx: tx.update(down))
    assert (await api("DELETE", "/nodes/host2"))[0] == 200


# --- tasks ----------------------------------------------------------------------------------------------


async def make_tasks(api: Api) -> str:
    id = await api.service("web")
    await api.node("w1", "host1")
    common = {"service_id": id, "service_name": "web", "node_id": "w1"}
    running = TaskStatus(state=TaskState.RUNNING)
    await api.put(
        Task(id="t1", slot=1, desired_state=TaskState.RUNNING, status=running, spec_version=2, **common),
        Task(id="t2", slot=2, desired_state=TaskState.SHUTDOWN, **common),
    )
    return id


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["t1", "t2"]),
        ({"desired-state": ["running"]}, ["t1"]),
        ({"desired-state": ["running", "shutdown"]}, ["t1", "t2"]),
        ({"service": {"web": True}, "_up-to-date": {"true": True}}, ["t1"]),
        ({"service": ["web"], "node": ["host1"]}, ["t1", "t2"]),
        ({"node": ["nowhere"]}, []),
        ({"service": ["gone"]}, []),
        ({"name": ["web.2"]}, ["t2"]),
        ({"id": ["t1"]}, ["t1"]),
    ],
)
async def test_task_filters(api: Api, filters: dict[str, Any], found: list[str]) -> None:
    await make_tasks(api)
    tasks = await api.ok("GET", f"/tasks?filters={json.dumps(filters)}")
    assert [task["ID"] for task in tasks] == found


async def test_task_words(api: Api) -> None:
    await make_tasks(api)
    task = await api.ok("GET", "/tasks/t1")
    assert (task["Status"]["State"], task["DesiredState"], task["Slot"]) == ("running", "running", 1)
    assert (await api("GET", "/tasks/none"))[0] == 404
    assert (await api("GET", '/tasks?filters={"desired-state":["tired"]}'))[0] == 400


# --- networks -------------------------------------------------------------------------------------------


async def test_networks(api: Api) -> None:
    status, answer = await api(
        "POST", "/networks/create", {"Name": "front", "Driver": "overlay", "Attachable": True}
    )
    assert status == 201
    assert answer["Warning"] == ""
    (network,) = await api.ok("GET", "/networks")
    assert (network["Id"], network["Scope"], network["Attachable"]) == (answer["Id"], "swarm", True)
    status, problem = await api("POST", "/networks/create", {"Name": "front", "Driver": "overlay"})
    assert (status, problem["message"]) == (409, "network with name front already exists")
    assert (await api("DELETE", "/networks/front")) == (204, b"")
    await api.put(Network(id="h", spec=NetworkSpec(name="host"), driver="host", predefined=True))
    assert await api.ok("GET", "/networks") == []
    assert (await api("DELETE", "/networks/host"))[0] == 403


@pytest.mark.parametrize(
    ("ipam", "status"),
    [
        ([{"Subnet": "10.9.0.0/16", "Gateway": "10.9.0.1"}], 201),
        ([{"Subnet": "10.9.0.0/16", "Gateway": "10.8.0.1"}], 400),
        ([{"Subnet": "banana"}], 400),
        ([{"Subnet": "10.9.0.0/16"}, {"Subnet": "10.9.1.0/24"}], 403),
        ([{"Subnet": "10.1.2.0/24"}], 403),
    ],
)
async def test_network_subnets(api: Api, ipam: list[dict[str, str]], status: int) -> None:
    await api.ok("POST", "/networks/create", {"Name": "a", "IPAM": {"Config": [{"Subnet": "10.1.0.0/16"}]}})
    got, answer = await api("POST", "/networks/create", {"Name": "b", "IPAM": {"Config": ipam}})
    assert got == status, answer


# --- secrets and configs --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["secrets", "configs"])
async def test_payloads(api: Api, kind: str) -> None:
    body = {"Name": "key", "Data": "c2VjcmV0", "Labels": {"a": "b"}}
    id = (await api.ok("POST", f"/{kind}/create", body))["ID"]
    shown = await api.ok("GET", f"/{kind}/key")
    assert ("Data" in shown["Spec"]) == (kind == "configs")
    assert (await api("POST", f"/{kind}/create", body))[0] == 409
    path = f"/{kind}/{id}/update?version={shown['Version']['Index']}"
    assert (await api("POST", path, {**body, "Data": "b3RoZXI="}))[0] == 400
    assert await api("POST", path, {**body, "Labels": {"c": "d"}}) == (200, b"")
    (found,) = await api.ok("GET", f'/{kind}?filters={{"names":["key"],"label":["c"]}}')
    assert found["Spec"]["Labels"] == {"c": "d"}
    assert await api.ok("GET", f'/{kind}?filters={{"names":["ke"]}}') == []
    assert await api("DELETE", f"/{kind}/{id[:8]}") == (204, b"")


@pytest.mark.parametrize("body", [{"Name": "", "Data": "eA=="}, {"Name": "a", "Data": "?"}, {"Name": "a"}])
async def test_payloads_that_are_refused(api: Api, body: dict[str, str]) -> None:
    for kind in ("secrets", "configs"):
        assert (await api("POST", f"/{kind}/create", body))[0] == 400


# --- swarm ----------------------------------------------------------------------------------------------


async def test_swarm_update_and_token_rotation(api: Api) -> None:
    swarm = await api.ok("GET", "/swarm")
    spec = {**swarm["Spec"], "Orchestration": {"TaskHistoryRetentionLimit": 2}, "Labels": {"x": "y"}}
    path = f"/swarm/update?version={swarm['Version']['Index']}&rotateManagerToken=1"
    assert await api("POST", path, spec) == (200, b"")
    after = await api.ok("GET", "/swarm")
    assert after["Spec"]["Orchestration"] == {"TaskHistoryRetentionLimit": 2}
    assert after["Spec"]["Labels"] == {"x": "y"}
    assert after["JoinTokens"]["Worker"] == swarm["JoinTokens"]["Worker"]
    assert after["JoinTokens"]["Manager"] != swarm["JoinTokens"]["Manager"]
    status, problem = await api("POST", path, spec)
    assert status == 400
    assert "update out of sequence" in problem["message"]


async def test_settings_left_out_stay(api: Api) -> None:
    for body in ({"Dispatcher": {"HeartbeatPeriod": 2_000_000_000}}, {"Labels": {"a": "b"}}):
        index = (await api.ok("GET", "/swarm"))["Version"]["Index"]
        await api.ok("POST", f"/swarm/update?version={index}", body)
    assert (await api.ok("GET", "/swarm"))["Spec"]["Dispatcher"] == {"HeartbeatPeriod": 2_000_000_000}


async def update_swarm(api: Api, body: dict[str, Any], query: str = "") -> None:
    index = (await api.ok("GET", "/swarm"))["Version"]["Index"]
    await api.ok("POST", f"/swarm/update?version={index}{query}", body)


async def unlock_key(api: Api) -> str:
    return str((await api.ok("GET", "/swarm/unlockkey"))["UnlockKey"])


async def test_autolock_has_a_key_that_can_be_rotated(api: Api) -> None:
    await update_swarm(api, {"EncryptionConfig": {"AutoLockManagers": True}})
    key = await unlock_key(api)
    assert key.startswith("SWMKEY-1-")
    assert (await api.ok("GET", "/swarm"))["Spec"]["EncryptionConfig"] == {"AutoLockManagers": True}
    await update_swarm(api, {"Labels": {"a": "b"}})
    assert await unlock_key(api) == key, "what is left out stays: nothing unlocks by accident"
    await update_swarm(api, {}, "&rotateManagerUnlockKey=true")
    assert await unlock_key(api) not in ("", key)
    shown = json.dumps([await api.ok("GET", path) for path in ("/swarm", "/internal/info")])
    assert "SWMKEY" not in shown
    await update_swarm(api, {"EncryptionConfig": {"AutoLockManagers": False}})
    assert await unlock_key(api) == ""
    await update_swarm(api, {}, "&rotateManagerUnlockKey=true")
    assert await unlock_key(api) == ""


async def test_info_hides_the_tokens(api: Api) -> None:
    info = await api.ok("GET", "/internal/info")
    assert info["LocalNodeState"] == "active"
    assert info["RemoteManagers"] == [{"NodeID": "founder", "Addr": "10.0.0.1:2377"}]
    assert "SWMTKN" not in json.dumps(info)
    assert await api.ok("GET", "/swarm/unlockkey") == {"UnlockKey": ""}


# --- logs -----------------------------------------------------------------------------------------------


async def test_logs_are_docker_frames_with_details(api: Api) -> None:
    id = await make_tasks(api)
    api.manager.chunks = [
        LogChunk(request=0, task_id="t1", timestamp=1_700_000_000_120_000_000, stream=1, data=b"hello\n"),
        LogChunk(request=0, task_id="t2", timestamp=5, stream=2, data=b"oops\n"),
    ]
    status, content = await api(
        "GET", "/v1.44/services/web/logs?stdout=1&stderr=1&details=1&timestamps=1&tail=5&since=3.5"
    )
    assert status == 200
    first = (
        "2023-11-14T22:13:20.120000000Z com.docker.swarm.node.id=w1,"
        f"com.docker.swarm.service.id={id},com.docker.swarm.task.id=t1 hello\n"
    ).encode()
    assert content.startswith(struct.pack(">BxxxL", 1, len(first)) + first)
    rest = content[8 + len(first) :]
    assert rest[0] == 2
    assert rest.endswith(b"com.docker.swarm.task.id=t2 oops\n")
    (query,) = api.manager.log_requests
    assert (query.task_ids, query.tail, query.since, query.follow) == (("t1", "t2"), 5, 3_500_000_000, False)


async def test_logs_need_a_stream(api: Api) -> None:
    await make_tasks(api)
    status, problem = await api("GET", "/services/web/logs")
    assert status == 400
    assert "at least one stream" in problem["message"]
