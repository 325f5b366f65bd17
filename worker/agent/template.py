"""Go templates in env, hostname and mounts: the fields that SwarmKit offers, and no more of the language.

`{{.Service.Name}}`, `{{.Service.ID}}`, `{{.Service.Labels}}`, `{{index .Service.Labels "key"}}`,
`{{.Node.ID}}`, `{{.Node.Hostname}}`, `{{.Node.Platform.OS}}`, `{{.Node.Platform.Architecture}}`,
`{{.Task.ID}}`, `{{.Task.Name}}`, `{{.Task.Slot}}` (the node's id for a global service).
"""

import re

from cluster.objects import NodeDescription, Task
from worker.agent.executor import TaskRejected

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")
_INDEX = re.compile(r'index\s+\.Service\.Labels\s+"([^"]*)"')


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
            ".Task.Slot": str(task.slot) if task.slot else task.node_id,
        }

    def expand(self, text: str) -> str:
        """The text with its templates filled in. Raises TaskRejected for one that is not offered."""
        return _ACTION.sub(self._value, text) if "{{" in text else text

    def _value(self, match: re.Match[str]) -> str:
        action = match[1]
        if action in self._values:
            return self._values[action]
        indexed = _INDEX.fullmatch(action)
        if indexed:
            return self._labels.get(indexed[1], "")
        raise TaskRejected(f"invalid template {match[0]}: use one of {', '.join(self._values)}")
