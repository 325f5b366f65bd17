"""The updater: brings a service's dirty slots to its present spec, a few at a time.

Stateless: what is under way is read from the tasks. A slot is under way from its replacement until the new
task runs (or has failed) and the delay after it is over; at most `parallelism` slots are. So with
stop-first at most that many slots are without a running task because of the update, and with start-first at
most that many have two.
"""

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from cluster.objects import Task, UpdateStatus
from cluster.seams import SECOND
from cluster.spec import UpdateConfig
from cluster.states import TaskState, UpdateState
from manager.orchestrator.plan import Change, Create, Desire, Plan, SetUpdateStatus
from manager.orchestrator.situation import Situation, Slot, stopped, update_paused

DEFAULT_MONITOR = 5 * SECOND
_ROUNDING = 1e-6  # 29 of 100 are no more than 0.29
_ROLLING_BACK = {UpdateState.ROLLBACK_STARTED, UpdateState.ROLLBACK_PAUSED, UpdateState.ROLLBACK_COMPLETED}
UNDER_WAY = {UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED}


def config_of(situation: Situation) -> UpdateConfig:
    """The settings in force: the rollback's during one; SwarmKit's defaults when none are given."""
    spec = situation.service.spec
    config = spec.rollback_config if _rolls_back(situation) else spec.update_config
    return config or UpdateConfig(parallelism=1)


def _rolls_back(situation: Situation) -> bool:
    status = situation.service.update_status
    return status is not None and status.state in _ROLLING_BACK


def progress(situation: Situation, slots: Sequence[Slot], busy: Collection[str]) -> Plan:
    """The next step of the service's update.

    `slots` are those that the service should have; `busy` names those where a task is being replaced in
    this same decision: they count as under way.
    """
    plan = Plan()
    service, now = situation.service, situation.now
    status = service.update_status
    todo = [slot for slot in slots if _outdated(situation, slot)]
    if status is not None and update_paused(service):
        if todo:
            plan.notes["update"] = status.message or "the update is paused"
        return plan
    if status is None or status.state not in UNDER_WAY:
        if todo:
            started = UpdateStatus(
                state=UpdateState.UPDATING,
                started_version=situation.version,
                started_at=now,
                message="update in progress",
            )
            plan.do(SetUpdateStatus(service, started))
            plan.notes["update"] = f"update of {len(todo)} of {len(slots)} slots begins"
        return plan

    config = config_of(situation)
    since = status.started_version
    failed = [task for slot in slots if (task := _failure(situation, slot, since, config)) is not None]
    updated = sum(1 for slot in slots if _attempts(situation, slot, since) or slot in todo)
    too_many = bool(failed) and len(failed) / updated > config.max_failure_ratio + _ROUNDING
    if too_many and _give_up(plan, situation, failed):
        return plan

    waits = {slot.name: _under_way(situation, slot, since, config) for slot in slots}
    under_way = {name for name, until in waits.items() if until is None or until > now} | set(busy)
    # An update that replaced another may find slots with two tasks, both outdated: they have their extra
    # task already, so to replace it takes no more room.
    double = {slot.name for slot in slots if len(slot.runnable) > 1}
    under_way |= double
    for until in waits.values():
        if until is not None and until > now:
            plan.wake(until, config.delay)
    room = (config.parallelism or len(slots)) - len(under_way)
    untried = [slot for slot in todo if slot.name not in busy and not _tried(situation, slot)]
    for slot in untried:
        if slot.name in double:
            _replace(plan, situation, slot, config)
    # Slots that serve nobody first: replacing them costs nothing.
    ready = sorted((slot for slot in untried if slot.name not in under_way), key=lambda slot: slot.running)
    for slot in ready[: max(0, room)]:
        _replace(plan, situation, slot, config)
    if todo or under_way:
        plan.notes["update"] = f"{len(slots) - len(todo)} of {len(slots)} slots are up to date"
        return plan
    _complete(plan, situation, slots, config)
    return plan


def _outdated(situation: Situation, slot: Slot) -> bool:
    """True when the slot's tasks (or, if it ended, its last) are not what the spec asks for."""
    tasks = slot.runnable or (slot.newest,)
    return any(situation.dirty(task) for task in tasks)


def _attempts(situation: Situation, slot: Slot, since: int) -> list[Task]:
    """The up-to-date tasks that this update has put into the slot, oldest first."""
    return [task for task in _clean(situation, slot) if task.created_version > since]


def _clean(situation: Situation, slot: Slot) -> list[Task]:
    return [task for task in slot.tasks if not situation.dirty(task)]


def _tried(situation: Situation, slot: Slot) -> bool:
    """True when a new task is in the slot: from there on the restart supervisor looks after it."""
    return any(not task.desired_state.stops for task in _clean(situation, slot))


def _under_way(situation: Situation, slot: Slot, since: int, config: UpdateConfig) -> int | None:
    """Until when the slot counts as under way (ns; 0: it does not); None: until something happens."""
    attempts = _attempts(situation, slot, since)
    if not attempts:
        # An earlier update to the same spec, overtaken by others, may have left its task on the way. (The
        # restart supervisor's tasks count restarts; they hold no update up.)
        newest = slot.newest
        left = len(slot.tasks) > 1 and newest in slot.runnable and not newest.restarts.count
        coming = newest.status.state < TaskState.RUNNING and not situation.dirty(newest)
        return None if left and coming else 0
    first = attempts[0]
    if first.status.state < TaskState.RUNNING and not first.desired_state.stops:
        return None
    began = first.running_at or first.updated_at
    return began + config.delay if config.delay else 0


def _failure(situation: Situation, slot: Slot, since: int, config: UpdateConfig) -> Task | None:
    """A new task of the slot that ended by itself within the monitoring period."""
    monitor = DEFAULT_MONITOR if config.monitor is None else config.monitor
    for task in _attempts(situation, slot, since):
        ended = task.status.state in (TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED)
        if ended and (not task.running_at or task.updated_at - task.running_at <= monitor):
            return task
    return None


def _give_up(plan: Plan, situation: Situation, failed: Sequence[Task]) -> bool:
    """Act on too many failures; False when the policy is to go on."""
    service = situation.service
    status = service.update_status
    assert status is not None
    rolling_back = status.state == UpdateState.ROLLBACK_STARTED
    action = config_of(situation).failure_action or "pause"
    if action == "continue":
        return False
    cause = f"due to failure or early termination of task {failed[0].id}"
    if action == "rollback" and not rolling_back and service.previous_spec is not None:
        message = f"update rolled back {cause}"
        back = UpdateStatus(
            state=UpdateState.ROLLBACK_STARTED,
            started_version=situation.version,
            started_at=status.started_at,
            message=message,
        )
        plan.do(SetUpdateStatus(service, back, rollback_to=service.previous_spec))
    else:
        state = UpdateState.ROLLBACK_PAUSED if rolling_back else UpdateState.PAUSED
        message = f"{'rollback' if rolling_back else 'update'} paused {cause}"
        paused = replace(status, state=state, message=message)
        plan.do(SetUpdateStatus(service, paused))
    plan.notes["update"] = message
    return True


def _replace(plan: Plan, situation: Situation, slot: Slot, config: UpdateConfig) -> None:
    """Put an up-to-date task into a slot."""
    start_first = config.order == "start-first"
    runnable = slot.runnable
    running = [task for task in runnable if task.status.state == TaskState.RUNNING]
    kept = running[-1:] if start_first else []
    idle = not running
    what = "the service was rolled back" if _rolls_back(situation) else "the service was updated"
    stops: list[Change] = [
        Desire(task, TaskState.SHUTDOWN, what, while_idle=idle) for task in runnable if task not in kept
    ]
    held = situation.holder(slot.number, slot.node_id) is not None
    wait = held or (not start_first and not all(stopped(situation, task) for task in slot.tasks))
    new = situation.factory.new_task(
        situation.service,
        situation.now,
        slot=slot.number,
        node_id=slot.node_id,
        wait=wait,
        because=f"it replaces task {slot.newest.id}: {what}",
    )
    plan.do(*stops, Create(new))
    order = "starts before the old one stops" if kept else "starts when the old one has stopped"
    plan.notes[slot.name] = f"updated: task {new.id} {order}"


def _complete(plan: Plan, situation: Situation, slots: Sequence[Slot], config: UpdateConfig) -> None:
    """All slots are up to date: when the last has been watched long enough, say so."""
    service, now = situation.service, situation.now
    status = service.update_status
    assert status is not None
    monitor = DEFAULT_MONITOR if config.monitor is None else config.monitor
    attempts = (_attempts(situation, slot, status.started_version) for slot in slots)
    began = [first.running_at or first.updated_at for first, *_ in filter(None, attempts)]
    until = max(began, default=0) + monitor
    if until > now:
        plan.wake(until, monitor)
        plan.notes["update"] = "all slots are up to date; watching them for the monitoring period"
        return
    rolling_back = status.state == UpdateState.ROLLBACK_STARTED
    state = UpdateState.ROLLBACK_COMPLETED if rolling_back else UpdateState.COMPLETED
    message = "rollback completed" if rolling_back else "update completed"
    done = replace(status, state=state, completed_at=now, message=message)
    plan.do(SetUpdateStatus(service, done))
    plan.notes["update"] = message
