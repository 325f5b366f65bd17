"""The cluster's settings as flags of `shoal swarm init`, `update` and `ca`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cluster.errors import InvalidArgument
from shoal.cli.client import Json
from shoal.cli.quantities import duration

_ca = (
    click.option("--cert-expiry", help="How long nodes' certificates last, such as 720h (at least 1h)."),
    click.option(
        "--external-ca",
        multiple=True,
        metavar="protocol=cfssl,url=URL[,cacert=FILE]",
        help="A CA outside the cluster that signs for it; repeatable.",
    ),
)
_others = (
    click.option("--task-history-limit", type=int, help="How many ended tasks a slot keeps."),
    click.option("--dispatcher-heartbeat", help="How often nodes report, such as 5s."),
    click.option("--snapshot-interval", type=click.IntRange(1), help="Log entries between two snapshots."),
    click.option("--max-snapshots", type=click.IntRange(0), help="Former snapshots that managers keep."),
)


def ca_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """What concerns certificates."""
    for option in reversed(_ca):
        command = option(command)
    return command


def settings_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """All settings but autolock."""
    for option in reversed(_others):
        command = option(command)
    return ca_flags(command)


def with_settings(spec: Json, flags: dict[str, Any]) -> Json:
    """The spec with the flags that were given. Raises InvalidArgument."""
    settings = {
        "Orchestration": {"TaskHistoryRetentionLimit": flags.get("task_history_limit")},
        "Dispatcher": {"HeartbeatPeriod": _nanoseconds(flags.get("dispatcher_heartbeat"))},
        "Raft": {
            "SnapshotInterval": flags.get("snapshot_interval"),
            "KeepOldSnapshots": flags.get("max_snapshots"),
        },
        "CAConfig": {
            "NodeCertExpiry": _nanoseconds(flags.get("cert_expiry")),
            "ExternalCAs": [external_ca(text) for text in flags.get("external_ca") or ()] or None,
        },
    }
    result = dict(spec)
    for part, values in settings.items():
        given = {name: value for name, value in values.items() if value is not None}
        if given:
            result[part] = {**(spec.get(part) or {}), **given}
    return result


def external_ca(text: str) -> Json:
    """`protocol=cfssl,url=…,cacert=FILE`, as the API has it; other keys are options.

    Raises:
        InvalidArgument: it is none, or the file can't be read.
    """
    fields: dict[str, str] = {}
    for field in text.split(","):
        key, separator, value = field.partition("=")
        if not separator:
            raise InvalidArgument(f"--external-ca: {field!r} is not KEY=VALUE")
        fields[key.strip().lower()] = value.strip()
    found: Json = {"Protocol": fields.pop("protocol", ""), "URL": fields.pop("url", "")}
    if not found["Protocol"] or not found["URL"]:
        raise InvalidArgument("--external-ca needs protocol=cfssl and url=https://…")
    if file := fields.pop("cacert", ""):
        found["CACert"] = text_of(Path(file))
    if fields:
        found["Options"] = fields
    return found


def text_of(path: Path) -> str:
    """A file's text. Raises InvalidArgument."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"can't read {path}: {error}") from error


def _nanoseconds(text: str | None) -> int | None:
    return None if text is None else duration(text)
