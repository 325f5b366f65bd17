"""Global jobs: one completion on each node that may run it, also on those that join later."""

from cluster.objects import Service
from cluster.states import NodeState, TaskState
from manager.orchestrator.global_ import refusal
from manager.orchestrator.job import completed, present, remove_earlier, still_held, stop_needless
from manager.orchestrator.plan import Create, Desire, Plan
from manager.orchestrator.restart import ENDED_BY_ITSELF, Verdict, replace, supervise
from manager.orchestrator.situation import Situation, Slot, group, misplaced


def is_global_job(service: Service) -> bool:
    """True for jobs that run once on each node."""
    return service.spec.mode.global_job is not None


def reconcile(situation: Situation) -> Plan:
    """What to do so that each eligible node completes one task.

    A task belongs to its node: one whose node is down is waited for, as it may still complete there; one
    that may not stay is stopped, and made anew when the node may run it again.
    """
    plan = Plan()
    remove_earlier(plan, situation)
    held = still_held(situation)
    slots = {slot.node_id: slot for slot in group(present(situation), lambda t: (0, t.node_id)).values()}
    for slot in slots.values():
        if completed(slot):
            stop_needless(plan, slot)
        else:
            _see_through(plan, situation, slot)
    for node_id, node in situation.nodes.items():
        if node_id in slots:
            continue
        reason = refusal(situation.service, node)
        if reason:
            plan.notes[f"node {node_id}"] = f"no task: {reason}"
            continue
        wait = (0, node_id) in held or situation.holder(0, node_id) is not None
        because = "the node may run it and had none of this execution"
        new = situation.factory.new_task(
            situation.service, situation.now, node_id=node_id, wait=wait, because=because
        )
        plan.do(Create(new))
        plan.notes[f"node {node_id}"] = "a task is created: the node may run it and has none"
    done = sum(completed(slot) for slot in slots.values())
    plan.notes["job"] = f"completed on {done} of {len(slots)} nodes"
    return plan


def _see_through(plan: Plan, situation: Situation, slot: Slot) -> None:
    node = situation.nodes.get(slot.node_id)
    if node is not None and node.status.state == NodeState.DOWN:
        plan.notes[slot.name] = "the node is down: its task is waited for"
        return
    reason = next((why for task in slot.runnable if (why := misplaced(situation, task))), "")
    if reason:
        for task in slot.runnable:
            plan.do(Desire(task, TaskState.SHUTDOWN, reason))
        plan.notes[slot.name] = f"its task stops: {reason}"
    elif slot.runnable or slot.newest.status.state in ENDED_BY_ITSELF:
        plan.merge(supervise(situation, slot))
    elif node is not None and not (refused := refusal(situation.service, node)):
        again = Verdict(True, "the node may run it again")
        replace(plan, situation, slot, slot.newest, again)
    else:
        plan.notes[slot.name] = f"no task: {refused if node else 'the node was removed'}"
