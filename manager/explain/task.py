"""One task: why it waits or ended, why it is on its node, why it was made, what happens next and when."""

from dataclasses import dataclass, field

from msgspec.structs import replace

from cluster import defaults
from cluster.objects import Node, Service, Task, TaskStatus
from cluster.states import NodeState, RestartCondition, TaskState
from manager.explain.situation import NoChance, situation_of
from manager.explain.words import host, many, place, span
from manager.orchestrator.global_job import is_global_job
from manager.orchestrator.restart import PATIENCE, judge
from manager.orchestrator.situation import Situation, age, stopped
from manager.scheduler.why import Nodes, NodeVerdict, advice
from manager.store import View


@dataclass
class TaskExplanation:
    """Sentences. `next_at`: when the next step is due by the wall clock (ns), 0 when no time is set. `nodes`:
    what each node says to a task that waits for one."""

    task: Task
    node: str
    summary: str
    why: list[str] = field(default_factory=list)
    placement: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)
    next_at: int = 0
    advice: list[str] = field(default_factory=list)
    nodes: list[NodeVerdict] = field(default_factory=list)


def explain_task(view: View, task: Task, now: int, nodes: Nodes | None = None) -> TaskExplanation:
    """All that can be said of a task; `now` by the wall clock, in ns. `nodes` are those of the view."""
    service = view.get(Service, task.service_id)
    where = host(view, task.node_id) if task.node_id else ""
    state = task.status.state
    since = f" for {span(now - task.status.timestamp)}" if task.status.timestamp else ""
    at = f" on {where}" if where else ""
    told = TaskExplanation(task, where, f"task {place(task)} is {state.word}{at}{since}")
    if task.created_because:
        told.history.append(f"why it was made: {task.created_because}")
    if count := task.restarts.count:
        streak = task.restarts.streak
        told.history.append(
            f"its slot was restarted {many(count, 'time')} under the present spec"
            + (f", the last {streak} runs ended soon after they began" if streak > 1 else "")
        )
    if task.placed_because and task.node_id:
        told.placement.append(task.placed_because)
    situation = situation_of(view, service, now) if service is not None else None
    if task.desired_state.stops or state.terminal:
        _ended(told, view, situation)
    else:
        _wanted(told, view, situation, now, nodes or Nodes(view))
    return told


# --- tasks that should run --------------------------------------------------------------------------------


def _wanted(told: TaskExplanation, view: View, situation: Situation | None, now: int, nodes: Nodes) -> None:
    task, status = told.task, told.task.status
    node = view.get(Node, task.node_id) if task.node_id else None
    if status.state < TaskState.PENDING:
        told.why.append(f"it waits for its addresses and ports{f': {status.error}' if status.error else ''}")
    elif status.state < TaskState.ASSIGNED:
        _pending(told, nodes)
    elif node is not None and node.status.state != NodeState.READY:
        told.why.append(f"node {told.node} is {node.status.state.value}: nothing is heard of the task")
        told.next.append(
            "it is the node's own part of the job: it is waited for until the node is back or removed"
            if situation is not None and is_global_job(situation.service)
            else "it is replaced elsewhere when the node counts as down, or goes on when it is back"
        )
    elif status.state == TaskState.RUNNING:
        _running(told, situation, now)
    elif task.desired_state < TaskState.RUNNING:
        _waiting(told, view, situation, now)
    elif status.state == TaskState.STARTING:
        told.why.append("its container starts; with a health check it counts as running once that succeeds")
        told.next.append("then it gets its share of connections")
    else:
        told.why.append(f"node {told.node} gets it ready: {status.message or status.state.word}")
        told.next.append("it starts when its image is there and its network is set up")
    if situation is not None and situation.dirty(task):
        told.next.append("it does not run the service's present spec: the update replaces it in its turn")


def _pending(told: TaskExplanation, nodes: Nodes) -> None:
    told.nodes = nodes.verdicts(told.task)
    refusing = [verdict for verdict in told.nodes if verdict.filter]
    if len(refusing) < len(told.nodes):
        fits = next(verdict.hostname for verdict in told.nodes if not verdict.filter)
        told.why.append(f"it is about to be given a node: {fits} fits")
        return
    told.why.append(f"no node takes it, of {many(len(told.nodes), 'node')} that there are")
    told.why += [f"node {verdict.hostname}: {verdict.reason}" for verdict in refusing[:_MOST_NODES]]
    if (more := len(refusing) - _MOST_NODES) > 0:
        told.why.append(f"and {more} more nodes (all of them with --json)")
    told.next.append("it is tried again as soon as a node changes or a task ends")
    told.advice = advice(told.nodes)


_MOST_NODES = 10


def _waiting(told: TaskExplanation, view: View, situation: Situation | None, now: int) -> None:
    task = told.task
    if task.not_before > now:
        delay = span(task.not_before - task.created_at)
        grown = ", longer each time, as its runs end soon" if task.restarts.streak > PATIENCE else ""
        told.why.append(f"it waits for the restart delay ({delay}{grown}), and is made ready meanwhile")
        told.next.append(f"it starts in {span(task.not_before - now)}")
        told.next_at = task.not_before
        return
    for other in _siblings(view, task):
        holds = situation is None or not stopped(situation, other)
        if other.desired_state.stops and not other.status.state.terminal and other.node_id and holds:
            told.why.append(
                f"it waits until task {other.id} on node {host(view, other.node_id)} has stopped: "
                "two tasks of a slot never run at once"
            )
            told.next.append("it starts when that is reported")
            return
    told.why.append("it is ready, and about to be started")


def _running(told: TaskExplanation, situation: Situation | None, now: int) -> None:
    task = told.task
    if task.status.healthy:
        told.why.append("it runs as it should")
    else:
        told.why.append("its health check fails: it gets no connections any more")
        told.next.append("it is stopped and replaced")
        return
    if task.job_iteration is not None:
        told.next.append("when it ends with exit code 0, its completion counts and it is never run again")
    if situation is not None:
        told.next.append(f"if it fails, {_if_it_fails(task, now)}")


def _if_it_fails(task: Task, now: int) -> str:
    """What its restart policy will do, from the very decision that would be made."""
    failed = replace(task, status=TaskStatus(state=TaskState.FAILED), updated_at=now)
    verdict = judge(failed, now, NoChance())
    if not verdict.restart:
        return f"it is not replaced: {verdict.reason}"
    return f"another one takes its place {f'after {span(verdict.delay)}' if verdict.delay else 'at once'}"


# --- tasks that ended or should end -----------------------------------------------------------------------


def _ended(told: TaskExplanation, view: View, situation: Situation | None) -> None:
    task, status = told.task, told.task.status
    if not status.state.terminal:
        told.why.append(f"it should stop: {task.stopped_because or 'its service no longer wants it'}")
        node = view.get(Node, task.node_id) if task.node_id else None
        if node is not None and node.status.state != NodeState.READY:
            told.next.append(
                f"node {told.node} is {node.status.state.value}; it learns of it when it is back"
            )
        else:
            told.next.append("balancers let go of it, then it gets its stop signal and its grace period")
    else:
        told.why += _how_it_ended(task)
    _successor(told, view, situation)
    if status.state in (TaskState.FAILED, TaskState.REJECTED):
        told.advice.append(
            f"`docker service logs {task.id}` shows what it wrote"
            if status.state == TaskState.FAILED
            else "see that the image exists and may be pulled (`docker service update "
            "--with-registry-auth`), and that the node has what the task needs"
        )


def _how_it_ended(task: Task) -> list[str]:
    status = task.status
    container = status.container
    said = []
    match status.state:
        case TaskState.COMPLETE:
            said.append("its container ended by itself with exit code 0")
        case TaskState.FAILED:
            code = f" (exit code {container.exit_code})" if container and container.exit_code else ""
            said.append(f"it failed{code}{_said(status)}")
        case TaskState.REJECTED:
            said.append(f"its node could not run it{_said(status)}")
        case TaskState.ORPHANED:
            said.append(f"nobody knows how it ended{_said(status)}")
        case _:
            said.append(f"it was stopped: {task.stopped_because or status.message}")
    if status.state != TaskState.SHUTDOWN and task.stopped_because and "not replaced" in task.stopped_because:
        said.append(f"it was {task.stopped_because}")
    return said


def _said(status: TaskStatus) -> str:
    words = status.error or status.message
    return f": {words}" if words else ""


def _successor(told: TaskExplanation, view: View, situation: Situation | None) -> None:
    task = told.task
    if situation is None:
        told.next.append("its service was removed: it goes, too")
        return
    if task.desired_state >= TaskState.REMOVE:
        told.next.append("it is removed when it has stopped; nothing takes its place")
        return
    newer = [other for other in _siblings(view, task) if age(other) > age(task)]
    if newer:
        latest = newer[-1]
        where = f" on node {host(view, latest.node_id)}" if latest.node_id else ""
        told.next.append(
            f"task {newer[0].id} took its place"
            + (f"; now it is task {latest.id}" if len(newer) > 1 else "")
            + f", {latest.status.state.word}{where}"
        )
        return
    if task.job_iteration is not None and task.status.state == TaskState.COMPLETE:
        told.next.append("nothing: its completion counts until the job is executed anew")
        return
    verdict = judge(task, task.updated_at, NoChance())
    if verdict.restart and situation is not None and task.not_before > situation.now:
        told.next.append(f"it is replaced in {span(task.not_before - situation.now)} (restart delay)")
        told.next_at = task.not_before
    elif verdict.restart:
        told.next.append("it is about to be replaced")
    else:
        told.next.append(f"it is not replaced: {verdict.reason}")
        policy = defaults.restart_policy(task.spec.restart_policy)
        if policy.condition == RestartCondition.NONE or policy.max_attempts:
            told.advice.append(f"`docker service update --force {task.service_name}` runs it again")


def _siblings(view: View, task: Task) -> list[Task]:
    """All tasks of its slot and, for a job, of its execution, oldest first."""
    found = (
        other
        for other in view.tasks_of_service(task.service_id)
        if other.slot == task.slot
        and (task.slot > 0 or other.node_id == task.node_id)
        and other.job_iteration == task.job_iteration
    )
    return sorted(found, key=age)
