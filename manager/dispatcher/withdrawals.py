"""A stopping task leaves every balancer before it gets its signal.

While a withdrawal is under way the task's new desired state is held back from its own node.
"""

from collections.abc import Iterable

from cluster.objects import Task
from manager.dispatcher.rounds import Rounds


class Withdrawals(Rounds):
    """The withdrawals under way."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, Task] = {}
        """Tasks to be shown to their nodes as they were."""

    def begin(self, task: Task, now: int) -> None:
        """Hold a task, given as its node knows it. To be followed by `tell`."""
        self.start(task.id, now)
        self.held[task.id] = task

    def inherit(self, task: Task, node_ids: Iterable[str], now: int) -> None:
        """Hold a task, given as its node knew it, whose stop an earlier leader decided: nobody knows which
        of these nodes' balancers have left it out."""
        waiting = tuple(node_ids)
        if waiting:
            self.start(task.id, now, waiting)
            self.held[task.id] = task

    def forget(self, task_id: str) -> None:
        """The task is gone."""
        super().forget(task_id)
        self.held.pop(task_id, None)
