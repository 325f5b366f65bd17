"""Jobs: services whose tasks run to completion, and what both kinds of them have in common.

Each write of a job's spec executes it anew: its iteration rises, and only tasks of the present iteration
count. Tasks of earlier ones that still run are removed; those that ended stay as history.
"""

import msgspec

from cluster.objects import JobStatus, Service, Task
from cluster.states import TaskState
from manager.orchestrator.plan import Desire, Plan
from manager.orchestrator.situation import Situation, Slot, iteration, stopped


def is_job(service: Service) -> bool:
    """True for services that run to completion."""
    return iteration(service) is not None


def executed(service: Service, now: int) -> Service:
    """The service as it is to be written: a job is executed, anew if it was before. `now` in ns."""
    if not is_job(service):
        return service
    before = service.job_status
    status = JobStatus(job_iteration=0 if before is None else before.job_iteration + 1, last_execution=now)
    return msgspec.structs.replace(service, job_status=status)


def of_iteration(service: Service, task: Task) -> bool:
    """Whether the task belongs to the job's present execution."""
    return task.job_iteration == iteration(service)


def present(situation: Situation) -> list[Task]:
    """The tasks of the present iteration."""
    return [task for task in situation.tasks if of_iteration(situation.service, task)]


def earlier(situation: Situation) -> list[Task]:
    """The tasks of earlier iterations."""
    return [task for task in situation.tasks if not of_iteration(situation.service, task)]


def completed(slot: Slot) -> bool:
    """Whether a task of the slot did its work: it is never done again in this iteration."""
    return any(task.status.state == TaskState.COMPLETE for task in slot.tasks)


def still_held(situation: Situation) -> set[tuple[int, str]]:
    """The slots (number, node) in which a task of an earlier iteration has not stopped yet."""
    return {(task.slot, task.node_id) for task in earlier(situation) if not stopped(situation, task)}


def remove_earlier(plan: Plan, situation: Situation) -> None:
    """Stop and remove what still runs for an earlier iteration."""
    for task in earlier(situation):
        if not task.status.state.terminal and task.desired_state < TaskState.REMOVE:
            plan.do(Desire(task, TaskState.REMOVE, "the job was executed anew"))


def stop_needless(plan: Plan, slot: Slot) -> None:
    """Stop what still runs in a slot that is done: a lost node came back and had finished the work."""
    for task in slot.runnable:
        if not task.status.state.terminal:
            plan.do(Desire(task, TaskState.SHUTDOWN, "another task has done its work"))
