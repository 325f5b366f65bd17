"""How far a service is on its way to what was asked for, judged from what the Engine API says. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cluster.states import TaskState
from shoal.cli.client import Json

STEPS = ("new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running")
"""The states that a task passes on its way to running."""

_COMPLETE = TaskState.COMPLETE.word
_STOPPED_UPDATES = ("paused", "rollback_paused", "rollback_completed")


@dataclass(frozen=True)
class Slot:
    """The newest task of one slot (or, of a global service, of one node)."""

    name: str
    state: str
    node: str
    error: str

    @property
    def steps(self) -> int:
        """How many of STEPS it has made; none when it has failed."""
        if self.state == _COMPLETE:
            return len(STEPS)
        return STEPS.index(self.state) + 1 if self.state in STEPS else 0


@dataclass(frozen=True)
class Convergence:
    """A service's way at one instant."""

    wanted: int
    running: int
    """How many run or, of a job, have completed."""
    slots: tuple[Slot, ...]
    updating: bool
    stopped: str
    """Why the update or roll-back will go no further, or empty."""
    job: bool = False

    @property
    def done(self) -> bool:
        """True when everything wanted runs and no update is under way."""
        return self.running >= self.wanted and not self.updating and not self.stopped


def combined(states: Mapping[str, Convergence]) -> Convergence:
    """Several services as if they were one; slots are named after their service."""
    stopped = [f"{name}: {state.stopped}" for name, state in states.items() if state.stopped]
    return Convergence(
        wanted=sum(state.wanted for state in states.values()),
        running=sum(min(state.running, state.wanted) for state in states.values()),
        slots=tuple(
            replace(slot, name=f"{name}.{slot.name}")
            for name, state in states.items()
            for slot in state.slots
        ),
        updating=any(state.updating for state in states.values()),
        stopped="; ".join(stopped),
    )


def _slot_key(task: Json) -> tuple[int, str]:
    slot = int(task.get("Slot") or 0)
    return (slot, "" if slot else str(task.get("NodeID", "")))


def _rank(task: Json) -> tuple[bool, str]:
    return (task.get("DesiredState") in ("running", "ready"), str(task.get("CreatedAt", "")))


def measure(
    service: Json, tasks: Iterable[Json], nodes: Mapping[str, Json], *, rollback: bool = False
) -> Convergence:
    """Where the service stands.

    Args:
        service: as GET /services/{id} or, better, GET /services?status=true answers.
        tasks: its tasks that are of its present specification (filter `_up-to-date`).
        nodes: all nodes, by id.
        rollback: a roll-back was asked for, so that a completed one is no failure.
    """
    newest: dict[tuple[int, str], Json] = {}
    latest_error: dict[tuple[int, str], tuple[str, str]] = {}
    for task in tasks:
        key = _slot_key(task)
        if key not in newest or _rank(task) > _rank(newest[key]):
            newest[key] = task
        if message := (task["Status"].get("Err") or ""):
            latest_error[key] = max(
                latest_error.get(key, ("", "")), (str(task.get("CreatedAt", "")), message)
            )
    live = {key: task for key, task in newest.items() if _rank(task)[0] or not _task_retired(task)}
    slots = tuple(
        _slot(key, task, nodes, latest_error.get(key, ("", ""))[1]) for key, task in sorted(live.items())
    )
    job = _is_job(service)
    update = service.get("UpdateStatus") or {}
    state = update.get("State", "")
    stopped = state in _STOPPED_UPDATES and not (rollback and state == "rollback_completed")
    return Convergence(
        wanted=_wanted(service, len(slots)),
        running=sum(slot.state == (_COMPLETE if job else "running") for slot in slots),
        slots=slots,
        updating=state in ("updating", "rollback_started"),
        job=job,
        stopped=f"{state}: {update.get('Message', '')}" if stopped else "",
    )


def _task_retired(task: Json) -> bool:
    return task.get("DesiredState") in ("shutdown", "remove")


def _slot(key: tuple[int, str], task: Json, nodes: Mapping[str, Json], error: str) -> Slot:
    node = nodes.get(str(task.get("NodeID", "")), {})
    hostname = str((node.get("Description") or {}).get("Hostname", ""))
    state = str(task["Status"]["State"])
    if state == TaskState.RUNNING.word and task.get("DesiredState") not in ("running", None):
        state = "shutdown"
    if node and node["Status"]["State"] == "down":
        state, error = "pending", f"node {hostname} is down"
    return Slot(
        str(key[0]) if key[0] else hostname or key[1], state, hostname, "" if state == "running" else error
    )


def _is_job(service: Json) -> bool:
    mode = service["Spec"].get("Mode") or {}
    return "ReplicatedJob" in mode or "GlobalJob" in mode


def _wanted(service: Json, tasks: int) -> int:
    mode = service["Spec"].get("Mode") or {}
    if (job := mode.get("ReplicatedJob")) is not None:
        return int(job.get("TotalCompletions", job.get("MaxConcurrent", 1)))
    replicated = mode.get("Replicated")
    if replicated is not None:
        return int(replicated.get("Replicas", 1))
    status = service.get("ServiceStatus") or {}
    wanted = int(status.get("DesiredTasks", tasks))
    return wanted + int(status.get("CompletedTasks", 0)) if "GlobalJob" in mode else wanted
