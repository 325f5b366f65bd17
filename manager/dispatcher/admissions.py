"""A task that is ready is in every balancer before it counts as running.

Its node reports that it runs; that is held back until each node that has one of its networks has put it into
its balancer (manager.dispatcher.rounds). So whatever waits for a task to run (an update that takes an old one
away, `docker service ps`) finds one that is reached from everywhere. The node's report is acknowledged
meanwhile: should this leader fail, the next one's first assignment shows the task as not yet running, and the
node reports it again.
"""

from collections.abc import Iterable

from cluster.messages import TaskStatusUpdate
from cluster.objects import Task
from cluster.states import TaskState
from manager.dispatcher.rounds import Rounds
from manager.dispatcher.session import Session


class Admissions(Rounds):
    """The admissions under way, each with the report that waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self._reports: dict[str, tuple[Session, TaskStatusUpdate]] = {}

    def hold(self, session: Session, update: TaskStatusUpdate, now: int) -> None:
        """Keep a report until the task is in the balancers; a newer one of a task under way takes its place.
        To be followed by `tell`."""
        if update.task_id not in self._reports:
            self.start(update.task_id, now)
        self._reports[update.task_id] = (session, update)

    def drop(self, task_id: str) -> bool:
        """The task has something newer to say. Returns whether it was under way."""
        self.forget(task_id)
        return self._reports.pop(task_id, None) is not None

    def take(self, task_ids: Iterable[str]) -> Iterable[tuple[Session, list[TaskStatusUpdate]]]:
        """The reports of tasks that wait no more, by the session that brought them."""
        found: dict[str, tuple[Session, list[TaskStatusUpdate]]] = {}
        for task_id in task_ids:
            session, update = self._reports.pop(task_id)
            found.setdefault(session.id, (session, []))[1].append(update)
        return found.values()


def awaits(task: Task | None, update: TaskStatusUpdate) -> bool:
    """Whether the report says for the first time that a task runs, which is to go on."""
    return (
        task is not None
        and update.status.state == TaskState.RUNNING
        and task.status.state < TaskState.RUNNING
        and not task.desired_state.stops
    )
