"""How the command line shows things: tables and JSON on standard output, remarks on standard error."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime

import click

FORMATS = ("table", "json")


def say(sentence: str) -> None:
    """A remark for the person at the terminal; never part of the output proper."""
    click.echo(sentence, err=True)


def print_json(value: object) -> None:
    """A value as JSON, indented."""
    click.echo(json.dumps(value, indent=2))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their contents, three spaces apart, as docker's."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def size(count: int | float) -> str:
    """Bytes for people, in decimal units, as docker's: `12.3MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}TB"


def parse_time(text: str) -> datetime | None:
    """An Engine timestamp (RFC 3339, up to nanoseconds); None for Go's zero time or an empty one."""
    if not text or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*", r"\1", text.replace("Z", "+00:00")))


def ago(then: datetime | None, now: datetime | None = None) -> str:
    """How long ago, in one unit: `5 minutes ago`."""
    if then is None:
        return ""
    seconds = int(((now or datetime.now(UTC)) - then).total_seconds())
    if seconds < 1:
        return "just now"
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= 2 * length or (unit == "second"):
            count = seconds // length
            return f"{count} {unit}{'s' if count != 1 else ''} ago"
    return ""
