"""Where tasks go: a pure function of the node table and a group of identical tasks."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cluster.errors import InvalidArgument
from cluster.objects import Task
from cluster.spec import DiscreteResource, GenericResource, NamedResource
from manager.scheduler import constraint, filters
from manager.scheduler.filters import Requirements
from manager.scheduler.nodes import FAULTY, NodeInfo, NodeTable


@dataclass(frozen=True, slots=True)
class Placement:
    """A task goes to a node, and is given these generic resources of it."""

    task: Task
    node_id: str
    generic_resources: tuple[GenericResource, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a group. `explanation` says why `unplaced` are left."""

    placements: tuple[Placement, ...]
    unplaced: tuple[Task, ...] = ()
    explanation: str = ""
    refusals: Mapping[int, int] = field(default_factory=dict)


def decide(table: NodeTable, group: Sequence[Task], now: int) -> Decision:
    """Place tasks of one service and spec version: among the suitable nodes, first as the spread preferences
    say, then where fewest of this service run (a node where it keeps failing comes last), then where fewest
    tasks run at all. `now` is monotonic ns, for how recent failures are. The table is left as it is.
    """
    if not group:
        return Decision(())
    first = group[0]
    try:
        needs = Requirements.of(first, table.drivers, table.encrypted)
    except InvalidArgument as error:
        return Decision((), tuple(group), f"no suitable node ({error})")
    preferences = _spread_keys(first)
    tree = _Branch()
    refusals: Counter[int] = Counter()
    troubles: set[str] = set()
    faulty = 0
    for info in table:
        refused = filters.refusal(info, needs)
        values = [constraint.attribute(info.node, key) or "" for key in preferences]
        if refused is not None:
            refusals[refused] += 1
            if refused == filters.ENCRYPTION:
                troubles.add(filters.unencrypted(info.node))
            tree.count(values, info.active_by_service[first.service_id])
            continue
        failures = info.recent_failures((first.service_id, first.spec_version), now)
        faulty += failures >= FAULTY
        tree.add(values, _Candidate(info, needs, failures if failures >= FAULTY else 0))
    placements: list[Placement] = []
    fitted = f"{len(table) - refusals.total()} of {len(table)} nodes fitted"
    if faulty:
        fitted += f", those where the service's tasks keep failing ({faulty}) come last"
    for task in group:
        candidate = tree.take(refusals)
        if candidate is None:
            unplaced = tuple(group[len(placements) :])
            return Decision(tuple(placements), unplaced, filters.explain(refusals, troubles), refusals)
        reason = f"{fitted}; {_why_there(candidate, preferences)}"
        placements.append(Placement(task, candidate.info.node.id, candidate.claim(), reason))
    return Decision(tuple(placements))


def _why_there(candidate: "_Candidate", preferences: Sequence[str]) -> str:
    """By what the node was chosen among those that fitted, in words."""
    info, others = candidate.info, candidate.service_tasks - 1
    order = "where fewest tasks of the service run comes first"
    if preferences:
        values = (f"{key}={constraint.attribute(info.node, key) or '(not set)'}" for key in preferences)
        order = f"spread over {', '.join(preferences)}, then {order}; this one has {', '.join(values)}"
    return f"{order}; {others} ran here already"


def confirm(table: NodeTable, task: Task) -> Decision:
    """Whether a task that was made for one node (a global service's) can run there."""
    info = table.get(task.node_id)
    if info is None:
        return Decision((), (task,), "no suitable node (the node was removed)")
    try:
        needs = Requirements.of(task, table.drivers, table.encrypted)
    except InvalidArgument as error:
        return Decision((), (task,), f"no suitable node ({error})")
    refused = filters.refusal(info, needs)
    if refused is not None:
        explanation = filters.explain({refused: 1}, (filters.unencrypted(info.node),))
        return Decision((), (task,), explanation, {refused: 1})
    reason = "the service runs one task on each node that may run it"
    return Decision((Placement(task, task.node_id, _Candidate(info, needs, 0).claim(), reason),))


def _spread_keys(task: Task) -> list[str]:
    placement = task.spec.placement
    preferences = (placement.preferences if placement else None) or ()
    return [preference.spread.spread_descriptor for preference in preferences if preference.spread]


class _Candidate:
    """A suitable node, with what this decision has put on it so far."""

    __slots__ = ("_failures", "_names", "_needs", "info", "placed")

    def __init__(self, info: NodeInfo, needs: Requirements, failures: int) -> None:
        self.info = info
        self.placed = 0
        self._needs = needs
        self._failures = failures
        self._names: dict[str, list[str]] = {}

    @property
    def service_tasks(self) -> int:
        """Tasks of the service on the node."""
        return self.info.active_by_service[self._needs.service_id] + self.placed

    @property
    def rank(self) -> tuple[int, int, int, str]:
        """The lower, the better."""
        return self._failures, self.service_tasks, self.info.active + self.placed, self.info.node.id

    def refusal(self) -> int | None:
        """Why it takes no further task of the group."""
        return filters.refusal(self.info, self._needs, self.placed)

    def claim(self) -> tuple[GenericResource, ...]:
        """Take one task's generic resources: by name where the node has names for the kind."""
        claimed: list[GenericResource] = []
        for kind, amount in sorted(self._needs.generic.items()):
            names = self._names.setdefault(kind, self.info.free_names(kind))
            if names:
                asked = [name for name in names if (kind, name) in self._needs.named]
                others = [name for name in names if name not in asked]
                taken, self._names[kind] = (asked + others)[:amount], (asked + others)[amount:]
                claimed += [
                    GenericResource(named_resource_spec=NamedResource(kind=kind, value=name))
                    for name in taken
                ]
            else:
                discrete = DiscreteResource(kind=kind, value=amount)
                claimed.append(GenericResource(discrete_resource_spec=discrete))
        return tuple(claimed)


class _Branch:
    """A node of the preference tree: branches by the values of one label, a heap of nodes at the leaves."""

    def __init__(self) -> None:
        self.tasks = 0
        self._branches: dict[str, _Branch] = {}
        self._heap: list[tuple[tuple[int, int, int, str], _Candidate]] = []

    def count(self, values: Sequence[str], tasks: int) -> None:
        """A node that takes no more tasks still weighs in its branch."""
        self.tasks += tasks
        if values:
            self._branches.setdefault(values[0], _Branch()).count(values[1:], tasks)

    def add(self, values: Sequence[str], candidate: _Candidate) -> None:
        """Put a candidate under its label values."""
        self.tasks += candidate.service_tasks
        if values:
            self._branches.setdefault(values[0], _Branch()).add(values[1:], candidate)
        else:
            heapq.heappush(self._heap, (candidate.rank, candidate))

    def take(self, refusals: Counter[int]) -> _Candidate | None:
        """The node for the next task, from the branch that has fewest; None when none has room. Nodes that
        filled up are taken out and counted in `refusals`."""
        for value, branch in sorted(self._branches.items(), key=lambda item: (item[1].tasks, item[0])):
            candidate = branch.take(refusals)
            if candidate is not None:
                self.tasks += 1
                return candidate
            del self._branches[value]
        while self._heap:
            candidate = self._heap[0][1]
            refused = candidate.refusal() if candidate.placed else None
            if refused is None:
                candidate.placed += 1
                self.tasks += 1
                heapq.heapreplace(self._heap, (candidate.rank, candidate))
                return candidate
            heapq.heappop(self._heap)
            refusals[refused] += 1
        return None
