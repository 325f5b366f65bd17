"""docs/compatibility.md and the code agree."""

import os
import re
import subprocess
from functools import cache
from typing import Any, TypeVar

import msgspec
import pytest
from msgspec import inspect

from cluster.engine_json import spec_json
from cluster.spec import ServiceSpec
from shoal.daemon.cluster_api import FORWARDED
from tests.compatibility.checklist import (
    UNPROVEN,
    Row,
    all_rows,
    commands,
    exists,
    fields,
    operations,
    share,
    source,
)
from tests.compatibility.render import BEGIN, PAGE, rendered
from tests.compatibility.routes import manager_app, node_app, plain, routes_of
from tests.support.cluster import docker_cli

T = TypeVar("T", bound=inspect.Type)
BAR = 97.0
"""Percent of the checklist that work, at least."""


def titles(rows: list[Row]) -> list[str]:
    return [row.title for row in rows]


# --- the rows ---------------------------------------------------------------------------------------------


def test_nothing_of_the_checklist_is_left_out() -> None:
    # docker service create has 73 flags and update 92: "--replicas" occurs a second time in their help texts.
    kinds = [row.kind for row in all_rows()]
    counts = {kind: kinds.count(kind) for kind in ("operation", "subcommand", "flag", "field")}
    assert counts == {"operation": 51, "subcommand": 51, "flag": 331, "field": 139}


def test_what_works_names_its_test_and_the_rest_its_reason() -> None:
    assert [row.title for row in all_rows() if row.state not in ("works", "differently", "not")] == []
    assert [row.title for row in all_rows() if row.state != "not" and not row.test] == []
    assert [row.title for row in all_rows() if row.state != "works" and not row.why] == []


def test_every_test_that_is_named_exists() -> None:
    assert [(row.title, row.test) for row in all_rows() if row.test and not exists(row.test)] == []


def test_the_tests_of_flags_use_them() -> None:
    """The flag, long or short, is in the file that is said to test it."""
    missing = []
    for row in commands():
        if row.kind == "flag" and row.state == "works" and exists(row.test):
            words = {row.name, *(f'"{short}"' for short in shorthands(row) if short)}
            if not any(word in source(row.test.partition("::")[0]) for word in words):
                missing.append((row.title, row.test))
    assert missing == []


def test_the_share_that_works() -> None:
    works = share(all_rows(), "works", "differently")
    print(f"{works:.1f}% of the checklist works, {share(all_rows(), 'works'):.1f}% as with Docker")
    assert works >= BAR


def test_the_page_is_rendered_from_the_checklist() -> None:
    _, begin, tables = PAGE.read_text().partition(BEGIN)
    assert begin
    assert tables.strip() == rendered().strip(), "run `python -m tests.compatibility.render`"


# --- operations against the routers -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def served() -> set[str]:
    return routes_of(node_app())


def test_operations_that_work_have_a_route(served: set[str]) -> None:
    for row in operations():
        method, path = row.name.split()
        is_served = f"{method} {plain(path)}" in served
        assert is_served or row.state == "not", f"{row.name} has no route"
        assert not is_served or row.state != "not" or row.why == UNPROVEN, f"{row.name} has a route"


def test_what_shoald_passes_on_has_a_route_at_the_manager() -> None:
    ours = routes_of(manager_app())
    assert [route for method, path in FORWARDED if (route := f"{method} {plain(path)}") not in ours] == []


def test_every_route_about_the_swarm_is_in_the_checklist(served: set[str]) -> None:
    kinds = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/networks", "/volumes")
    listed = {f"{method} {plain(path)}" for method, path in (row.name.split() for row in operations())}
    of_swarm = {route for route in served if route.split()[1].startswith(kinds)}
    head = {route for route in of_swarm if route.startswith("HEAD ")}
    assert of_swarm - head <= listed


# --- subcommands and flags against the docker command -----------------------------------------------------


_FLAG = re.compile(r"^ {2,6}(?:(-\w), )?(--[\w-]+)\b", re.MULTILINE)


@cache
def help_of(command: str) -> dict[str, str]:
    """The flags of a subcommand, each with its shorthand."""
    program = docker_cli()
    if program is None:
        pytest.skip("there is no docker command to compare with")
    # The CLI asks the daemon which flags it has; without one it shows them all.
    environment = {**os.environ, "DOCKER_HOST": "unix:///nowhere.sock"}
    words = [program, *command.split()[1:], "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment, timeout=30)
    return {flag: short for short, flag in _FLAG.findall(done.stdout) if flag != "--help"}


def shorthands(row: Row) -> list[str]:
    if docker_cli() is None:
        return []
    return [help_of(row.within).get(row.name, "")]


@cache
def cli_version() -> tuple[int, ...]:
    program = docker_cli()
    if program is None:
        pytest.skip("there is no docker command to compare with")
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)\.(\d+)", text)
    assert found, text
    return int(found[1]), int(found[2])


def test_subcommands_and_flags_are_those_of_the_docker_command() -> None:
    if cli_version()[0] != 28:
        pytest.skip(f"the checklist is of docker 28, this is {cli_version()}")
    of: dict[str, set[str]] = {row.name: set() for row in commands() if row.kind == "subcommand"}
    for row in commands():
        if row.kind == "flag":
            of[row.within].add(row.name)
    for command, flags in of.items():
        assert flags == set(help_of(command)), command


# --- fields against the decoder ---------------------------------------------------------------------------


def sample(path: str) -> Any:
    """A value of the field's type that is not its default; for a field that the spec lacks, a word."""
    type_ = inspect.type_info(ServiceSpec)
    for part in path.split("."):
        struct = _members(type_, inspect.StructType)
        fields = {field.encode_name: field.type for field in struct.fields} if struct else {}
        type_ = fields.get(part.removesuffix("[]"), inspect.StrType())
        if part.endswith("[]"):
            array = _members(type_, inspect.ListType)
            type_ = array.item_type if array else inspect.StrType()
    return _sample(type_)


def _members(type_: inspect.Type, wanted: type[T]) -> T | None:
    types = type_.types if isinstance(type_, inspect.UnionType) else (type_,)
    return next((each for each in types if isinstance(each, wanted)), None)


def _sample(type_: inspect.Type) -> Any:
    types = type_.types if isinstance(type_, inspect.UnionType) else (type_,)
    match next(each for each in types if not isinstance(each, inspect.NoneType)):
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return 3
        case inspect.FloatType():
            return 0.5
        case inspect.ListType() as array:
            return [_sample(array.item_type)]
        case inspect.DictType() as free:
            return {"a": _sample(free.value_type)}
        case inspect.StructType():
            return {}
        case _:
            return "x"


def with_only(path: str, value: Any) -> Any:
    """JSON in which only this field is given."""
    for part in reversed(path.split(".")):
        value = {part.removesuffix("[]"): [value] if part.endswith("[]") else value}
    return value


def found_at(value: Any, path: str) -> Any:
    """What is at a path; None when nothing is."""
    for part in path.split("."):
        value = value.get(part.removesuffix("[]")) if isinstance(value, dict) else None
        if part.endswith("[]") and value:
            value = value[0]
    return value


@pytest.mark.parametrize("row", fields(), ids=titles(fields()))
def test_fields_that_work_are_kept(row: Row) -> None:
    """What the API takes in comes out again in the same place. What the field does is for the row's test."""
    path = row.name.replace(".HealthCheck.", ".Healthcheck.")  # so the Engine spells it
    given = with_only(path, sample(path))
    try:
        kept = spec_json(msgspec.convert(given, ServiceSpec))
    except msgspec.ValidationError:
        kept = {}
    if row.state == "works":
        assert found_at(kept, path) == sample(path), kept
