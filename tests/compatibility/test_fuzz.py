"""Every create and update operation with bodies made from the API's own description, sound and spoiled.

Never a server error, never a change by a refusal, Docker's error shape, and answers that are as described.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.compatibility.checklist import operations
from tests.compatibility.shapes import Json, description, resolved, undescribed
from tests.unit.api.fuzzing import Fuzzed, fuzz, scalars, values
from tests.unit.api.manager import start

_DEPTH = 7
_WORDS = {
    "Subnet": ["10.9.0.0/24", "10.9.0.0/8", "fd00::/64", "nonsense"],
    "Gateway": ["10.9.0.1", "10.8.0.1", "::1"],
    "Driver": ["overlay", "bridge", "null", ""],
    "Image": ["nginx", "nginx@sha256:" + "a" * 64, "UPPER", ""],
    "Constraints": ["node.role==worker", "node.id!=x", "node.ip==10.0.0.0/8", "=="],
    "Target": ["front", "/data", "relative"],
    "Name": ["web", "key", "default", "a b", ""],
    "Data": ["eA==", "no base64", ""],
    "Protocol": ["tcp", "udp", "sctp", "icmp"],
    "Nameservers": ["1.1.1.1", "nobody"],
    "SpreadDescriptor": ["node.labels.zone", "nothing"],
}
"""Words that lead past the first check."""


def of(schema: Json, name: str = "", depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that fit a schema; now and then ones that don't."""
    schema = resolved(schema)
    fitting = _fitting(schema, name, depth)
    return st.integers(0, 20).flatmap(lambda dice: values if dice == 20 else fitting)


def _fitting(schema: Json, name: str, depth: int) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "string":
            return st.sampled_from(_WORDS.get(name, ["", "a", "node.labels.a"])) | st.text(max_size=5)
        case "integer":
            return st.integers(0, 10) | st.sampled_from([-1, 1 << 31, 1 << 62, 1 << 63, 1 << 64])
        case "number":
            return st.floats(0, 1) | st.integers()
        case "boolean":
            return st.booleans()
        case "array":
            return st.lists(of(schema.get("items", {}), name, depth + 1), max_size=2)
        case _ if depth > _DEPTH:
            return st.just({})
        case _ if schema.get("properties"):
            fields = {key: of(inner, key, depth + 1) for key, inner in schema["properties"].items()}
            return st.fixed_dictionaries({}, optional=fields)
        case _:
            free = schema.get("additionalProperties")
            inner = of(free, name, depth + 1) if isinstance(free, dict) else scalars
            return st.dictionaries(st.text(max_size=5), inner, max_size=2)


Place = tuple[tuple[str, ...], Json]


def places(schema: Json, path: tuple[str, ...] = ()) -> Iterator[Place]:
    """Every place in a body, with its schema; `[]` is an element of a list."""
    schema = resolved(schema)
    inner = {**schema.get("properties", {}), **({"[]": schema["items"]} if "items" in schema else {})}
    for name, of_it in inner.items():
        yield (*path, name), of_it
        yield from places(of_it, (*path, name))


def put(body: Any, path: tuple[str, ...], value: Any) -> Any:
    """The body with a value at a place; what leads there is made where it isn't."""
    if not path:
        return value
    name, *rest = path
    if name == "[]":
        return [put(body[0] if isinstance(body, list) and body else None, tuple(rest), value)]
    body = body if isinstance(body, dict) else {}
    return {**body, name: put(body.get(name), tuple(rest), value)}


@st.composite
def bodies(draw: st.DrawFn, operation: str) -> Any:
    """Sound bodies of an operation in which up to four places were given other values."""
    parameters = description()["operations"][operation]["parameters"]
    schema = next(each["schema"] for each in parameters if each["in"] == "body")
    body = SOUND[operation.split()[1].split("/")[1]]
    for path, inner in draw(st.lists(st.sampled_from(list(places(schema))), max_size=4)):
        body = put(body, path, draw(of(inner, path[-1])))
    return body


AT_THE_MANAGER = ("/services", "/networks/create", "/secrets", "/configs", "/nodes", "/swarm/update")
OPERATIONS = [
    row.name
    for row in operations()
    if row.name.startswith("POST ") and row.name.split()[1].startswith(AT_THE_MANAGER)
]


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Fuzzed]:
    with asyncio.Runner() as runner:
        api = runner.run(start())
        runner.run(api.ok("POST", "/networks/create", {"Name": "front"}))
        yield Fuzzed(runner, api)
        runner.run(api.client.close())


def the_one(fuzzed: Fuzzed, kind: str) -> str:
    """Something that can be updated."""
    if kind == "nodes":
        return "founder"
    if fuzzed.runner.run(fuzzed.api("GET", f"/{kind}/kept"))[0] == 404:
        fuzzed.runner.run(fuzzed.api.ok("POST", f"/{kind}/create", SOUND[kind]))
    return "kept"


SOUND: dict[str, Json] = {
    "services": {"Name": "kept", "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}}},
    "secrets": {"Name": "kept", "Data": "eA=="},
    "configs": {"Name": "kept", "Data": "eA=="},
    "networks": {"Name": "made"},
    "nodes": {"Role": "manager", "Availability": "active"},
    "swarm": {"Name": "default"},
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_bodies_from_the_description(fuzzed: Fuzzed, operation: str) -> None:
    path = operation.split()[1]
    kind = path.split("/")[1]

    @fuzz(0.4)
    @given(body=bodies(operation), stale=st.sampled_from([False] * 9 + [True]))
    def tried(body: Any, stale: bool) -> None:
        where = path
        if path.endswith("/create") and isinstance(body, dict) and body.get("Name") == "kept":
            body = {**body, "Name": "made"}
        if path.endswith("/update"):
            read = path.removesuffix("/update")
            if "{id}" in path:
                read = read.replace("{id}", the_one(fuzzed, kind))
            where = f"{read}/update?version={1 if stale else fuzzed.version(read)}"
        status, answer = fuzzed("POST", where, body)
        if status < 400 and answer != b"":
            assert undescribed(operation, status, answer) == []
        if status == 201:
            id = answer.get("ID") or answer["Id"]
            found = fuzzed("GET", f"/{kind}/{id}")
            assert undescribed(f"GET /{kind}/{{id}}", *found) == []
            assert fuzzed("DELETE", f"/{kind}/{id}")[0] in (200, 204)

    tried()
