"""What clients of a cluster did and saw: the record that the checkers judge."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

Action = Literal["create", "update", "remove", "read"]
Outcome = Literal["ok", "exists", "missing", "sequence", "unknown"]


class Seen(msgspec.Struct, frozen=True):
    """An object as an answer showed it. `token` is a label, which names the write that it is from."""

    id: str
    version: int
    token: str


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One call, about one object. Times are nanoseconds of one monotonic clock."""

    client: str
    kind: str
    name: str
    action: Action
    invoked: int
    returned: int | None
    """None: no answer, or one that leaves open what happened. It may take effect at any later time."""
    outcome: Outcome
    """`exists`, `missing` and `sequence` are refusals: for the name, the object, or the version named."""
    token: str = ""
    """What a create or update writes; used once in a history."""
    id: str = ""
    """The object's id: answered to a create, named by an update, a removal or a read (not by one by name)."""
    base: int = 0
    """The version that an update names."""
    seen: Seen | None = None
    """What a read found; None: nothing."""


class Change(msgspec.Struct, frozen=True):
    """One event of a stream."""

    kind: str
    id: str
    action: str
    name: str
    version: int
    old: int
    """The version before; 0 for a creation."""
    at: int


class Stream(msgspec.Struct):
    """One answer to GET /events, from its beginning to its end."""

    manager: str
    after: int
    """Changes after this index follow."""
    changes: list[Change] = []
    end: Literal["open", "said", "broken", "silent"] = "open"
    """`said`: a line says that events are lost; `broken`: the connection broke; `silent`: as if whole."""


class TaskSeen(msgspec.Struct, frozen=True):
    """A task as a confirmed read showed it. States are the Engine's words."""

    id: str
    version: int
    state: str
    desired: str
    invoked: int
    returned: int


class History(msgspec.Struct):
    """Everything that a run has recorded."""

    seed: str
    operations: list[Operation] = []
    streams: list[Stream] = []
    tasks: list[TaskSeen] = []
    faults: list[str] = []
    problems: list[str] = []
    """Answers that are wrong whatever happened before."""

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_bytes(msgspec.json.encode(self))

    @staticmethod
    def load(path: Path) -> "History":
        """Read what `save` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=History)


def by_object(operations: Iterable[Operation]) -> dict[tuple[str, str], list[Operation]]:
    """The operations on each (kind, name), in the order of their invocations."""
    found: dict[tuple[str, str], list[Operation]] = {}
    for operation in sorted(operations, key=lambda one: one.invoked):
        found.setdefault((operation.kind, operation.name), []).append(operation)
    return found


def described(operation: Operation) -> str:
    """One line for a report."""
    shown = {
        key: value
        for key, value in json.loads(msgspec.json.encode(operation)).items()
        if value not in ("", 0, None) and key not in ("kind", "name", "invoked", "returned")
    }
    end = "…" if operation.returned is None else f"{operation.returned / 1e9:.4f}"
    return f"[{operation.invoked / 1e9:.4f}, {end}] " + " ".join(f"{k}={v}" for k, v in shown.items())
