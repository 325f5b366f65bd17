"""One service: how far it is from what its spec asks, why, what its orchestrator does next and when."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from cluster import defaults
from cluster.ids import new_id
from cluster.objects import Node, Service, Task, UpdateStatus
from cluster.states import NodeState, TaskState, UpdateState
from cluster.validate import mode_word
from manager.explain.situation import NoChance, situation_of
from manager.explain.task import TaskExplanation, explain_task
from manager.explain.words import host, many, span
from manager.orchestrator.global_ import is_global
from manager.orchestrator.global_job import is_global_job
from manager.orchestrator.job import completed, is_job, of_iteration, present
from manager.orchestrator.orchestrator import reconcile
from manager.orchestrator.replicated import replicas
from manager.orchestrator.replicated_job import is_replicated_job, max_concurrent, total_completions
from manager.orchestrator.situation import Slot, age, update_paused
from manager.orchestrator.update import UNDER_WAY
from manager.scheduler.why import Nodes
from manager.store import View

_MOST = 20


@dataclass
class ServiceExplanation:
    """Sentences, and the tasks that are not as they should be. `next_at` as in a task's explanation."""

    service: Service
    mode: str
    summary: str
    why: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)
    next_at: int = 0
    advice: list[str] = field(default_factory=list)
    tasks: list[TaskExplanation] = field(default_factory=list)


def explain_service(view: View, service: Service, now: int) -> ServiceExplanation:
    """All that can be said of a service; `now` by the wall clock, in ns."""
    told = ServiceExplanation(service, mode_word(service.spec), _standing(view, service))
    situation = situation_of(view, service, now)
    plan = reconcile(situation)
    if service.endpoint is None:
        told.why.append("its ports and virtual addresses are not allocated yet")
    if service.update_status is not None:
        _update(told, service.update_status, now)
    nobody = f"task {new_id(NoChance())}"
    for subject, note in plan.notes.items():
        words = note.replace(nobody, "a new task")
        if subject == "update" and not update_paused(service):
            told.why.append(f"the update: {words}")
        elif subject.startswith("node ") and (is_global(service) or is_global_job(service)):
            _about_node(told, view, subject.removeprefix("node "), words)
    nodes, tasks = Nodes(view), troubled(view, service)
    told.tasks += [explain_task(view, task, now, nodes) for task in tasks[:_MOST]]
    if (more := len(tasks) - _MOST) > 0:
        told.why.append(f"{many(more, 'more task')} besides those shown are not as they should be")
    told.advice += dict.fromkeys(words for task in told.tasks for words in task.advice)
    told.next_at = plan.wake_at or 0
    updating = service.update_status is not None and service.update_status.state in UNDER_WAY
    if plan.wake_at is not None and updating:
        told.next.append(f"the update's next step is due in {span(plan.wake_at - now)}")
    if is_job(service) and _goes_on(present(situation)):
        told.next.append("when a task completes it counts, and the next one starts if any is left")
    elif not told.tasks and not plan.steps and not updating:
        told.next.append("nothing: it is as its spec asks, until something changes")
    return told


def _goes_on(tasks: Iterable[Task]) -> bool:
    return any(t.status.state == TaskState.RUNNING and not t.desired_state.stops for t in tasks)


def _about_node(told: ServiceExplanation, view: View, node_id: str, words: str) -> None:
    if words.startswith("no task"):
        told.why.append(f"node {host(view, node_id)}: {words}")


def _standing(view: View, service: Service) -> str:
    name = f"service {service.spec.name}"
    tasks = view.tasks_of_service(service.id)
    if is_job(service):
        of_now = [task for task in tasks if of_iteration(service, task)]
        wanted = [task for task in of_now if not task.desired_state.stops]
        running = sum(task.status.state == TaskState.RUNNING for task in wanted)
        done = len({task.slot or task.node_id for task in of_now if task.status.state == TaskState.COMPLETE})
        if is_replicated_job(service):
            total, at_once = total_completions(service), max_concurrent(service)
            return f"{name}: {done} of {total} completed, {running} running, at most {at_once} at a time"
        return f"{name}: completed on {many(done, 'node')}, running on {running}"
    wanted = [task for task in tasks if not task.desired_state.stops]
    running = sum(task.status.state == TaskState.RUNNING for task in wanted)
    serving = sum(task.status.state == TaskState.RUNNING and task.status.healthy for task in wanted)
    sick = f", {running - serving} of them unhealthy" if serving < running else ""
    if is_global(service):
        return f"{name}: {running} of {len(wanted)} tasks run{sick}, one on each node that may run it"
    return f"{name}: {running} of {replicas(service)} replicas run{sick}"


def troubled(view: View, service: Service) -> list[Task]:
    """The newest task of each slot that is not as it should be, slot by slot."""
    slots: dict[tuple[int, str], list[Task]] = {}
    for task in view.tasks_of_service(service.id):
        if task.desired_state < TaskState.REMOVE and (not is_job(service) or of_iteration(service, task)):
            slots.setdefault((task.slot, "" if task.slot else task.node_id), []).append(task)
    found = []
    for (number, node_id), tasks in sorted(slots.items()):
        slot = Slot(number, node_id, tuple(sorted(tasks, key=age)))
        if is_job(service) and completed(slot):
            continue
        newest = slot.newest
        node = view.get(Node, newest.node_id)
        fine = newest.status.state == TaskState.RUNNING and newest.status.healthy
        fine = fine and node is not None and node.status.state == NodeState.READY
        if not fine or newest.desired_state.stops:
            found.append(newest)
    return found


def _update(told: ServiceExplanation, status: UpdateStatus, now: int) -> None:
    spec = told.service.spec
    since = span(now - status.started_at)
    config = defaults.update_config(spec.update_config)
    match status.state:
        case UpdateState.UPDATING:
            told.why.append(f"an update is under way for {since}, {_pace(config.parallelism, config.order)}")
        case UpdateState.ROLLBACK_STARTED:
            config = defaults.update_config(spec.rollback_config)
            pace = _pace(config.parallelism, config.order)
            told.why.append(f"it is being rolled back, {pace}: {status.message}")
        case UpdateState.PAUSED | UpdateState.ROLLBACK_PAUSED:
            told.why.append(status.message)
            told.next.append("tasks that fail are still replaced; no further slot is updated")
            told.advice.append(
                f"Mend it and `docker service update {spec.name}`, which goes on, or "
                f"`docker service rollback {spec.name}`."
            )
        case _:
            told.why.append(f"{status.message} {span(now - status.completed_at)} ago")


def _pace(parallelism: int, order: str) -> str:
    many = f"{parallelism} at a time" if parallelism else "all at once"
    return f"{many}, {'new tasks first' if order == 'start-first' else 'old tasks stop first'}"
