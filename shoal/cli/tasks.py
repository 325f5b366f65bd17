"""Tables of tasks, for `service ps` and `node ps`."""

from collections.abc import Mapping, Sequence

from shoal.cli.client import Json
from shoal.cli.output import ago, parse_time, print_json, table
from shoal.cli.session import ID_WIDTH, Session

_ERROR_WIDTH = 60
_HEADER = ["ID", "NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR"]


def task_name(task: Json, services: Mapping[str, Json]) -> str:
    """`web.3`, or `web.<node id>` for a task of a global service."""
    service = services.get(task.get("ServiceID", ""))
    name = service["Spec"]["Name"] if service else str(task.get("ServiceID", ""))
    mode = service["Spec"].get("Mode") or {} if service else {}
    first = 0 if "ReplicatedJob" in mode else task.get("NodeID", "")  # a job's slots begin with 0
    return f"{name}.{task.get('Slot') or first}"


def show_tasks(session: Session, filters: Mapping[str, Sequence[str]], form: str, no_trunc: bool) -> None:
    """Print the tasks that match, newest of each slot first, older ones set off below it."""
    tasks = session.engine.get("/tasks", filters=dict(filters))
    if form == "json":
        print_json(tasks)
        return
    services = {service["ID"]: service for service in session.engine.get("/services")}
    by_slot: dict[tuple[str, str], list[Json]] = {}
    for task in sorted(tasks, key=lambda t: str(t["CreatedAt"]), reverse=True):
        slot = int(task.get("Slot") or 0)
        key = (
            task_name(task, services).rpartition(".")[0],
            f"{slot:08}" if slot else str(task.get("NodeID", "")),
        )
        by_slot.setdefault(key, []).append(task)
    rows = []
    for _, slot_tasks in sorted(by_slot.items()):
        for age, task in enumerate(slot_tasks):
            row = _row(session, task, task_name(task, services), no_trunc)
            row[1] = f" \\_ {row[1]}" if age else row[1]
            rows.append(row)
    table(_HEADER, rows)


def _row(session: Session, task: Json, name: str, no_trunc: bool) -> list[str]:
    status = task["Status"]
    image = (task.get("Spec") or {}).get("ContainerSpec", {}).get("Image", "")
    error = status.get("Err") or ""
    if not no_trunc:
        image = image.partition("@")[0]
        error = error if len(error) <= _ERROR_WIDTH else error[: _ERROR_WIDTH - 1] + "…"
    state = f"{status['State'].capitalize()} {ago(parse_time(status.get('Timestamp', '')))}"
    node = session.node_name(task["NodeID"]) if task.get("NodeID") else ""
    identity = task["ID"] if no_trunc else task["ID"][:ID_WIDTH]
    return [
        identity,
        name,
        image,
        node,
        str(task.get("DesiredState", "")).capitalize(),
        state.rstrip(),
        error,
    ]
