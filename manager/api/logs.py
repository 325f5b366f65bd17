"""/services/{id}/logs and /tasks/{id}/logs: lines from every node, in Docker's multiplexed frames."""

import struct
from urllib.parse import quote_plus

from aiohttp import web

from cluster.engine_json import log_time
from cluster.errors import InvalidArgument, ShoalError
from cluster.messages import LogChunk, LogRequest
from cluster.objects import Task
from manager.api.access import ACCESS
from manager.api.log_follow import follow_service
from manager.api.lookup import find_service, find_task
from manager.api.reads import state
from manager.api.request import api_version, flag, unix_time

_FRAME = struct.Struct(">BxxxL")
_SYSTEM_ERROR = 3  # the stream of an error that comes after the answer has begun


async def service_logs(request: web.Request) -> web.StreamResponse:
    """GET /services/{id}/logs."""
    view = await state(request)
    service = find_service(view, request.match_info["id"])
    tasks = [task for task in view.tasks_of_service(service.id) if task.node_id]
    tty = bool(service.spec.task_template.container_spec and service.spec.task_template.container_spec.tty)
    return await _stream(request, tasks, tty, service.id if flag(request, "follow") else "")


async def task_logs(request: web.Request) -> web.StreamResponse:
    """GET /tasks/{id}/logs."""
    view = await state(request)
    task = find_task(view, request.match_info["id"])
    tty = bool(task.spec.container_spec and task.spec.container_spec.tty)
    return await _stream(request, [task] if task.node_id else [], tty)


async def _stream(
    request: web.Request, tasks: list[Task], raw: bool, followed: str = ""
) -> web.StreamResponse:
    """Answer with the tasks' lines; with those of all tasks of the service `followed`, as they come."""
    query = log_query(request, tuple(task.id for task in tasks))
    by_id = {task.id: task for task in tasks}
    timestamps, details = flag(request, "timestamps"), flag(request, "details")
    multiplexed = api_version(request) >= (1, 42) and not raw
    kind = "multiplexed" if multiplexed else "raw"
    response = web.StreamResponse(headers={"Content-Type": f"application/vnd.docker.{kind}-stream"})
    response.enable_chunked_encoding()
    await response.prepare(request)

    async def write(task: Task, chunk: LogChunk) -> None:
        line = _line(chunk, task, timestamps=timestamps, details=details)
        await response.write(line if raw else _FRAME.pack(chunk.stream, len(line)) + line)

    try:
        if followed:
            await follow_service(request.app[ACCESS], followed, query, write)
        elif tasks:
            async for chunk in request.app[ACCESS].logs(query):
                if (task := by_id.get(chunk.task_id)) is not None:
                    await write(task, chunk)
    except ShoalError as error:
        text = f"Error grabbing logs: {error}\n".encode()  # clients say that it came from the daemon
        await response.write(_FRAME.pack(_SYSTEM_ERROR, len(text)) + text)
    return response


def _line(chunk: LogChunk, task: Task, *, timestamps: bool, details: bool) -> bytes:
    """One line as dockerd writes it: timestamp, then details, then the text."""
    prefix = log_time(chunk.timestamp) + " " if timestamps else ""
    if details:
        attributes = chunk.attributes | {
            "com.docker.swarm.node.id": task.node_id,
            "com.docker.swarm.service.id": task.service_id,
            "com.docker.swarm.task.id": task.id,
        }
        named = (f"{quote_plus(key)}={quote_plus(attributes[key])}" for key in sorted(attributes))
        prefix += ",".join(named) + " "
    return prefix.encode() + chunk.data


def log_query(request: web.Request, task_ids: tuple[str, ...]) -> LogRequest:
    """Which logs the request asks for."""
    stdout, stderr = flag(request, "stdout"), flag(request, "stderr")
    if not stdout and not stderr:
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    tail = request.query.get("tail", "all") or "all"
    if tail != "all" and not (tail.isascii() and tail.isdigit() and len(tail) < 19):
        tail = "all"  # as dockerd: anything else is all
    return LogRequest(
        request=0,  # numbered by the dispatcher
        task_ids=task_ids,
        follow=flag(request, "follow"),
        since=unix_time(request, "since"),
        until=unix_time(request, "until"),
        tail=-1 if tail == "all" else int(tail),
        stdout=stdout,
        stderr=stderr,
        details=flag(request, "details"),
    )
