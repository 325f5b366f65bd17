"""The restart supervisor: whether and when a task that ended, or lost its node, is replaced.

A task is never restarted; a new one takes its slot. The replacement is made at once with desired state
READY, so that it is placed and its image pulled during the delay, and rises to RUNNING when the delay is
over and its predecessor holds nothing any more. All that this needs is in the tasks, so that a new leader
goes on where the old one stopped.
"""

from dataclasses import dataclass

from cluster.objects import RestartHistory, Task
from cluster.seams import MILLISECOND, SECOND, Random
from cluster.spec import RestartPolicy
from cluster.states import RestartCondition, TaskState
from manager.orchestrator.plan import Create, Desire, Plan
from manager.orchestrator.situation import (
    Situation,
    Slot,
    goal,
    misplaced,
    stopped,
    update_paused,
)

DEFAULT_DELAY = 5 * SECOND
STABLE_AFTER = 30 * SECOND
"""A run this long ends a streak of crashes."""
PATIENCE = 5
"""Crashes in a row that are restarted at the plain delay; later ones wait twice as long each."""
LONGEST_BACKOFF = 60 * SECOND
_REMEMBERED_TIMES = 1000
NO_RESTARTS = RestartHistory()
ENDED_BY_ITSELF = {TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED}


@dataclass(frozen=True)
class Verdict:
    """Whether to replace a task, and why; `delay` in ns."""

    restart: bool
    reason: str
    delay: int = 0
    history: RestartHistory = NO_RESTARTS


def judge(task: Task, now: int, rng: Random, lost: str = "") -> Verdict:
    """Decide about a task that ended by itself, or that was `lost` with its node (and why)."""
    policy = task.spec.restart_policy or RestartPolicy()
    condition = policy.condition or RestartCondition.ANY
    if condition == RestartCondition.NONE:
        return Verdict(False, "its restart condition is none")
    if condition == RestartCondition.ON_FAILURE and task.status.state == TaskState.COMPLETE:
        return Verdict(False, "it completed and its restart condition is on-failure")
    history = task.restarts
    if lost and task.status.state not in ENDED_BY_ITSELF:
        return Verdict(True, lost, 0, history)

    window = policy.window or 0
    limit = policy.max_attempts or 0
    recent = tuple(time for time in history.times if time > now - window) if window else ()
    attempts = len(recent) if window else history.count
    if limit and attempts >= limit:
        within = f" within {window / SECOND:g} s" if window else ""
        return Verdict(False, f"it was restarted {attempts} times{within}, the most its policy allows")

    lasted = task.updated_at - task.running_at if task.running_at else 0
    streak = 0 if lasted >= STABLE_AFTER else history.streak + 1
    times = (*recent, now)[-min(limit or 1, _REMEMBERED_TIMES) :] if window else ()
    delay = DEFAULT_DELAY if policy.delay is None else policy.delay
    return Verdict(
        True,
        f"task {task.id} {_ended_how(task)}",
        _with_backoff(delay, streak, rng),
        RestartHistory(count=history.count + 1, streak=streak, times=times),
    )


def _ended_how(task: Task) -> str:
    word = {TaskState.COMPLETE: "completed", TaskState.REJECTED: "was rejected"}.get(
        task.status.state, "failed"
    )
    return f"{word} ({task.status.error})" if task.status.error else word


def _with_backoff(delay: int, streak: int, rng: Random) -> int:
    if streak <= PATIENCE:
        return delay
    doubled = max(delay, 100 * MILLISECOND) << min(streak - PATIENCE, 16)
    backoff = min(doubled, LONGEST_BACKOFF)
    return max(delay, backoff - int(backoff * 0.2 * rng.random()))


def longest_delay(task: Task) -> int:
    """How long a replacement waits, in ns, by the clock that made it; never longer than its policy allows."""
    policy = task.spec.restart_policy
    delay = DEFAULT_DELAY if policy is None or policy.delay is None else policy.delay
    return max(0, min(task.not_before - task.created_at, max(delay, LONGEST_BACKOFF)))


def supervise(situation: Situation, slot: Slot) -> Plan:
    """Replace what ended or lost its node in one slot, and start replacements whose time has come."""
    plan = Plan()
    service, now = situation.service, situation.now
    lost = {task.id: misplaced(situation, task) for task in slot.runnable}
    gone = [task for task in slot.runnable if task.status.state.terminal or lost[task.id]]
    alive = [task for task in slot.runnable if task not in gone]

    if not slot.runnable:
        # The slot ended for good under this spec, or its replacement was lost. A dirty one is the updater's,
        # unless that waits for an operator: a paused update leaves no slot without the task it should have.
        newest = slot.newest
        if not situation.dirty(newest) or update_paused(service):
            # Judged as of when it ended, so that time alone never changes the verdict.
            verdict = judge(newest, newest.updated_at, situation.factory.rng, "it has no successor")
            replace(plan, situation, slot, newest, verdict)
        return plan
    for task in gone:
        if task is slot.newest or (not alive and task is gone[-1]):
            if _ended_early(task, now):
                plan.wake(task.not_before, longest_delay(task))
                seconds = (task.not_before - now) / SECOND
                plan.notes[slot.name] = f"task {task.id} is replaced in {seconds:.1f} s (restart delay)"
                continue
            replace(plan, situation, slot, task, judge(task, now, situation.factory.rng, lost[task.id]))
        else:
            plan.do(Desire(task, TaskState.SHUTDOWN, lost[task.id]))
    for task in alive:
        if task.desired_state < TaskState.RUNNING:
            _start_when_due(plan, situation, slot, task)
    if not gone:
        _retire(plan, situation, slot, alive)
    plan.notes.setdefault(slot.name, _state_note(slot, now))
    return plan


def _ended_early(task: Task, now: int) -> bool:
    """Whether a replacement ended before it was due to run, as one does whose image can't be pulled. The one
    after it waits for that time: else the preparation would be tried over and over, without any delay."""
    return task.not_before > now and task.status.state in ENDED_BY_ITSELF


def replace(plan: Plan, situation: Situation, slot: Slot, task: Task, verdict: Verdict) -> None:
    """Carry out a verdict: stop the task and, if so judged, make its successor."""
    service, now = situation.service, situation.now
    reason = verdict.reason if verdict.restart else f"not replaced: {verdict.reason}"
    stop = (Desire(task, TaskState.SHUTDOWN, reason),) if not task.desired_state.stops else ()
    if not verdict.restart:
        if stop:
            plan.do(*stop)
        plan.notes[slot.name] = f"task {task.id} is not replaced: {verdict.reason}"
        return
    held = situation.holder(slot.number, slot.node_id) is not None
    wait = held or verdict.delay > 0 or not all(stopped(situation, other) for other in slot.tasks)
    new = situation.factory.new_task(
        service,
        now,
        slot=slot.number,
        node_id=slot.node_id,
        wait=wait,
        not_before=now + verdict.delay if verdict.delay else 0,
        restarts=NO_RESTARTS if situation.dirty(task) else verdict.history,
        because=f"it replaces task {task.id}: {verdict.reason}",
    )
    plan.do(*stop, Create(new, replaces=task))
    plan.notes[slot.name] = f"replaced by task {new.id}: {verdict.reason}" + (
        f"; it starts in {verdict.delay / SECOND:.1f} s" if verdict.delay else ""
    )


def _start_when_due(plan: Plan, situation: Situation, slot: Slot, task: Task) -> None:
    if task.not_before > situation.now:
        plan.wake(task.not_before, longest_delay(task))
        seconds = (task.not_before - situation.now) / SECOND
        plan.notes[slot.name] = f"task {task.id} starts in {seconds:.1f} s (restart delay)"
        return
    stopping = [other for other in slot.tasks if other.desired_state.stops and not stopped(situation, other)]
    if holder := situation.holder(slot.number, slot.node_id):
        stopping.append(holder)
    if stopping:
        plan.notes[slot.name] = f"task {task.id} starts when task {stopping[-1].id} has stopped"
        return
    plan.do(Desire(task, goal(situation.service)))
    plan.notes[slot.name] = f"task {task.id} may start"


def _retire(plan: Plan, situation: Situation, slot: Slot, alive: list[Task]) -> None:
    """Stop what a running successor has made needless; of several up-to-date tasks keep one."""
    clean = [task for task in alive if not situation.dirty(task)]
    if not clean:
        return
    keep = max(clean, key=lambda task: (task.status.state, -task.created_version, -task.created_at))
    ready = keep.status.state == TaskState.RUNNING
    for task in alive:
        if task is not keep and (ready or task in clean):
            plan.do(Desire(task, TaskState.SHUTDOWN, f"task {keep.id} has taken its place"))
            plan.notes[slot.name] = f"task {task.id} stops: task {keep.id} has taken its place"


def _state_note(slot: Slot, now: int) -> str:
    task = slot.runnable[-1]
    return f"task {task.id} is {task.status.state.word}" + (
        f": {task.status.error}" if task.status.error else ""
    )
