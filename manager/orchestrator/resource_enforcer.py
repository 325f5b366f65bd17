"""Resources are reserved when a task is placed; this is what notices that its node has them no more.

A node may come back with less memory, fewer processors or fewer generic resources than its tasks reserve:
the newest of these stop, and their successors go where there is room. A paused node keeps its tasks, and a
drained one's stop anyway.
"""

from collections.abc import Iterable

from cluster.objects import Node, Task
from cluster.spec import GenericResource
from cluster.states import Availability, TaskState
from manager.orchestrator.controller import Controller
from manager.orchestrator.plan import Desire, Plan
from manager.orchestrator.situation import age
from manager.scheduler.nodes import generic_amounts, reservations
from manager.store import Event, View


def overcommitted(view: View, node: Node) -> list[tuple[Task, str]]:
    """The tasks for which the node has no longer what they reserve, each with the reason."""
    if node.spec.availability != Availability.ACTIVE:
        return []
    offered = node.description.resources
    cpus, memory = offered.nano_cpus, offered.memory_bytes
    generic = _Left(offered.generic_resources or ())
    name = node.description.hostname or node.id
    found = []
    for task in sorted(view.tasks_on_node(node.id), key=age):
        if not TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING or task.desired_state.stops:
            continue
        reserved = reservations(task)
        if reserved.memory_bytes > memory:
            found.append((task, f"node {name} has no longer the memory that it reserves"))
        elif reserved.nano_cpus > cpus:
            found.append((task, f"node {name} has no longer the processors that it reserves"))
        elif not generic.take(task.generic_resources):
            found.append((task, f"node {name} has no longer the generic resources that it was given"))
        else:
            memory -= reserved.memory_bytes
            cpus -= reserved.nano_cpus
    return found


class _Left:
    """What is left of a node's generic resources as tasks take theirs one after the other."""

    def __init__(self, offered: Iterable[GenericResource]) -> None:
        self._names = _names(offered)
        self._amounts = generic_amounts(each for each in offered if each.discrete_resource_spec is not None)

    def take(self, given: Iterable[GenericResource]) -> bool:
        """Take what a task was given; False, and nothing taken, when the node does not have it any more."""
        names = _names(given)
        amounts = generic_amounts(each for each in given if each.discrete_resource_spec is not None)
        if not names <= self._names or any(self._amounts[kind] < n for kind, n in amounts.items()):
            return False
        self._names -= names
        self._amounts.subtract(amounts)
        return True


def _names(resources: Iterable[GenericResource]) -> set[tuple[str, str]]:
    named = (resource.named_resource_spec for resource in resources)
    return {(resource.kind, resource.value) for resource in named if resource is not None}


class ResourceEnforcer(Controller):
    """Stops tasks whose node no longer has what they reserve."""

    name = "resources"
    watches = (Node,)

    def subjects(self, view: View) -> set[str]:
        """All nodes."""
        return {node.id for node in view.all(Node)}

    def touched(self, view: View, event: Event) -> set[str]:
        """A node whose resources changed, or that became active."""
        old, new = event.old, event.new
        if not isinstance(new, Node):
            return set()
        same = (
            isinstance(old, Node)
            and old.description.resources == new.description.resources
            and old.spec.availability == new.spec.availability
        )
        return set() if same else {new.id}

    def decide(self, view: View, subject: str) -> Plan:
        """Stop what one node has no room for any more."""
        plan = Plan()
        node = view.get(Node, subject)
        for task, reason in overcommitted(view, node) if node is not None else ():
            plan.do(Desire(task, TaskState.SHUTDOWN, reason))
            plan.notes[task.id] = f"stops: {reason}"
        return plan
