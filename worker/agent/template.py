"""Templates (see `cluster.template`), filled in for one task on one node."""

from collections.abc import Mapping

from cluster import template
from cluster.objects import NodeDescription, Task
from worker.agent.executor import TaskRejected


class Template:
    """Expands templates for one task on one node."""

    def __init__(self, task: Task, node: NodeDescription) -> None:
        self._fields = template.Fields(
            service_id=task.service_id,
            service_name=task.service_name,
            service_labels=task.service_labels,
            node_id=task.node_id,
            node_hostname=node.hostname,
            os=node.platform.os,
            architecture=node.platform.architecture,
            task_id=task.id,
            task_name=task.name,
            slot=task.node_id if task.shown_slot is None else str(task.shown_slot),
        )

    def expand(self, text: str, functions: Mapping[str, template.Function] | None = None) -> str:
        """The text with its templates filled in. Raises TaskRejected for one that can't be."""
        try:
            return template.expand(text, self._fields, functions)
        except template.TemplateError as error:
            raise TaskRejected(str(error)) from error

    def expand_all(self, texts: Mapping[str, str] | None) -> dict[str, str] | None:
        """The mapping with the templates in its values filled in."""
        return None if texts is None else {key: self.expand(value) for key, value in texts.items()}
