"""/shoal/services/{id}/explain, /shoal/tasks/{id}/explain: why, in sentences."""

from collections.abc import Iterable

from aiohttp import web

from cluster.engine_json import Json, rfc3339
from cluster.objects import Service, Task
from manager.api.access import ACCESS
from manager.api.lookup import find_service, find_task
from manager.api.reads import state
from manager.api.request import answer
from manager.explain import ServiceExplanation, TaskExplanation, explain_service, explain_task
from manager.explain.words import place, sentence
from manager.orchestrator.situation import age
from manager.store import View


async def service_explanation(request: web.Request) -> web.Response:
    """GET /shoal/services/{id}/explain."""
    view = await state(request)
    service = find_service(view, request.match_info["id"])
    return answer(service_json(explain_service(view, service, request.app[ACCESS].clock.now())))


async def task_explanation(request: web.Request) -> web.Response:
    """GET /shoal/tasks/{id}/explain."""
    view = await state(request)
    task = _task(view, request.match_info["id"])
    return answer(task_json(explain_task(view, task, request.app[ACCESS].clock.now())))


def _task(view: View, what: str) -> Task:
    """The task with this id or name, or the latest one of a slot: `web.3`, `agent.NODE`."""
    name, _, number = what.rpartition(".")
    service = view.by_name(Service, name) if number else None
    tasks = [t for t in view.tasks_of_service(service.id) if place(t) == what] if service is not None else []
    return max(tasks, key=age) if tasks else find_task(view, what)


def service_json(told: ServiceExplanation) -> Json:
    """The explanation of a service."""
    return {
        "ID": told.service.id,
        "Name": told.service.spec.name,
        "Mode": told.mode,
        "Summary": sentence(told.summary),
        "Why": _sentences(told.why),
        "Next": _sentences(told.next),
        "NextAt": rfc3339(told.next_at) if told.next_at else None,
        "Advice": _sentences(told.advice),
        "Tasks": [task_json(task) for task in told.tasks],
    }


def task_json(told: TaskExplanation) -> Json:
    """The explanation of a task."""
    task = told.task
    return {
        "ID": task.id,
        "Name": place(task),
        "ServiceID": task.service_id,
        "State": task.status.state.word,
        "DesiredState": task.desired_state.word,
        "Node": told.node or None,
        "Summary": sentence(told.summary),
        "Why": _sentences(told.why),
        "Placement": _sentences(told.placement),
        "History": _sentences(told.history),
        "Next": _sentences(told.next),
        "NextAt": rfc3339(told.next_at) if told.next_at else None,
        "Advice": _sentences(told.advice),
        "Nodes": [
            {
                "ID": verdict.node_id,
                "Hostname": verdict.hostname,
                "Fits": not verdict.filter,
                "Filter": verdict.filter or None,
                "Reason": sentence(verdict.reason),
            }
            for verdict in told.nodes
        ],
    }


def _sentences(words: Iterable[str]) -> list[str]:
    return [sentence(each) for each in words]
