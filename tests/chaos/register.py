"""The model: what an object of the cluster, known by its name, may do.

A name is free, or held by one object: an id, the token of its last write, and a version that rises with every
write. A writer isn't told the version that its write got, so the model may know only that it is higher than
another one, until a read shows it.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tests.chaos.history import Operation, Seen


class Held(NamedTuple):
    """The object that holds a name."""

    id: str
    """Empty when its creator was not told; the next read shows it."""
    token: str
    version: int
    """0: not known, but higher than `above`."""
    above: int


State = Held | None
"""None: the name is free."""


def steps(state: State, operation: Operation, shared: bool) -> Iterator[State]:
    """The states in which the operation may leave the object, if it happens in `state`; none if it can't.

    Args:
        shared: the cluster's own controllers write objects of this kind, too: the version may rise without
            any client's write, the token stays.
    """
    match operation.action:
        case "create":
            yield from _create(state, operation)
        case "update":
            yield from _update(state, operation, shared)
        case "remove":
            yield from _remove(state, operation)
        case "read":
            yield from _read(state, operation, shared)


def too_late(state: State, operation: Operation) -> bool:
    """Whether an update can't ever happen any more: versions are indexes of the one log, and only rise."""
    if operation.action != "update" or state is None:
        return False
    return operation.base < state.version if state.version else operation.base <= state.above


def _create(state: State, operation: Operation) -> Iterator[State]:
    if operation.outcome == "exists":
        if state is not None:
            yield state
    elif state is None:
        yield Held(operation.id, operation.token, 0, 0)


def _is(state: State, id: str) -> bool:
    return state is not None and (not id or not state.id or state.id == id)


def _update(state: State, operation: Operation, shared: bool) -> Iterator[State]:
    base = operation.base
    if not _is(state, operation.id) or state is None:
        if operation.outcome in ("missing", "sequence"):
            yield state
        return
    if operation.outcome == "missing":
        if not state.id:
            yield state  # it may be another object
    elif operation.outcome == "sequence":
        if not state.version or state.version != base:
            yield state
        elif shared:
            yield state._replace(version=0, above=base)
    elif _may_be_at(state, base, shared):
        yield Held(operation.id, operation.token, 0, base)


def _may_be_at(state: Held, version: int, shared: bool) -> bool:
    if not state.version:
        return version > state.above
    return version == state.version or (shared and version > state.version)


def _remove(state: State, operation: Operation) -> Iterator[State]:
    held = _is(state, operation.id) and state is not None
    if operation.outcome == "missing":
        if not held or (state is not None and not state.id):
            yield state
    elif held:
        yield None


def _read(state: State, operation: Operation, shared: bool) -> Iterator[State]:
    seen: Seen | None = operation.seen
    if seen is None:
        if state is None or (operation.id and state.id != operation.id):
            yield state
    elif (
        state is not None
        and _is(state, seen.id)
        and state.token == seen.token
        and _may_be_at(state, seen.version, shared)
    ):
        yield Held(seen.id, seen.token, seen.version, state.above)
