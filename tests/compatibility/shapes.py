"""What answers look like: against the API's description, and against the answers that a real dockerd gave.

engine-api-1.50.json is the description, names and types only. dockerd-shapes.json was recorded from dockerd
28.2 under docker-py's own tests: for each operation and status how often it was seen, and for each place in
the JSON (`$.Spec.Labels`, `[]` an element, `*` a value of a free map) how often and of which types.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

from tests.compatibility.checklist import HERE

Json = dict[str, Any]

_MAPS = re.compile(
    r"(Labels|Options|Networks|Ports|Sysctls|Containers|IndexConfigs|Runtimes|AuxiliaryAddresses|DriverOpts"
    r"|Endpoint|Data)$"
)
_NOT_AS_DESCRIBED = re.compile(
    r"\.Privileges\.(CredentialSpec|SELinuxContext) is null$"  # pointers that Go always writes
    r"|^\$(\[\])?\.Volumes is not described$"  # of a task: the same
    r"|\.NetworksAttachments\[\]\.Network\.\w+ is not described$"  # SwarmKit's shape, which Traefik reads
)
"""Where dockerd's own answers are not as the description says."""
_TYPES = {
    "string": "str",
    "integer": "int",
    "boolean": "bool",
    "number": "num",
    "array": "arr",
    "object": "obj",
}


@cache
def description() -> Json:
    """The API's description."""
    found: Json = json.loads((HERE / "engine-api-1.50.json").read_text())
    return found


@cache
def recorded() -> Json:
    """What dockerd answered, by operation and status: `GET /tasks 200`."""
    found: Json = json.loads((HERE / "dockerd-shapes.json").read_text())
    return found


def type_of(value: Any) -> str:
    """A JSON value's type in one word."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "int" if value.is_integer() else "num"  # Go writes no decimals then
        case str():
            return "str"
        case list():
            return "arr"
        case _:
            return "obj"


# --- against the description ------------------------------------------------------------------------------


def undescribed(operation: str, status: int, answer: Any) -> list[str]:
    """Where an answer is not as the description says; empty when it is."""
    responses = description()["operations"][operation]["responses"]
    if str(status) not in responses:
        return [f"status {status} is not described"]
    found = _off(answer, responses[str(status)], "$", f"{operation} {status}")
    return [what for what in found if not _NOT_AS_DESCRIBED.search(what)]


def resolved(schema: Json) -> Json:
    """A schema without references."""
    while "$ref" in schema:
        schema = description()["definitions"][schema["$ref"].rsplit("/", 1)[1]]
    if "allOf" in schema:
        merged: Json = {"type": "object", "properties": {}}
        for part in map(resolved, schema["allOf"]):
            merged["properties"] |= part.get("properties", {})
            merged |= {key: value for key, value in part.items() if key not in ("properties", "allOf")}
        return merged
    return schema


def _off(value: Any, schema: Json, path: str, answer: str) -> Iterator[str]:
    schema = resolved(schema)
    if value is None:
        known = recorded().get(answer, {}).get("keys", {}).get(path)
        if not (schema.get("x-nullable") or not schema.get("type") or (known and "null" in known[1])):
            yield f"{path} is null"
        return
    wanted, given = _TYPES.get(schema.get("type", ""), ""), type_of(value)
    if wanted and given != wanted and not (wanted == "num" and given == "int"):
        yield f"{path} is {given}, not {wanted}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{path} is {value!r}, not one of {schema['enum']}"
    elif given == "arr":
        for item in value:
            yield from _off(item, schema.get("items", {}), f"{path}[]", answer)
    elif given == "obj":
        free = schema.get("additionalProperties")
        properties = {name.lower(): of for name, of in schema.get("properties", {}).items()}  # as Go reads
        for key, item in value.items():
            if key.lower() in properties:
                yield from _off(item, properties[key.lower()], f"{path}.{key}", answer)
            elif isinstance(free, dict):
                yield from _off(item, free, f"{path}.*", answer)
            elif (
                properties and not free and f"{path}.{key}" not in recorded().get(answer, {}).get("keys", {})
            ):
                yield f"{path}.{key} is not described"


# --- against dockerd --------------------------------------------------------------------------------------


class Seen:
    """The shapes of several answers to the same operation."""

    def __init__(self) -> None:
        self.types: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, value: Any, path: str = "$") -> None:
        """Take in an answer."""
        kind = type_of(value)
        self.types[path].add(kind)
        if kind == "arr":
            for item in value:
                self.add(item, f"{path}[]")
        elif kind == "obj":
            free = _MAPS.search(path)
            for key, item in value.items():
                self.add(item, f"{path}.*" if free else f"{path}.{key}")

    def unlike_dockerd(self, answer: str) -> list[str]:
        """What dockerd always told in this answer and is missing here; types that it never gave."""
        keys = recorded()[answer]["keys"]
        return [trouble for path in keys if (trouble := self._trouble(path, keys))]

    def _trouble(self, path: str, keys: dict[str, list[Any]]) -> str:
        times, types = keys[path]
        parent = path[:-2] if path.endswith("[]") else path.rpartition(".")[0]
        if path not in self.types:
            always = path.endswith("[]") or not parent or times >= keys[parent][0]
            here = not parent or parent in self.types
            return f"{path} is missing" if always and here else ""
        strange = self.types[path] - set(types.split("|")) - ({"int"} if "num" in types else set())
        return f"{path} is {sorted(strange)}, with dockerd {types}" if strange else ""
