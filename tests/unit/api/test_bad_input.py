"""Bodies that no sane client sends: refused in Docker's shape, with nothing changed, and soon."""

import io
import json
from typing import Any

import pytest

from tests.unit.api.fuzzing import FULL_SERVICE
from tests.unit.api.manager import Api, service_body

ENDPOINTS = [
    "/services/create",
    "/services/web/update?version={version}",
    "/networks/create",
    "/secrets/create",
    "/secrets/key/update?version={version}",
    "/configs/create",
    "/configs/key/update?version={version}",
    "/nodes/founder/update?version={version}",
    "/swarm/update?version={version}",
]
NOT_JSON = {
    "half": b'{"Name": "x"',
    "array": b"[]",
    "string": b'"web"',
    "number": b"1",
    "true": b"true",
    "bytes that are no text": b'{"Name": "\xff\xfe"}',
    "half a character": b'{"Name": "\xe2\x82"}',
    "a lone surrogate": b'{"Name": "\\ud800", "Labels": {"\\udfff": "x"}}',
    "a mark of byte order": b'\xef\xbb\xbf{"Name": "x"}',
    "NaN": b'{"Labels": NaN}',
    "infinity": b'{"Labels": -Infinity}',
    "more behind": b'{"Name": "x"}{"Name": "y"}',
    "deep lists": b'{"Name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"Labels":' * 50_000 + b"1" + b"}" * 50_000,
    "a deep field that nobody knows": b'{"Unknown": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    "nulls": b"\0" * 100,
    "xml": b"<?xml version='1.0'?><a/>",
}


@pytest.fixture
async def filled(api: Api) -> Api:
    await api.service("web")
    for kind in ("secrets", "configs"):
        await api.ok("POST", f"/{kind}/create", {"Name": "key", "Data": "eA=="})
    return api


async def current(api: Api, endpoint: str) -> str:
    """The endpoint with the present version."""
    read = endpoint.partition("/update")[0]
    if "{version}" not in endpoint:
        return endpoint
    return endpoint.format(version=(await api.ok("GET", read))["Version"]["Index"])


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_what_is_no_json_object(filled: Api, endpoint: str) -> None:
    where, before = await current(filled, endpoint), filled.index
    for what, raw in NOT_JSON.items():
        for content_type in (
            "application/json",
            "text/plain",
            "application/x-www-form-urlencoded",
            "nonsense",
        ):
            status, problem = await filled("POST", where, raw=raw, **{"Content-Type": content_type})
            assert (status, list(problem)) == (400, ["message"]), what
            assert problem["message"].startswith("invalid request body"), what
    assert filled.index == before


@pytest.mark.parametrize(
    "endpoint", ["/services/create", "/networks/create", "/secrets/create", "/configs/create"]
)
@pytest.mark.parametrize(
    "raw", [b"", b"   ", b"null", b"{}", b'{"Name": null}', b'{"Name": ""}', b'{"name": " "}']
)
async def test_bodies_that_say_nothing(api: Api, endpoint: str, raw: bytes) -> None:
    before = api.index
    status, problem = await api("POST", endpoint, raw=raw)
    assert (status, list(problem)) == (400, ["message"])
    assert api.index == before


async def test_fields_that_nobody_knows_are_let_be(api: Api) -> None:
    """As with Go's decoder: newer clients send more."""
    body = json.loads(json.dumps(FULL_SERVICE))
    body["TaskTemplate"]["Networks"] = []
    body["TaskTemplate"]["ContainerSpec"]["FutureOption"] = {"Deep": [1, {"x": None}]}
    body["Tomorrow"] = "x"
    id = (await api.ok("POST", "/services/create", body))["ID"]
    assert "Tomorrow" not in (await api.ok("GET", f"/services/{id}"))["Spec"]


async def test_the_last_of_two_equal_keys_counts(api: Api) -> None:
    raw = b'{"Name": "a", "Name": "b", "Data": "eA=="}'
    await api.client.post("/secrets/create", data=raw)
    assert [secret["Spec"]["Name"] for secret in await api.ok("GET", "/secrets")] == ["b"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("Mode", "Replicated", "Replicas"), 1 << 64),
        (("Mode", "Replicated", "Replicas"), 10**400),
        (("Mode", "Replicated", "Replicas"), -1),
        (("Mode", "Replicated", "Replicas"), 1.5),
        (("Mode", "Replicated", "Replicas"), "3"),
        (("Mode", "Replicated", "Replicas"), True),
        (("UpdateConfig", "MaxFailureRatio"), 1e308),
        (("UpdateConfig", "MaxFailureRatio"), -0.1),
        (("UpdateConfig", "Delay"), 1 << 63),
        (("Labels",), ["a"]),
        (("Labels",), {"a": 1}),
        (("Name",), {"a": "b"}),
        (("Name",), "x" * 64),
        (("TaskTemplate", "ContainerSpec", "Env"), "A=b"),
        (("TaskTemplate", "ContainerSpec", "StopGracePeriod"), -5),
        (("TaskTemplate", "Resources"), {"Limits": {"NanoCPUs": -1}}),
        (("EndpointSpec",), {"Ports": [{"TargetPort": 65536}]}),
        (("EndpointSpec",), {"Ports": [{"TargetPort": 80, "PublishedPort": -1}]}),
    ],
)
async def test_values_of_the_wrong_kind_or_size(api: Api, path: tuple[str, ...], value: Any) -> None:
    body: Any = json.loads(json.dumps(service_body()))
    inner = body
    for name in path[:-1]:
        inner = inner.setdefault(name, {})
    inner[path[-1]] = value
    before = api.index
    status, problem = await api("POST", "/services/create", body)
    assert (status, list(problem)) == (400, ["message"]), problem
    assert api.index == before


async def test_huge_labels(api: Api) -> None:
    """As many as fit into one entry of the managers' log are kept; more are refused in a sentence."""
    many = {f"label-{number}": "x" * 1000 for number in range(500)}
    id = await api.service("many", Labels=many)
    assert (await api.ok("GET", f"/services/{id}"))["Spec"]["Labels"] == many
    assert len(await api.ok("GET", '/services?filters={"label":["label-499"]}')) == 1
    before = api.index
    for size, refusal in ((3_000_000, 400), (8_000_000, 413)):
        body = io.BytesIO(json.dumps(service_body("huge", Labels={"a": "x" * size})).encode())
        async with api.client.post("/services/create", data=body) as answer:
            assert (answer.status, list(await answer.json())) == (refusal, ["message"])
    assert api.index == before


@pytest.mark.parametrize("given", ["!", "e30", "W10=", "bnVsbA==", "eyJ", "é", "A" * 7000, "="])
async def test_registry_credentials_that_are_none(api: Api, given: str) -> None:
    status, answer = await api("POST", "/services/create", service_body(), **{"X-Registry-Auth": given})
    assert status in (201, 400)
    assert status == 201 or list(answer) == ["message"]


@pytest.mark.parametrize("path", ["/services/%00", "/services/..%2f..", "/tasks/%ff", "/nodes/" + "a" * 5000])
async def test_names_that_nothing_has(api: Api, path: str) -> None:
    status, problem = await api("GET", path)
    assert (status, list(problem)) == (404, ["message"])
