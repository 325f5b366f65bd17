"""The templates of a task's spec, filled in for one task on one node; see `cluster.template`."""

from cluster import template
from cluster.errors import InvalidArgument
from cluster.objects import NodeDescription, Task
from worker.agent.executor import TaskRejected


class Template:
    """Expands templates for one task on one node."""

    def __init__(self, task: Task, node: NodeDescription) -> None:
        labels = task.service_labels
        self._labels = labels
        self._values = {
            ".Service.ID": task.service_id,
            ".Service.Name": task.service_name,
            ".Service.Labels": "map[" + " ".join(f"{k}:{labels[k]}" for k in sorted(labels)) + "]",
            ".Node.ID": task.node_id,
            ".Node.Hostname": node.hostname,
            ".Node.Platform.OS": node.platform.os,
            ".Node.Platform.Architecture": node.platform.architecture,
            ".Task.ID": task.id,
            ".Task.Name": task.name,
            ".Task.Slot": task.node_id if task.shown_slot is None else str(task.shown_slot),
        }

    def expand(self, text: str) -> str:
        """The text with its templates filled in. Raises TaskRejected for one that is not offered."""
        try:
            return template.expand(text, self._values, self._labels)
        except InvalidArgument as error:
            raise TaskRejected(str(error)) from error
