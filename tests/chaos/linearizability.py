"""Is there an order of the operations on one object, each taking effect between its call and its answer?

The search of Wing and Gong ("Testing and verifying concurrent objects", 1993) with Lowe's memory of visited
configurations ("Testing for linearizability", 2017). Objects are checked one by one: a history is
linearizable when it is for each object (Herlihy and Wing, 1990).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.history import Operation, described
from tests.chaos.register import State, steps, too_late

MAX_STEPS = 500_000
SHARED = frozenset({"service", "node"})
"""Kinds that the cluster's controllers write as well."""


@dataclass(frozen=True)
class Verdict:
    """What the search found."""

    fine: bool
    why: str = ""


def check(operations: Sequence[Operation], start: State = None) -> Verdict:
    """Judge the operations on one object, which is as `start` at first."""
    return _Search(operations, start).run()


class _Search:
    def __init__(self, operations: Sequence[Operation], start: State) -> None:
        self._all = sorted(operations, key=lambda one: one.invoked)
        self._shared = bool(self._all) and self._all[0].kind in SHARED
        self._start = start
        self._ends = [one.returned for one in self._all]
        self._best = 0
        self._stuck: tuple[int, State] = (0, start)

    def run(self) -> Verdict:
        """Depth first; a configuration is the set of operations done, as bits, and the state."""
        count = len(self._all)
        must = sum(1 << i for i in range(count) if self._ends[i] is not None)
        stack = [(0, self._start)]
        visited = set(stack)
        for _ in range(MAX_STEPS):
            if not stack:
                return Verdict(False, self._story())
            done, state = self._absorb(*stack.pop())
            if done & must == must:
                return Verdict(True)
            progress = (done & must).bit_count()
            if progress >= self._best:
                self._best, self._stuck = progress, (done, state)
            following = [
                (done | 1 << i, after)
                for i in self._candidates(done)
                for after in steps(state, self._all[i], self._shared)
                if self._ends[i] is not None or after != state
            ]
            for configuration in reversed(following):  # answered operations first
                if configuration not in visited:
                    visited.add(configuration)
                    stack.append(configuration)
        return Verdict(False, f"undecided after {MAX_STEPS} steps: {self._story()}")

    def _candidates(self, done: int) -> list[int]:
        """Operations that may be next: called before the first answer among those that are left. Those that
        answered earliest come first, those without an answer last."""
        found: list[int] = []
        earliest: int | None = None
        for i in range(_first_zero(done), len(self._all)):
            if done >> i & 1:
                continue
            if earliest is not None and self._all[i].invoked > earliest:
                break
            found.append(i)
            end = self._ends[i]
            if end is not None and (earliest is None or end < earliest):
                earliest = end
        found = [i for i in found if earliest is None or self._all[i].invoked <= earliest]
        return sorted(found, key=lambda i: (self._ends[i] is None, self._ends[i] or 0))

    def _absorb(self, done: int, state: State) -> tuple[int, State]:
        """Do at once whatever may be next and changes nothing: later it could not fit better. Unanswered
        updates that come too late for their version count as done."""
        again = True
        while again:
            again = False
            for i in self._candidates(done):
                operation = self._all[i]
                if self._ends[i] is None:
                    idle = too_late(state, operation)
                else:
                    idle = state in steps(state, operation, self._shared)
                if idle:
                    done |= 1 << i
                    again = True
        return done, state

    def _story(self) -> str:
        """Where the search came furthest, and what could not come next."""
        done, state = self._stuck
        earlier = [self._all[i] for i in range(len(self._all)) if done >> i & 1][-6:]
        blocked = [self._all[i] for i in self._candidates(done)]
        lines = ["the last that fit:", *(f"  {described(one)}" for one in earlier)]
        lines += [f"then the object was {state}, and none of these fits:"]
        return "\n".join([*lines, *(f"  {described(one)}" for one in blocked)])


def _first_zero(bits: int) -> int:
    return (~bits & bits + 1).bit_length() - 1
