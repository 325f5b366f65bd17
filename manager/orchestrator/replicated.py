"""Replicated services: so many slots, each with one task that should run."""

from collections import Counter

from cluster.objects import Service
from cluster.states import TaskState
from manager.orchestrator.plan import Create, Desire, Plan
from manager.orchestrator.restart import supervise
from manager.orchestrator.situation import Situation, Slot, group
from manager.orchestrator.update import progress


def is_replicated(service: Service) -> bool:
    """True for services with a number of replicas, also when no mode is given."""
    mode = service.spec.mode
    return mode.global_ is None and mode.replicated_job is None and mode.global_job is None


def replicas(service: Service) -> int:
    """How many slots the service should have; 1 when it does not say."""
    mode = service.spec.mode.replicated
    return 1 if mode is None or mode.replicas is None else mode.replicas


def reconcile(situation: Situation) -> Plan:
    """What to do so that the service has its replicas, each as its spec asks."""
    plan = Plan()
    wanted = replicas(situation.service)
    slots = {slot.number: slot for slot in group(situation.tasks, lambda task: (task.slot, "")).values()}

    kept = set(slots)
    if len(slots) > wanted:
        kept = {slot.number for slot in _by_worth(list(slots.values()))[:wanted]}
        for number in sorted(set(slots) - kept):
            reason = f"the service was scaled down to {wanted}"
            plan.do(*(Desire(task, TaskState.REMOVE, reason) for task in slots[number].tasks))
            plan.notes[slots[number].name] = f"scaled down to {wanted}: its tasks are removed"
    number = 0
    for _ in range(wanted - len(slots)):
        number += 1
        while number in slots:
            number += 1
        wait = situation.holder(number) is not None
        because = f"the service had {len(slots)} of its {wanted} replicas"
        new = situation.factory.new_task(
            situation.service, situation.now, slot=number, wait=wait, because=because
        )
        plan.do(Create(new))
        plan.notes[f"slot {number}"] = f"scaled up to {wanted}: a task is created"

    remaining = [slots[number] for number in sorted(kept)]
    busy = set()
    for slot in remaining:
        supervised = supervise(situation, slot)
        if supervised.steps:
            busy.add(slot.name)
        plan.merge(supervised)
    plan.merge(progress(situation, remaining, busy))
    return plan


def _by_worth(slots: list[Slot]) -> list[Slot]:
    """Slots, those to keep first: running ones before others, and of these the ones that leave the nodes
    evenly loaded (the n-th task of a node counts as n)."""
    on_node: Counter[str] = Counter()
    worth: dict[int, tuple[bool, int, int]] = {}
    for slot in sorted(slots, key=lambda slot: (not slot.running, slot.number)):
        node = next((task.node_id for task in slot.runnable), "")
        on_node[node] += 1
        worth[slot.number] = (not slot.running, on_node[node], slot.number)
    return sorted(slots, key=lambda slot: worth[slot.number])
