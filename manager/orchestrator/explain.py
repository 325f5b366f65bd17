"""Why a task is where it is, in a sentence for `service ps`: pure, from a view."""

from cluster.objects import Node, Service, Task
from cluster.seams import SECOND
from cluster.states import NodeState, TaskState
from manager.orchestrator.restart import judge
from manager.orchestrator.situation import dirty, misplaced_on
from manager.store import View


class _NoChance:
    """`judge` asks for randomness only to spread delays, which a sentence does not tell."""

    def random(self) -> float:
        return 0.0

    def randrange(self, stop: int, /) -> int:
        return 0

    def getrandbits(self, k: int, /) -> int:
        return 0


def explain(view: View, task: Task, now: int) -> str:
    """What holds the task where it is, or why it was replaced or not; `now` by the wall clock."""
    if task.status.error:
        return task.status.error
    if not task.desired_state.stops:
        return _wanted(view, task, now)
    return _unwanted(view, task)


def _wanted(view: View, task: Task, now: int) -> str:
    state = task.status.state
    if state == TaskState.RUNNING:
        return "running" if task.status.healthy else "running, but its health check fails: it gets no traffic"
    if task.desired_state == TaskState.READY and not state.terminal:
        if task.not_before > now:
            return f"starts in {(task.not_before - now) / SECOND:.1f} s, after the restart delay"
        for other in _siblings(view, task):
            if other.desired_state.stops and not other.status.state.terminal and other.node_id:
                return f"starts when task {other.id} on node {_name(view, other.node_id)} has stopped"
    if state < TaskState.PENDING:
        return "waits for its addresses and ports"
    if state < TaskState.ASSIGNED:
        return task.status.message or "waits for a node"
    return task.status.message or state.word


def _unwanted(view: View, task: Task) -> str:
    service = view.get(Service, task.service_id)
    if service is None:
        return "its service was removed"
    if task.desired_state >= TaskState.REMOVE:
        return "scaled down: no longer needed"
    ids = [other.id for other in _siblings(view, task)]
    newer = ids[ids.index(task.id) + 1 :] if task.id in ids else []
    node = view.get(Node, task.node_id) if task.node_id else None
    if not newer:
        verdict = judge(task, task.updated_at, _NoChance())
        return "waits to be replaced" if verdict.restart else f"not replaced: {verdict.reason}"
    if not task.status.state.terminal and node is not None and node.status.state == NodeState.DOWN:
        return f"replaced by task {newer[0]}: node {_name(view, node.id)} is down"
    if task.status.state in (TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED):
        return f"{task.status.state.word}; replaced by task {newer[0]}"
    if dirty(service, task, node):
        return f"replaced by task {newer[0]} in an update"
    reason = misplaced_on(node, task) if task.node_id else ""
    return f"replaced by task {newer[0]}" + (f": {reason}" if reason else "")


def _siblings(view: View, task: Task) -> list[Task]:
    """All tasks of its slot, itself included, in creation order."""
    return [
        other
        for other in view.tasks_of_service(task.service_id)
        if other.slot == task.slot and (task.slot > 0 or other.node_id == task.node_id)
    ]


def _name(view: View, node_id: str) -> str:
    node = view.get(Node, node_id)
    return node.description.hostname if node is not None and node.description.hostname else node_id
