"""The checklist of Swarm mode: operations, subcommands, flags, fields of a service; what Shoal makes of each.

The three files beside this one are the truth; docs/compatibility.md is rendered from them. A row is a line:

    "GET /info" = "tests/…/test_x.py::test_y"                            it works, and this test shows it
    "GET /info" = { is = "differently", why = "…", test = "tests/…" }    it works, but not as with Docker
    "GET /info" = { is = "not", why = "…" }                              it doesn't work

Flags that have no row of their own work, and are shown by those tests of tests/playground/clients that say so
(`covers`). In fields.toml a flag of `docker service create` stands for the test that shows it.
"""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from tests.playground.clients.coverage import covered

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
State = Literal["works", "differently", "not"]
UNPROVEN = "no test shows it yet"
"""The reason of a row that may work, which nobody can know."""
COMMAND = "command"
"""The key of the row about a subcommand itself, among those of its flags."""


class Row(NamedTuple):
    """One line of the checklist."""

    kind: Literal["operation", "subcommand", "flag", "field"]
    within: str
    """The subcommand of a flag; otherwise empty."""
    name: str
    state: State
    why: str
    test: str
    """A test's node id; empty for what does not work."""

    @property
    def title(self) -> str:
        """How to call it in a message."""
        return f"{self.within} {self.name}".strip()


def operations() -> list[Row]:
    """Operations of the Engine API that have to do with swarms: `METHOD /path`."""
    return [_row("operation", "", name, value) for name, value in _read("operations.toml").items()]


def commands() -> list[Row]:
    """Subcommands of docker, and their flags."""
    rows = []
    for command, lines in _read("commands.toml").items():
        flags = lines.pop("flags")
        assert isinstance(flags, list), command
        assert lines.keys() <= {COMMAND, *flags}, command
        rows.append(_of_command("subcommand", "", command, lines.get(COMMAND), command, ""))
        rows += [_of_command("flag", command, flag, lines.get(flag), command, flag) for flag in flags]
    return rows


def _of_command(kind: str, within: str, name: str, value: object, command: str, flag: str) -> Row:
    """The clients' own test of a flag goes before another that is named."""
    shown = _covered().get((command.removeprefix("docker "), flag), "")
    if value is None or isinstance(value, str):
        value = shown or value or {"is": "not", "why": UNPROVEN}
    elif isinstance(value, dict) and value["is"] == "differently":
        value = {"test": shown, **value}
    return _row(kind, within, name, value)


@cache
def _covered() -> dict[tuple[str, str], str]:
    return covered()


def fields() -> list[Row]:
    """Leaves of a service's spec, as paths of the Engine's names; `[]` is an element of a list."""
    return [_field(name, value) for name, value in _read("fields.toml").items()]


def _field(name: str, value: object) -> Row:
    """A flag of `docker service create` stands for the test that shows the flag."""
    if isinstance(value, str) and value.startswith("--"):
        value = _covered().get(("service create", value), {"is": "not", "why": UNPROVEN})
    return _row("field", "", name, value)


def all_rows() -> list[Row]:
    """The whole checklist."""
    return [*operations(), *commands(), *fields()]


def share(rows: list[Row], *states: State) -> float:
    """The share of rows in these states, in percent."""
    return 100 * sum(row.state in states for row in rows) / len(rows)


def _read(name: str) -> dict[str, dict[str, object]]:
    return tomllib.loads((HERE / name).read_text())


def _row(kind: str, within: str, name: str, value: object) -> Row:
    given = {"is": "works", "test": value} if isinstance(value, str) else value
    assert isinstance(given, dict), (within, name, value)
    unknown = given.keys() - {"is", "why", "test"}
    assert not unknown, f"{name}: {unknown}"
    return Row(kind, within, name, given["is"], given.get("why", ""), given.get("test", ""))  # type: ignore[arg-type]


# --- the tests that rows name -----------------------------------------------------------------------------


@cache
def tests_in(path: str) -> frozenset[str]:
    """Names of the test functions of a file, `Class::function` for methods; none when there is no file."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    return frozenset(_functions(ast.parse(file.read_text()).body, ""))


def _functions(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{node.name}::")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield prefix + node.name


def exists(test: str) -> bool:
    """Whether a node id (its parameters do not count) is a test's."""
    path, _, name = test.partition("::")
    return name.partition("[")[0] in tests_in(path)


@cache
def source(path: str) -> str:
    """A test file's text."""
    return (ROOT / path).read_text()
