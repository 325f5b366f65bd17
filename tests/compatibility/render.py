"""`python -m tests.compatibility.render`: write the tables of docs/compatibility.md from the checklist."""

import sys
from collections.abc import Iterable
from itertools import groupby

from tests.compatibility.checklist import ROOT, Row, commands, fields, operations, share
from tests.compatibility.routes import node_app, plain, routes_of

PAGE = ROOT / "docs" / "compatibility.md"
BEGIN = "<!-- from here on rendered by tests/compatibility/render.py: edit the .toml files there -->"
_WORDS = {"works": "works", "differently": "works differently", "not": "no"}


def rendered() -> str:
    """All tables."""
    rows = [*operations(), *commands(), *fields()]
    parts = ["## The checklist", _figures(rows)]
    parts += ["### What does not work", _reasons(row for row in rows if row.state == "not")]
    parts += ["### What works differently", _reasons(row for row in rows if row.state == "differently")]
    parts += ["### Operations", _table(operations(), "operation")]
    parts += ["### Operations beside those of the checklist", _beside()]
    parts += ["### Subcommands and flags of the docker command"]
    for command, group in groupby(commands(), lambda row: row.within or row.name):
        parts += [f"#### `{command}`", _table(list(group), "flag")]
    parts += ["### Fields of a service", _table(fields(), "field")]
    return "\n\n".join(parts) + "\n"


def _beside() -> str:
    listed = {f"{method} {plain(path)}" for method, path in (row.name.split() for row in operations())}
    routes = sorted(routes_of(node_app()) - listed, key=lambda route: route.split()[::-1])
    return "\n".join(f"- `{route.replace('{}', '{id}')}`" for route in routes)


def _figures(rows: list[Row]) -> str:
    lines = ["| what | in all | works | works differently | no |", "|---|---:|---:|---:|---:|"]
    kinds = {"operation": "operations", "subcommand": "subcommands", "flag": "flags", "field": "fields"}
    for kind, title in [*kinds.items(), ("", "**all**")]:
        some = [row for row in rows if kind in ("", row.kind)]
        counts = [sum(row.state == state for row in some) for state in ("works", "differently", "not")]
        lines.append(f"| {title} | {len(some)} | {' | '.join(map(str, counts))} |")
    works = share(rows, "works", "differently")
    return "\n".join(lines) + f"\n\n{works:.1f}% work, each with the test that shows it."


def _reasons(rows: Iterable[Row]) -> str:
    """One line for all rows of a reason."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        by_reason.setdefault(row.why, []).append(f"`{row.title}`")
    return "\n".join(f"- {', '.join(names)}: {why}" for why, names in by_reason.items()) or "Nothing."


def _table(rows: list[Row], title: str) -> str:
    lines = [f"| {title} | | test |", "|---|---|---|"]
    for row in rows:
        name = "the command" if row.kind == "subcommand" else f"`{row.name}`"
        test = f"`{row.test.removeprefix('tests/')}`" if row.test else ""
        lines.append(f"| {name} | {_WORDS[row.state]} | {test} |")
    return "\n".join(lines)


def written_by_hand() -> str:
    """The page's part above the tables."""
    return PAGE.read_text().partition(BEGIN)[0]


def main() -> int:
    """Write the page; print the figures."""
    PAGE.write_text(f"{written_by_hand()}{BEGIN}\n\n{rendered()}")
    print(_figures([*operations(), *commands(), *fields()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
