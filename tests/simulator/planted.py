"""Bugs to plant, each by changing the real code at one place: the proof that the simulator would see them."""

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import manager.allocator.claims
import manager.core
import manager.dispatcher.assignments
import manager.orchestrator.plan
import manager.raft.journal
import manager.raft.reads
import manager.raft.replication
import manager.store.events
import manager.store.transaction
import tests.simulator.disk
import worker.agent.agent
import worker.agent.driver
from manager.dispatcher.withdrawals import Withdrawals

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
_replication = manager.raft.replication.Replication
_journal = manager.raft.journal.Journal
_transaction = manager.store.transaction

PLANTS: dict[str, Callable[[], list[Patch]]] = {
    "fsync removed": lambda: [(tests.simulator.disk._File, "sync", _sync_nothing)],
    "vote forgotten": lambda: [
        rewritten(_journal, "setCurrentTerm", "self._records.append(self._ballot_record())", "pass")
    ],
    "D1: an unverified tail is committed": lambda: [
        rewritten(
            _replication, "_append", "min(message.commit_index, matched)", "min(message.commit_index, last)"
        )
    ],
    "entries acknowledged before they match": lambda: [
        rewritten(
            _replication,
            "_append",
            "if own_term != message.previous_term:",
            "if False and own_term != message.previous_term:",
        )
    ],
    "version check skipped": lambda: [
        rewritten(_transaction.Transaction, "apply", "elif stored.version != change.base:", "elif False:")
    ],
    "states go back": lambda: [(_transaction, "never_back", lambda stored, new: new)],
    "address freed early": lambda: [
        rewritten(
            manager.allocator.claims,
            "_claims",
            "not obj.status.state.terminal",
            "obj.desired_state <= 512",
        )
    ],
    "withdrawal skipped": lambda: [(Withdrawals, "begin", lambda self, task, now: None)],
    "reads not confirmed": lambda: [(manager.core.Core, "_confirmed", _unconfirmed)],
    "secrets to everyone": lambda: [
        rewritten(
            manager.dispatcher.assignments.Told,
            "next",
            "[secret for id in sorted(used.secrets) if (secret := view.get(Secret, id))]",
            "list(view.all(Secret))",
        )
    ],
    "a watch loses events": lambda: [(manager.store.events.Watch, "publish", _publish_most)],
    "forgotten containers stay": lambda: [(worker.agent.agent.Agent, "_begin_forgotten", lambda agent: None)],
}


async def _unconfirmed(core: Any) -> Any:
    return manager.core.Managers(
        core.known_leader(), frozenset(core.members()), frozenset(core.members()), known=True
    )


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Run with this bug."""
    patches = PLANTS[name]()
    before = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in patches]
    for owner, attribute, value in patches:
        setattr(owner, attribute, value)
    try:
        yield
    finally:
        for owner, attribute, value in before:
            setattr(owner, attribute, value)
