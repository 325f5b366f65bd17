"""Engine events as JSON lines: what `GET /events` streams, made by managers and passed on by node daemons."""

from collections.abc import Mapping
from typing import Any

import msgspec

from cluster.seams import SECOND

LOST = "events-lost"
"""The action of a daemon's event that says that the stream has a gap; the attribute `message` says why."""
INDEX_HEADER = "Shoal-Events-After"
"""On the answer: every change of the cluster's state after this index follows, if the filters let it pass."""
FILTERS = frozenset(
    {
        "config",
        "container",
        "daemon",
        "event",
        "image",
        "label",
        "network",
        "node",
        "plugin",
        "scope",
        "secret",
        "service",
        "type",
        "volume",
    }
)
"""The filters that the Engine API knows for events."""

_encoder = msgspec.json.Encoder()


def event_line(
    kind: str,
    action: str,
    id: str,
    attributes: Mapping[str, str],
    scope: str,
    at: int,
    legacy: Mapping[str, str] | None = None,
) -> bytes:
    """One event as Docker writes it, with its newline. `at` in ns since the epoch; `legacy`: fields that old
    clients read."""
    message: dict[str, Any] = {
        **(legacy or {}),
        "Type": kind,
        "Action": action,
        "Actor": {"ID": id, "Attributes": attributes},
        "scope": scope,
        "time": at // SECOND,
        "timeNano": at,
    }
    return _encoder.encode(message) + b"\n"


def lost_line(node_id: str, why: str, scope: str, at: int) -> bytes:
    """The event that says that others may be missing before it. It passes every filter."""
    return event_line("daemon", LOST, node_id, {"message": why}, scope, at)


def is_lost(line: bytes) -> bool:
    """Whether the line says that events may be missing before it."""
    return line.startswith(b'{"Type":"daemon","Action":"' + LOST.encode() + b'"')
