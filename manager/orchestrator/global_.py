"""Global services: one task on each node that may run it."""

from cluster.objects import Node, Service
from cluster.states import Availability, NodeState, TaskState
from manager.orchestrator.constraint_enforcer import unfit
from manager.orchestrator.plan import Create, Desire, Plan
from manager.orchestrator.restart import ENDED_BY_ITSELF, Verdict, replace, supervise
from manager.orchestrator.situation import Situation, Slot, group, misplaced, task_spec
from manager.orchestrator.update import progress


def is_global(service: Service) -> bool:
    """True for services with one task on each node."""
    return service.spec.mode.global_ is not None


def refusal(service: Service, node: Node) -> str:
    """Why the node gets no task of this global service, or ""."""
    if node.status.state != NodeState.READY:
        return f"node is {node.status.state}"
    if node.spec.availability != Availability.ACTIVE:
        return f"node's availability is {node.spec.availability}"
    return unfit(task_spec(service), node)


def _being_replaced(slot: Slot) -> bool:
    """Whether a task of the slot is on its way, or has come and the one before it is still there."""
    if any(task.status.state.terminal for task in slot.runnable):
        return False
    coming = any(task.status.state < TaskState.RUNNING for task in slot.runnable)
    return len(slot.runnable) > 1 or (coming and len(slot.tasks) > 1)


def reconcile(situation: Situation) -> Plan:
    """What to do so that each eligible node runs one task, as the spec asks.

    A paused node keeps its task as it is: no new one, no update. One that was being replaced when the node
    was paused is seen through, and counts in the update as long as that takes.
    """
    plan = Plan()
    slots = {slot.node_id: slot for slot in group(situation.tasks, lambda task: (0, task.node_id)).values()}
    remaining, seen_through = [], []
    for node_id, slot in slots.items():
        node = situation.nodes.get(node_id)
        reason = "" if node is None else unfit(task_spec(situation.service), node)
        reason = reason or next((why for task in slot.runnable if (why := misplaced(situation, task))), "")
        if reason:
            for task in slot.runnable:
                plan.do(Desire(task, TaskState.SHUTDOWN, reason))
            plan.notes[slot.name] = f"its task stops: {reason}"
        elif node is not None and not refusal(situation.service, node):
            remaining.append(slot)
        elif node is not None and _being_replaced(slot):
            seen_through.append(slot)
    for node_id, node in situation.nodes.items():
        reason = refusal(situation.service, node)
        if reason:
            plan.notes.setdefault(f"node {node_id}", f"no task: {reason}")
        elif node_id not in slots:
            wait = situation.holder(0, node_id) is not None
            because = "the node may run it and had none"
            new = situation.factory.new_task(
                situation.service, situation.now, node_id=node_id, wait=wait, because=because
            )
            plan.do(Create(new))
            plan.notes[f"node {node_id}"] = "a task is created: the node may run it and has none"

    busy = {slot.name for slot in seen_through}
    for slot in seen_through:
        plan.merge(supervise(situation, slot))
    for slot in remaining:
        supervised = Plan()
        if not slot.runnable and slot.newest.status.state not in ENDED_BY_ITSELF:
            again = Verdict(True, "the node may run it again")
            replace(supervised, situation, slot, slot.newest, again)
        else:
            supervised = supervise(situation, slot)
        if supervised.steps:
            busy.add(slot.name)
        plan.merge(supervised)
    plan.merge(progress(situation, remaining, busy))
    return plan
