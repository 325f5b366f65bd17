"""/tasks: list and inspect."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from aiohttp import web

from cluster.engine_json import task_json
from cluster.errors import InvalidArgument, NotFound
from cluster.objects import Network, Service, Task
from cluster.states import TaskState
from manager.api.encoded import ENCODED, OF_TASKS
from manager.api.filters import Filters, parse_filters
from manager.api.lookup import find_node, find_service, find_task
from manager.api.reads import state
from manager.api.request import answer, encoded_answer
from manager.api.services import up_to_date
from manager.store import View

_FILTERS = frozenset({"desired-state", "id", "label", "name", "node", "service", "_up-to-date", "runtime"})
_DESIRED = {state.word: state for state in TaskState}


async def list_tasks(request: web.Request) -> web.Response:
    """GET /tasks."""
    filters = parse_filters(request, _FILTERS)
    desired = {_DESIRED[word] for word in filters.words("desired-state", _DESIRED)}
    fresh = filters.boolean("_up-to-date")
    view = await state(request)
    encoded = request.app[ENCODED]

    def made() -> bytes:
        tasks: Iterable[Task] = [task for task in _candidates(view, filters) if not _past(view, task)]
        if filters:
            tasks = [task for task in tasks if _listed(view, task, filters, desired, fresh)]
        return encoded.tasks(view, tasks)

    return encoded_answer(encoded.answer(("tasks", request.query.get("filters", "")), view, OF_TASKS, made))


def _past(view: View, task: Task) -> bool:
    """Whether a task has ended, and its service is gone: it is about to be removed.

    `docker stack rm --detach=false` counts the ended, and waits for ever if they vanish meanwhile.
    """
    ended = task.status.state > TaskState.RUNNING
    return ended and bool(task.service_id) and view.get(Service, task.service_id) is None


def _listed(
    view: View, task: Task, filters: Filters, desired: AbstractSet[TaskState], fresh: bool | None
) -> bool:
    return (
        filters.prefix("id", task.id)
        and filters.prefix("name", task.name, task.service_name)
        and filters.labels(task.service_labels)
        and filters.exact("runtime", task.spec.runtime or "container", task.spec.runtime)
        and (not desired or task.desired_state in desired)
        and (fresh is None or up_to_date(view, task) == fresh)
    )


async def inspect_task(request: web.Request) -> web.Response:
    """GET /tasks/{id}."""
    view = await state(request)
    task = find_task(view, request.match_info["id"])
    return answer(task_json(task, lambda id: view.get(Network, id)))


def _candidates(view: View, filters: Filters) -> Iterable[Task]:
    """Tasks of the services and nodes asked for, from the indexes; what doesn't exist has none."""
    nodes = _node_ids(view, filters.get("node")) if "node" in filters else None
    if "service" in filters:
        found = [t for id in _service_ids(view, filters.get("service")) for t in view.tasks_of_service(id)]
        return [task for task in found if nodes is None or task.node_id in nodes]
    if nodes is not None:
        return [task for id in nodes for task in view.tasks_on_node(id)]
    return view.all(Task)


def _service_ids(view: View, values: Iterable[str]) -> list[str]:
    """Of the services meant. One that doesn't exist (any more) is no error, unlike dockerd's: its tasks may
    still be there. Raises InvalidArgument for a prefix of several."""
    ids: dict[str, None] = {}
    for value in values:
        try:
            ids[find_service(view, value).id] = None
        except NotFound:
            ids[value] = None
    return list(ids)


def _node_ids(view: View, values: Iterable[str]) -> list[str]:
    ids: dict[str, None] = {}
    for value in values:
        if not value:
            raise InvalidArgument("invalid filter 'node=': give a node id or hostname")
        try:
            ids[find_node(view, value).id] = None
        except NotFound:
            ids[value] = None
    return list(ids)
