"""Replicated jobs: so many completions in all, so many tasks at once.

Each completion has a slot of its own. A slot is done when one of its tasks completed; one whose task failed
is supervised as any service's, until its restart policy allows no more: then it stays failed, and the job
goes on without it. At most `MaxConcurrent` tasks hold a node at any moment, those of an earlier iteration
that are still stopping included.
"""

from cluster.objects import Service
from manager.orchestrator.job import (
    completed,
    earlier,
    present,
    remove_earlier,
    still_held,
    stop_needless,
)
from manager.orchestrator.plan import Create, Plan
from manager.orchestrator.restart import supervise
from manager.orchestrator.situation import Situation, Slot, group, stopped


def is_replicated_job(service: Service) -> bool:
    """True for jobs with a number of completions."""
    return service.spec.mode.replicated_job is not None


def max_concurrent(service: Service) -> int:
    """How many tasks may run at once; 1 when the job does not say."""
    mode = service.spec.mode.replicated_job
    return 1 if mode is None or mode.max_concurrent is None else mode.max_concurrent


def total_completions(service: Service) -> int:
    """How many tasks should complete; as many as may run at once when the job does not say."""
    mode = service.spec.mode.replicated_job
    if mode is None or mode.total_completions is None:
        return max_concurrent(service)
    return mode.total_completions


def reconcile(situation: Situation) -> Plan:
    """What to do so that each slot is done once, a few at a time."""
    plan = Plan()
    remove_earlier(plan, situation)
    total = total_completions(situation.service)
    slots = {slot.number: slot for slot in group(present(situation), lambda t: (t.slot, "")).values()}
    done = failed = 0
    busy = sum(not stopped(situation, task) for task in earlier(situation))
    for _, slot in sorted(slots.items()):
        if completed(slot):
            done += 1
            stop_needless(plan, slot)
            busy += any(not stopped(situation, task) for task in slot.tasks)
            continue
        supervised = supervise(situation, slot)
        plan.merge(supervised)
        if _occupied(situation, slot, supervised):
            busy += 1
        else:
            failed += 1
    held = {number for number, _ in still_held(situation)}
    free = [number for number in range(1, total + 1) if number not in slots]
    room = max(0, max_concurrent(situation.service) - busy)
    for number in sorted(free, key=lambda number: number in held)[:room]:
        because = f"the job needs {total} completions, {max_concurrent(situation.service)} at a time"
        new = situation.factory.new_task(
            situation.service, situation.now, slot=number, wait=number in held, because=because
        )
        plan.do(Create(new))
        plan.notes[f"slot {number}"] = "a task is created"
    plan.notes["job"] = f"{done} of {total} completed" + (f", {failed} failed for good" if failed else "")
    return plan


def _occupied(situation: Situation, slot: Slot, supervised: Plan) -> bool:
    """Whether a task of the slot runs or will, after what was just decided about it."""
    if any(not stopped(situation, task) for task in slot.tasks):
        return True
    if any(not task.status.state.terminal for task in slot.runnable):
        return True
    if supervised.waits:
        return True
    return any(isinstance(change, Create) for step in supervised.steps for change in step)
