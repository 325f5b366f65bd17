"""Bugs to plant, each by changing the real code at one place: the proof that the simulator would see them."""

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import manager.core
import manager.dispatcher.assignments
import manager.dispatcher.term
import manager.orchestrator.node_down
import manager.orchestrator.plan
import manager.orchestrator.replicated_job
import manager.store.events
import manager.store.transaction
import tests.simulator.disk
import worker.agent.agent
from manager.dispatcher.withdrawals import Withdrawals
from tests.simulator.operator import Operator

Patch = tuple[Any, str, Any]


def rewritten(owner: Any, name: str, old: str, new: str) -> Patch:
    """A function with one piece of its source replaced."""
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{name} no longer has {old!r} once"
    scope: dict[str, Any] = {}
    exec(
        compile(source.replace(old, new), function.__code__.co_filename, "exec"), function.__globals__, scope
    )
    return owner, name, scope[name]


def _sync_nothing(file: Any) -> None:
    file._disk.touch("sync", file._path)


def _publish_most(watch: Any, events: Any) -> None:
    watch.seen = getattr(watch, "seen", 0) + 1
    if watch.seen % 20:
        _publish(watch, events)


_publish = manager.store.events.Watch.publish
_transaction = manager.store.transaction


@dataclass(frozen=True)
class Plant:
    """A bug, and what shows it soonest: which kinds of faults, for how many virtual seconds."""

    patches: Callable[[], list[Patch]]
    faults: frozenset[str] = frozenset()
    busy: float = 15.0


CRASHES = frozenset(("power", "power_of_all", "crash_at_write", "kill", "partition"))

PLANTS: dict[str, Plant] = {
    "fsync removed": Plant(lambda: [(tests.simulator.disk._File, "sync", _sync_nothing)], CRASHES, 60.0),
    "version check skipped": Plant(
        lambda: [
            rewritten(
                _transaction.Transaction, "apply", "elif stored.version != change.base:", "elif False:"
            ),
            rewritten(_transaction.Transaction, "_checked", "if stored.version != obj.version:", "if False:"),
        ],
        frozenset(("delay", "slow", "pause")),
        40.0,
    ),
    "withdrawal skipped": Plant(lambda: [(Withdrawals, "begin", lambda self, task, now: None)]),
    "admission skipped": Plant(lambda: [(manager.dispatcher.term, "awaits", lambda task, update: False)]),
    "reads not confirmed": Plant(lambda: [(manager.core.Core, "_confirmed", _unconfirmed)]),
    "secrets to everyone": Plant(
        lambda: [
            rewritten(
                manager.dispatcher.assignments.Told,
                "next",
                "[secret for id in sorted(used.secrets) if (secret := view.get(Secret, id))]",
                "list(view.all(Secret))",
            )
        ]
    ),
    "a watch loses events": Plant(lambda: [(manager.store.events.Watch, "publish", _publish_most)]),
    "addresses freed early": Plant(
        lambda: [
            (manager.orchestrator.node_down, "HELD", 0),
            rewritten(Operator, "_change", "choice = self.rng.random()", "choice = 1.0"),  # nodes are removed
        ],
        busy=60.0,
    ),
    "work is done again": Plant(
        lambda: [
            (manager.orchestrator.replicated_job, "completed", lambda slot: False),
            (manager.orchestrator.plan.Create, "overtaken", lambda self, tx: False),
        ]
    ),
    "forgotten containers stay": Plant(
        lambda: [(worker.agent.agent.Agent, "_begin_forgotten", lambda agent: None)],
        frozenset(("power",)),
        80.0,
    ),
}


async def _unconfirmed(core: Any) -> Any:
    return manager.core.Managers(
        core.known_leader(), frozenset(core.members()), frozenset(core.members()), known=True
    )


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Run with this bug."""
    patches = PLANTS[name].patches()
    before = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in patches]
    for owner, attribute, value in patches:
        setattr(owner, attribute, value)
    try:
        yield
    finally:
        for owner, attribute, value in before:
            setattr(owner, attribute, value)
