"""The task reaper: deletes tasks that nobody needs any more.

History: a slot keeps at most so many tasks (5 unless the cluster says otherwise), the running one included.
Tasks to be removed go once they have stopped; tasks that never got to a node go at once; a task whose
service is gone is to be removed. An orphaned task goes when it holds no addresses any more. A completed task
of a job's present iteration stays, as it is what counts; of earlier ones only slots that the job still has
keep a history.
"""

import logging

from cluster.objects import Cluster, Service, Task
from cluster.states import TaskState
from manager.orchestrator.controller import Controller
from manager.orchestrator.job import of_iteration
from manager.orchestrator.node_down import holds_addresses
from manager.orchestrator.plan import Delete, Desire, Plan
from manager.orchestrator.replicated_job import is_replicated_job, total_completions
from manager.orchestrator.situation import Slot, age
from manager.store import Event, View

DEFAULT_HISTORY = 5

log = logging.getLogger("shoal.orchestrator.reaper")


def history_limit(cluster: Cluster | None) -> int:
    """How many tasks a slot keeps; negative: all."""
    orchestration = cluster.spec.orchestration if cluster else None
    limit = orchestration.task_history_retention_limit if orchestration else None
    return DEFAULT_HISTORY if limit is None else limit


def reap(view: View, service_id: str) -> Plan:
    """What to delete of one service's tasks (or of a service that is gone)."""
    plan = Plan()
    service = view.get(Service, service_id)
    limit = history_limit(view.cluster())
    slots: dict[tuple[int, str], list[Task]] = {}
    for task in view.tasks_of_service(service_id):
        leaving = service is None or task.desired_state >= TaskState.REMOVE
        if leaving and _ended(task):
            plan.do(Delete(task))
        elif leaving:
            plan.do(Desire(task, TaskState.REMOVE, "its service was removed"))
        elif _outlived(service, task) or (task.desired_state.stops and _never_assigned(task)):
            plan.do(Delete(task))
        else:
            slots.setdefault((task.slot, "" if task.slot else task.node_id), []).append(task)
    plan.steps = [step for step in plan.steps if not _done(step[0])]
    if limit >= 0:
        for (number, node_id), tasks in slots.items():
            _trim(plan, service, Slot(number, node_id, tuple(sorted(tasks, key=age))), limit)
    return plan


def _done(change: object) -> bool:
    return isinstance(change, Desire) and change.task.desired_state >= change.state


def _ended(task: Task) -> bool:
    """True when the task has stopped, or never started. One whose node is gone for good is orphaned first."""
    return _never_assigned(task) or (task.status.state.terminal and not holds_addresses(task))


def _never_assigned(task: Task) -> bool:
    """No node was told of it, so none will report its end. A global service's task has a node before that."""
    return not task.node_id or task.status.state < TaskState.ASSIGNED


def _outlived(service: Service | None, task: Task) -> bool:
    """An ended task of an earlier execution of a job, in a slot that the job has no more."""
    return (
        service is not None
        and is_replicated_job(service)
        and not of_iteration(service, task)
        and task.slot > total_completions(service)
        and _ended(task)
    )


def _trim(plan: Plan, service: Service | None, slot: Slot, limit: int) -> None:
    surplus = len(slot.tasks) - limit
    for task in slot.tasks[:-1]:  # the newest stays: it tells how the slot ended
        if surplus <= 0:
            return
        past = service is not None and not of_iteration(service, task)
        if _ended(task) and (task.desired_state.stops or past):
            plan.do(Delete(task))
            surplus -= 1


class Reaper(Controller):
    """Reaps after every change that may leave a task needless."""

    name = "reaper"
    watches = (Service, Task, Cluster)

    def subjects(self, view: View) -> set[str]:
        """Every service that has tasks, also those that are gone."""
        return {task.service_id for task in view.all(Task) if task.service_id}

    def touched(self, view: View, event: Event) -> set[str]:
        """The services whose tasks may have become needless."""
        match event.object:
            case Service() as service:
                return {service.id} if event.new is None else set()
            case Task() as task if task.service_id and event.new is not None:
                ended = task.status.state.terminal or task.desired_state.stops
                return {task.service_id} if ended or event.old is None else set()
            case Cluster():
                return self.subjects(view)
        return set()

    def decide(self, view: View, subject: str) -> Plan:
        """Reap one service's tasks."""
        return reap(view, subject)
