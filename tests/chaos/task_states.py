"""Do tasks only go forward, and reads of them never back?"""

from collections.abc import Iterable
from itertools import pairwise

from cluster.states import TaskState
from tests.chaos.history import TaskSeen


def check(sightings: Iterable[TaskSeen]) -> list[str]:
    """What is wrong, a line for each."""
    problems = []
    by_task: dict[str, list[TaskSeen]] = {}
    for seen in sightings:
        by_task.setdefault(seen.id, []).append(seen)
    for found in by_task.values():
        by_version = sorted(found, key=lambda seen: seen.version)
        for before, after in pairwise(by_version):
            if _rank(after.state) < _rank(before.state) or _rank(after.desired) < _rank(before.desired):
                problems.append(f"a task went back: {before}, then {after}")
            elif before.version == after.version and _told(before) != _told(after):
                problems.append(f"one version of a task was shown in two ways: {before}, {after}")
        problems += _stale(found)
    return problems


def _stale(found: list[TaskSeen]) -> list[str]:
    """Reads that show less than one that was answered before they were asked."""
    problems = []
    newest: TaskSeen | None = None
    answered = sorted(found, key=lambda seen: seen.returned)
    position = 0
    for seen in sorted(found, key=lambda seen: seen.invoked):
        while position < len(answered) and answered[position].returned < seen.invoked:
            if newest is None or answered[position].version > newest.version:
                newest = answered[position]
            position += 1
        if newest is not None and seen.version < newest.version:
            problems.append(f"a read of a task went back: {newest}, then {seen}")
    return problems


def _rank(state: str) -> int:
    return TaskState[state.upper()].value


def _told(seen: TaskSeen) -> tuple[str, str]:
    return seen.state, seen.desired
