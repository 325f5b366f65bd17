"""The verdict on a recorded run, and the figures that belong to it."""

from collections import Counter
from itertools import pairwise

from tests.chaos import linearizability, streams, task_states
from tests.chaos.history import History, Seen, by_object
from tests.chaos.register import Held

Initial = dict[tuple[str, str], Seen]
"""What there was before the first client: the nodes."""


def violations(history: History, initial: Initial, last: int) -> list[str]:
    """Every promise that the run shows broken. `last`: see streams.check."""
    found = list(history.problems)
    for (kind, name), operations in by_object(history.operations).items():
        before = initial.get((kind, name))
        start = None if before is None else Held(before.id, before.token, before.version, 0)
        verdict = linearizability.check(operations, start)
        if not verdict.fine:
            found.append(f"{kind} {name} is not linearizable; {verdict.why}")
    return [
        *found,
        *streams.check(history.streams, history.operations, last),
        *task_states.check(history.tasks),
    ]


def lost_and_duplicated(history: History, final: dict[tuple[str, str], list[Seen]]) -> tuple[int, int]:
    """How many acknowledged creates nobody tried to remove and are not there at the end, and how many objects
    hold a name that another one holds. A plain count beside the checker's verdict.

    Args:
        final: every object at the end, by kind and name.
    """
    lost = 0
    for key, operations in by_object(history.operations).items():
        created = {one.id for one in operations if one.action == "create" and one.outcome == "ok"}
        removed = {one.id for one in operations if one.action == "remove"}
        there = {seen.id for seen in final.get(key, ())}
        lost += len(created - removed - there)
    return lost, sum(len(objects) - 1 for objects in final.values())


def outcomes(history: History) -> Counter[str]:
    """How many operations had which outcome."""
    return Counter(
        f"{one.action} {one.outcome}" if one.action != "read" else "read" for one in history.operations
    )


def longest_gap(history: History) -> str:
    """The longest time in which no write was acknowledged to any client, and what went wrong just before."""
    ends = sorted(
        one.returned
        for one in history.operations
        if one.returned is not None and one.outcome == "ok" and one.action != "read"
    )
    gap, begun = max(((after - before, before) for before, after in pairwise(ends)), default=(0, 0))
    during = [
        fault
        for fault in history.faults
        if begun - 1e9 <= float(fault[1:].partition("]")[0]) * 1e9 <= begun + gap
    ]
    return f"{gap / 1e9:.2f} s" + (f" (after {during[0].partition('] ')[2]})" if during else "")
