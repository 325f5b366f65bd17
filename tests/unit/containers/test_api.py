"""The API of standalone containers, over parts without a machine: statuses, words, no internal error."""

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.fakes.clock import ManualClock
from tests.fakes.engine import EngineRuntime, fake_engine
from worker.api import containers
from worker.api.http import errors_middleware
from worker.containers.containers import Containers

Client = TestClient[web.Request, web.Application]
FIELDS = (
    "Image", "Cmd", "Entrypoint", "Env", "Labels", "Volumes", "ExposedPorts", "Healthcheck",
    "StopTimeout", "Tty", "HostConfig", "NetworkingConfig", "MacAddress",
)  # fmt: skip
HOST_FIELDS = (
    "Binds", "PortBindings", "RestartPolicy", "NetworkMode", "Memory", "NanoCpus", "Ulimits", "Devices",
    "Mounts", "Tmpfs", "LogConfig", "SecurityOpt", "VolumesFrom", "Links", "PidMode", "IpcMode",
    "Sysctls", "ShmSize", "CapAdd", "ExtraHosts", "ConsoleSize", "DeviceCgroupRules", "PidsLimit",
    "AutoRemove",
)  # fmt: skip
KEYS = st.text(max_size=6) | st.just("Name")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.text(max_size=8) | st.just("80/tcp"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    clock = ManualClock()
    runtime = EngineRuntime(clock)
    engine = fake_engine(tmp_path, clock, runtime)
    app = web.Application(middlewares=[errors_middleware])
    containers.routes(app, engine, Containers(engine, clock, random.Random(2)))
    async with TestClient(TestServer(app)) as made:
        yield made
    await runtime.close()


async def call(client: Client, method: str, path: str, body: object = None) -> tuple[int, Any]:
    async with client.request(method, path, data=None if body is None else json.dumps(body)) as answer:
        text = await answer.text()
        if answer.status >= 400:
            assert json.loads(text)["message"]
        return answer.status, json.loads(text) if text else None


async def test_the_way_of_a_container(client: Client) -> None:
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "9"],
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}, "Memory": 8 << 20},
        "NetworkingConfig": {"EndpointsConfig": {"back": {"Aliases": ["w"]}}},
    }
    status, made = await call(client, "POST", "/v1.44/containers/create?name=web", body)
    assert (status, made["Warnings"]) == (201, [])
    assert (await call(client, "POST", "/containers/web/start"))[0] == 204
    assert (await call(client, "POST", "/containers/web/start"))[0] == 304
    _, found = await call(client, "GET", "/containers/web/json")
    assert found["HostConfig"]["Memory"] == 8 << 20
    assert found["HostConfig"]["MemorySwap"] == 16 << 20
    assert found["HostConfig"]["NetworkMode"] == "bridge"
    assert found["Config"]["Cmd"] == ["sleep", "9"]
    assert found["NetworkSettings"]["Networks"]["back"]["Aliases"] == ["w"]
    assert found["NetworkSettings"]["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}
    _, listed = await call(client, "GET", "/containers/json")
    assert [entry["Names"] for entry in listed] == [["/web"]]
    assert (await call(client, "DELETE", "/containers/web"))[0] == 409
    assert (await call(client, "POST", "/containers/web/stop?t=0"))[0] == 204
    assert (await call(client, "POST", "/containers/web/stop"))[0] == 304
    assert (await call(client, "POST", "/containers/web/kill"))[0] == 409
    assert await call(client, "POST", "/containers/web/wait") == (200, {"StatusCode": 137})
    assert (await call(client, "POST", "/containers/web/rename?name=two"))[0] == 204
    assert (await call(client, "POST", "/containers/two/update", {"Memory": 16 << 20}))[1] == {
        "Warnings": None
    }
    assert (await call(client, "DELETE", "/containers/two?v=1"))[0] == 204
    assert (await call(client, "GET", "/containers/two/json"))[0] == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "start"), ("POST", "stop"), ("POST", "restart"), ("POST", "kill"), ("POST", "pause"),
        ("POST", "unpause"), ("POST", "wait"), ("POST", "rename?name=y1"), ("POST", "attach"),
        ("POST", "resize"), ("POST", "exec"), ("GET", "stats"), ("GET", "top"),
        ("GET", "archive?path=/"), ("PUT", "archive?path=/"), ("HEAD", "archive?path=/"),
        ("GET", "changes"), ("GET", "export"), ("DELETE", ""), ("POST", "update"),
    ],
)  # fmt: skip
async def test_no_such_container(client: Client, method: str, path: str) -> None:
    async with client.request(method, f"/containers/x1/{path}".rstrip("/")) as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/exec/x/start", 404), ("/exec/x/resize?h=1&w=1", 404),
        ("/containers/web/wait?condition=never", 400), ("/containers/web/kill?signal=NONE", 400),
        ("/containers/web/exec", 400), ("/containers/web/unpause", 409),
        ("/containers/web/resize?h=-1&w=1", 400), ("/containers/web/attach?detachKeys=ctrl-", 400),
        ("/containers/web/stop?t=x", 400),
    ],
)  # fmt: skip
async def test_refusals(client: Client, path: str, status: int) -> None:
    await call(client, "POST", "/containers/create?name=web", {"Image": "busybox"})
    await call(client, "POST", "/containers/web/start")
    assert (await call(client, "POST", path))[0] == status


async def test_lists(client: Client) -> None:
    ports = {"80/tcp": [{"HostPort": "8080"}]}
    body = {"Image": "busybox", "HostConfig": {"PortBindings": ports}, "ExposedPorts": {"81/udp": {}}}
    await call(client, "POST", "/containers/create?name=web", body)
    for wanted, count in (
        ({"network": ["bridge"]}, 1), ({"network": ["back"]}, 0), ({"publish": ["8080"]}, 1),
        ({"publish": ["80"]}, 0), ({"expose": ["80"]}, 1), ({"expose": ["81/udp"]}, 1),
        ({"expose": ["82"]}, 0),
        ({"status": ["created"]}, 1), ({"status": ["restarting"]}, 0),
    ):  # fmt: skip
        found = await client.get("/containers/json", params={"all": "1", "filters": json.dumps(wanted)})
        assert len(await found.json()) == count, wanted
    status, _ = await call(client, "POST", "/containers/create?platform=linux/s390x", {"Image": "busybox"})
    assert status == 404


@given(data=st.data())
@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_whatever_is_asked_for(client: Client, data: st.DataObject) -> None:
    body = data.draw(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
    body["Image"] = "busybox"
    body["HostConfig"] = data.draw(st.dictionaries(st.sampled_from(HOST_FIELDS), JSON, max_size=3) | JSON)
    status, made = await call(client, "POST", "/containers/create", body)
    assert status in (201, 400, 404, 409, 501), (status, made)
    if status == 201:
        assert (await call(client, "GET", f"/containers/{made['Id']}/json"))[0] == 200
        assert (await call(client, "POST", f"/containers/{made['Id']}/start"))[0] in (204, 400, 404, 409, 500)
        assert (await call(client, "DELETE", f"/containers/{made['Id']}?force=1&v=1"))[0] == 204
    assert (await call(client, "GET", "/containers/json?all=1"))[1] == []
