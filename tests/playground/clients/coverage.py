"""Which subcommands and flags of the docker command this folder's tests show; known without running them.

`covers` stands above a test, a `Flag` is a row of a table. That a test really uses what it says is checked by
the fixtures in conftest.py; `covered` collects everything for the checklist.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

HERE = Path(__file__).parent
PACKAGE = "tests.playground.clients"
_ATTRIBUTE = "covers"

Test = TypeVar("Test", bound=Callable[..., object])
Claims = frozenset[tuple[str, str]]
"""Subcommand and flag; the flag is empty for the subcommand itself."""


class Flag(NamedTuple):
    """A row of a table: a flag as given, and what shows its effect."""

    flag: str
    value: str
    """Empty for a flag without one; given as `--flag=value`."""
    shows: Callable[..., object]
    """Called with what has been seen; true if the flag had its effect."""

    @property
    def word(self) -> str:
        """The flag as a word of the command."""
        return f"{self.flag}={self.value}" if self.value else self.flag

    def __str__(self) -> str:
        return self.flag


def covers(subcommand: str, *flags: str) -> Callable[[Test], Test]:
    """The test shows the effect of a subcommand ("service create") and of these flags of it."""

    def mark(test: Test) -> Test:
        setattr(test, _ATTRIBUTE, claims(test) | {(subcommand, flag) for flag in ("", *flags)})
        return test

    return mark


def claims(test: object) -> Claims:
    """What a test says that it covers."""
    return getattr(test, _ATTRIBUTE, frozenset())


def used(words: Iterable[str]) -> Claims:
    """The subcommand of a docker command, and the flags it was given."""
    plain = [word for word in words]
    while plain and plain[0].startswith("-"):  # docker's own flags; those given here all have a value
        plain = plain[1:] if "=" in plain[0] else plain[2:]
    subcommand = " ".join(plain[:2])
    flags = {word.partition("=")[0] for word in plain[2:] if word.startswith("--")}
    return frozenset((subcommand, flag) for flag in ("", *flags))


def covered() -> dict[tuple[str, str], str]:
    """Subcommand and flag ("" for the subcommand itself) with the node id of a test that shows it."""
    found: dict[tuple[str, str], str] = {}
    for path, name, test in _tests():
        for claim in sorted(claims(test)):
            found.setdefault(claim, f"{path}::{name}")
    return found


def _tests() -> Iterator[tuple[str, str, Any]]:
    root = HERE.parents[2]
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(f"{PACKAGE}.{path.stem}")
        for name, value in vars(module).items():
            if name.startswith("test_"):
                yield str(path.relative_to(root)), name, value
