"""Removing a stack: dependents before what they depend on, then secrets, configs and networks."""

import time
from collections.abc import Callable

from cluster.errors import NotFound, ShoalError
from cluster.states import TaskState
from shoal.cli.client import Engine
from shoal.stack.namespace import Namespace
from shoal.stack.order import stop_order
from shoal.stack.state import Present, name_of

_POLL = 0.2
_STOP_SECONDS = 120.0


def remove(
    engine: Engine,
    namespace: Namespace,
    tell: Callable[[str], None],
    *,
    wait: bool,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Remove everything of the stack. With `wait`, return when the last task has stopped.

    A group of services is waited for before the next, which it depends on, goes. Raises NotFound.
    """
    present = Present.of(engine, namespace)
    if present.empty:
        raise NotFound(f"nothing found in stack: {namespace.name}")
    ids = {namespace.descope(name_of(found)): str(found["ID"]) for found in present.services}
    groups = stop_order(present.depends_on(namespace))
    for number, group in enumerate(groups):
        for name in group:
            _delete(engine, f"/services/{ids[name]}")
            tell(f"service {namespace.scope(name)}: removed")
        if wait or number + 1 < len(groups):
            _wait_until_stopped(engine, [ids[name] for name in group], clock, sleep)
    for kind, objects in (
        ("secret", present.secrets),
        ("config", present.configs),
        ("network", present.networks),
    ):
        for found in objects:
            _delete(engine, f"/{kind}s/{found.get('ID') or found['Id']}")
            tell(f"{kind} {name_of(found)}: removed")


def _delete(engine: Engine, path: str) -> None:
    """Delete what may be gone by now, as old versions of secrets go by themselves."""
    try:
        engine.delete(path)
    except ShoalError as error:
        if error.status != 404:
            raise


def _wait_until_stopped(
    engine: Engine, ids: list[str], clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    deadline = clock() + _STOP_SECONDS
    while clock() < deadline:
        if not _alive(engine, ids):
            return
        sleep(_POLL)
    raise ShoalError(
        f"tasks have not stopped within {_STOP_SECONDS:.0f} s: `shoal node ps` shows where they are"
    )


def _alive(engine: Engine, ids: list[str]) -> bool:
    """Whether a task of one of these services, which are gone, may still run."""
    try:
        tasks = engine.get("/tasks")
    except ShoalError as error:
        if error.status < 500:
            raise
        return True  # as at a change of leader
    ended = {state.word for state in TaskState if state.terminal}
    return any(task.get("ServiceID") in ids and task["Status"]["State"] not in ended for task in tasks)
