"""Whether a service is far enough for those that depend on it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.states import TaskState
from shoal.cli.client import Json

_STARTED = (TaskState.STARTING.word, TaskState.RUNNING.word, TaskState.COMPLETE.word)
_STOPPED = ("paused", "rollback_paused", "rollback_completed")
_ENDED = (TaskState.FAILED.word, TaskState.REJECTED.word)


@dataclass(frozen=True)
class Progress:
    """How far a service is: `met` when its condition holds, `hopeless` when it never will, and in words."""

    met: bool
    words: str
    hopeless: bool = False


def progress(condition: str, service: Json, tasks: Iterable[Json]) -> Progress:
    """Where the service stands with its condition.

    Args:
        service: as GET /services?status=true lists it.
        tasks: its tasks that are of its present specification (filter `_up-to-date`).
    """
    update = service.get("UpdateStatus") or {}
    if update.get("State") in _STOPPED:
        return Progress(False, f"its update stopped: {update.get('Message', update['State'])}", hopeless=True)
    newest: dict[tuple[int, str], Json] = {}
    for task in sorted(tasks, key=lambda task: str(task.get("CreatedAt", ""))):
        newest[(int(task.get("Slot") or 0), "" if task.get("Slot") else str(task.get("NodeID")))] = task
    wanted = _wanted(service, len(newest))
    if condition == "service_completed_successfully":
        return _completed(service, newest, wanted)
    good = (TaskState.RUNNING.word, TaskState.COMPLETE.word) if condition == "service_healthy" else _STARTED
    count = sum(task["Status"]["State"] in good for task in newest.values())
    word = "healthy" if condition == "service_healthy" else "started"
    return Progress(count >= wanted, f"{count} of {wanted} {_plural(wanted)} {word}{_trouble(newest)}")


def _completed(service: Json, newest: Mapping[tuple[int, str], Json], wanted: int) -> Progress:
    status = service.get("ServiceStatus") or {}
    states = [str(task["Status"]["State"]) for task in newest.values()]
    count = max(int(status.get("CompletedTasks") or 0), states.count(TaskState.COMPLETE.word))
    words = f"{count} of {wanted} {_plural(wanted)} completed{_trouble(newest)}"
    given_up = any(
        task["Status"]["State"] in _ENDED and task.get("DesiredState") not in ("ready", "running", "complete")
        for task in newest.values()
    )
    condition = ((service["Spec"]["TaskTemplate"].get("RestartPolicy") or {}).get("Condition")) or "any"
    return Progress(count >= wanted, words, hopeless=given_up and condition == "none")


def _wanted(service: Json, tasks: int) -> int:
    mode = service["Spec"].get("Mode") or {}
    if (job := mode.get("ReplicatedJob")) is not None:
        return int(job.get("TotalCompletions") or job.get("MaxConcurrent") or 1)
    if (replicated := mode.get("Replicated")) is not None:
        replicas = replicated.get("Replicas")
        return 1 if replicas is None else int(replicas)
    return max(tasks, int((service.get("ServiceStatus") or {}).get("DesiredTasks") or 0), 1)


def _trouble(newest: Mapping[tuple[int, str], Json]) -> str:
    errors = [str(task["Status"].get("Err") or "") for task in newest.values()]
    worst = next((error for error in errors if error), "")
    return f" ({worst})" if worst else ""


def _plural(count: int) -> str:
    return "task" if count == 1 else "tasks"
