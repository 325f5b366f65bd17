"""Tasks of nodes that are gone: orphaned when the node was removed, or was down for a day.

That a down node's tasks are replaced elsewhere is the restart supervisor's work; here only their own end is
written, which nobody else can report. Nobody knows whether their containers still run: so their addresses are
given to others only after a while, in which the node, if it lives, has heard that it was removed.
"""

from cluster.objects import Node, Task
from cluster.seams import SECOND
from cluster.states import NodeState, TaskState
from manager.orchestrator.controller import Controller
from manager.orchestrator.plan import Observe, Plan, Release
from manager.store import Event, View

ORPHANED_AFTER = 24 * 3600 * SECOND
HELD = 30 * SECOND
"""So long an orphaned task keeps its addresses."""


def orphans(view: View, node_id: str, now: int) -> Plan:
    """Which of a node's tasks are orphaned, which give their addresses back, and when to look again."""
    plan = Plan()
    tasks = view.tasks_on_node(node_id)
    for task in tasks:
        if holds_addresses(task):
            until = task.status.timestamp + HELD
            if now < until:
                plan.wake(until, HELD)
            else:
                plan.do(Release(task))
    alive = [task for task in tasks if not task.status.state.terminal]
    node = view.get(Node, node_id)
    if node is None:
        message = "node was removed from the cluster"
    elif node.status.state == NodeState.DOWN:
        if now < node.updated_at + ORPHANED_AFTER:
            plan.wake(node.updated_at + ORPHANED_AFTER, ORPHANED_AFTER)
            return plan
        message = "node was down for 24 hours"
    else:
        return plan
    for task in alive:
        plan.do(Observe(task, TaskState.ORPHANED, now, message))
    if alive:
        plan.notes["tasks"] = f"{len(alive)} orphaned: {message}"
    return plan


def holds_addresses(task: Task) -> bool:
    """Whether the task is orphaned and its container, if it still runs, may be reached at its addresses."""
    return task.status.state == TaskState.ORPHANED and bool(task.networks)


class OrphanKeeper(Controller):
    """Marks the tasks of lost nodes."""

    name = "orphans"
    watches = (Node, Task)

    def subjects(self, view: View) -> set[str]:
        """All nodes, also those that only tasks remember."""
        return {node.id for node in view.all(Node)} | {
            task.node_id for task in view.all(Task) if task.node_id
        }

    def touched(self, view: View, event: Event) -> set[str]:
        """A changed node; the node of a task that was just assigned, or orphaned."""
        match event.object:
            case Node() as node:
                return {node.id}
            case Task() as task if holds_addresses(task):
                return {task.node_id}
            case Task() as task if task.node_id and view.get(Node, task.node_id) is None:
                return {task.node_id}
        return set()

    def decide(self, view: View, subject: str) -> Plan:
        """Orphan one node's tasks if it is time."""
        return orphans(view, subject, self.now(subject))
