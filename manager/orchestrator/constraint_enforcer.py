"""Constraints are checked when a task is placed; this is what notices that they no longer hold.

A label, a role or an address may change under a running task. The task then counts as lost with its node:
the restart supervisor stops it and puts its successor where the constraints hold.
"""

from cluster.errors import InvalidArgument
from cluster.objects import Node, Task
from cluster.spec import TaskSpec
from cluster.states import Availability
from manager.scheduler import constraint


def unfit(spec: TaskSpec, node: Node) -> str:
    """Why the node does not meet the spec's constraints, or ""."""
    expressions = spec.placement.constraints if spec.placement else None
    if not expressions:
        return ""
    try:
        failing = [each for each in constraint.parse(expressions) if not each.matches(node)]
    except InvalidArgument as error:  # refused by the API; no node can meet it
        return str(error)
    return f"it does not satisfy {failing[0]}" if failing else ""


def violation(task: Task, node: Node) -> str:
    """Why the task may not stay on its node, or ""; a paused node keeps its tasks."""
    if node.spec.availability == Availability.PAUSE:
        return ""
    reason = unfit(task.spec, node)
    return f"node {node.description.hostname or node.id} no longer fits: {reason}" if reason else ""
