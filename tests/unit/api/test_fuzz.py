"""Whatever a client sends: never a server error, and a refusal never changes the state."""

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.api.fuzzing import (
    FULL_NETWORK,
    FULL_SERVICE,
    NODE,
    SECRET,
    SWARM,
    Fuzzed,
    fuzz,
    spoiled,
    values,
)
from tests.unit.api.manager import start


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Fuzzed]:
    with asyncio.Runner() as runner:
        api = runner.run(start())
        runner.run(api.ok("POST", "/networks/create", {"Name": "front"}))
        yield Fuzzed(runner, api)
        runner.run(api.client.close())


@fuzz()
@given(body=spoiled(FULL_SERVICE))
def test_services(fuzzed: Fuzzed, body: dict[str, Any]) -> None:
    status, answer = fuzzed("POST", "/services/create", body)
    if status != 201:
        return
    version = fuzzed.version(f"/services/{answer['ID']}")
    fuzzed("GET", f"/services/{answer['ID']}?insertDefaults=1")
    fuzzed("POST", f"/services/{answer['ID']}/update?version={version}", body)
    assert fuzzed("DELETE", f"/services/{answer['ID']}")[0] == 200


@fuzz()
@given(body=spoiled(FULL_SERVICE))
def test_service_updates(fuzzed: Fuzzed, body: dict[str, Any]) -> None:
    sound = {**FULL_SERVICE, "Name": "kept"}
    status, answer = fuzzed("POST", "/services/create", sound)
    assert status == 201, answer
    fuzzed(
        "POST", f"/services/kept/update?version={fuzzed.version('/services/kept')}", {**body, "Name": "kept"}
    )
    assert fuzzed("DELETE", "/services/kept")[0] == 200


@fuzz()
@given(body=spoiled(FULL_NETWORK))
def test_networks(fuzzed: Fuzzed, body: dict[str, Any]) -> None:
    status, answer = fuzzed("POST", "/networks/create", body)
    if status == 201:
        fuzzed("GET", f"/networks/{answer['Id']}")
        assert fuzzed("DELETE", f"/networks/{answer['Id']}")[0] == 204


@fuzz()
@given(body=spoiled(SECRET), kind=st.sampled_from(["secrets", "configs"]))
def test_payloads(fuzzed: Fuzzed, body: dict[str, Any], kind: str) -> None:
    status, answer = fuzzed("POST", f"/{kind}/create", body)
    if status == 201:
        version = fuzzed.version(f"/{kind}/{answer['ID']}")
        fuzzed("POST", f"/{kind}/{answer['ID']}/update?version={version}", body)
        assert fuzzed("DELETE", f"/{kind}/{answer['ID']}")[0] == 204


@fuzz()
@given(node=spoiled(NODE), swarm=spoiled(SWARM))
def test_nodes_and_swarm(fuzzed: Fuzzed, node: dict[str, Any], swarm: dict[str, Any]) -> None:
    fuzzed("POST", f"/nodes/founder/update?version={fuzzed.version('/nodes/founder')}", node)
    fuzzed("POST", f"/swarm/update?version={fuzzed.version('/swarm')}", swarm)
    assert fuzzed("GET", "/swarm")[0] == 200


PATHS = ["/services", "/nodes", "/tasks", "/networks", "/secrets", "/configs"]


@fuzz()
@given(path=st.sampled_from(PATHS), filters=st.text(max_size=30) | values.map(str), id=st.text(max_size=10))
def test_lists_and_lookups(fuzzed: Fuzzed, path: str, filters: str, id: str) -> None:
    fuzzed("GET", f"{path}?filters={quote(filters)}")
    fuzzed("GET", f"{path}/{quote(id, safe='')}")
    fuzzed("DELETE", f"/services/{quote(id, safe='')}?version={quote(filters)}")


@fuzz()
@given(
    body=spoiled(
        {"Services": [FULL_SERVICE], "Networks": [FULL_NETWORK], "Secrets": [SECRET], "Remove": ["x"]}
    )
)
def test_plans(fuzzed: Fuzzed, body: dict[str, Any]) -> None:
    fuzzed("POST", "/shoal/plan", body)


@fuzz()
@given(body=spoiled(SECRET), kind=st.sampled_from(["secrets", "configs"]))
def test_payload_versions(fuzzed: Fuzzed, body: dict[str, Any], kind: str) -> None:
    status, answer = fuzzed("POST", f"/{kind}/create", {"Name": "versioned", "Data": "eA=="})
    assert status == 201, answer
    fuzzed("POST", f"/shoal/{kind}/versioned/versions", body)
    assert fuzzed("DELETE", f"/{kind}/versioned")[0] == 204
