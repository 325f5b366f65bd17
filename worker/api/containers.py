"""`/containers`: list, inspect and logs, of tasks' containers and those that a user runs by hand."""

from contextlib import aclosing
from typing import Any

from aiohttp import web

from cluster.engine_json import log_time
from cluster.errors import InvalidArgument
from cluster.seams import SystemClock
from worker.api import (
    container_attach,
    container_attach_ws,
    container_exec,
    container_files,
    container_lifecycle,
    container_stats,
)
from worker.api.container_filters import KNOWN_FILTERS, Found, matcher
from worker.api.container_json import container_summary, inspect_json
from worker.api.disk_usage import container_sizes
from worker.api.http import add_route, answer, filters, flag, frame, integer
from worker.api.timestamps import parse_timestamp
from worker.containers.containers import Containers
from worker.engine import Engine
from worker.logs.attributes import in_a_line
from worker.logs.reader import LogQuery
from worker.runtime.model import ContainerConfig, ContainerState


def routes(app: web.Application, engine: Engine, containers: Containers) -> None:
    """Add the handlers."""
    container_lifecycle.routes(app, engine, containers)
    container_attach.routes(app, engine, containers)
    container_attach_ws.routes(app, containers)
    container_exec.routes(app, engine, containers)
    container_files.routes(app, engine, containers)
    container_stats.routes(app, engine, containers, SystemClock())
    handlers = _Handlers(engine, containers)
    for method, path, handler in (
        ("GET", "/containers/json", handlers.index),
        ("GET", "/containers/{name:.+}/json", handlers.inspect),
        ("GET", "/containers/{name:.+}/logs", handlers.logs),
    ):
        add_route(app, method, path, handler)


class _Handlers:
    def __init__(self, engine: Engine, containers: Containers) -> None:
        self._engine, self._containers = engine, containers

    async def index(self, request: web.Request) -> web.Response:
        wanted = filters(request, KNOWN_FILTERS)
        matches = matcher(self._engine, wanted, self._containers.find, self._containers.restarting)
        limit = integer(request, "limit", 0)
        everything = limit > 0 or flag(request, "all") or not wanted.keys().isdisjoint(("status", "exited"))
        containers = sorted(self._engine.runtime.list(), key=lambda found: -found[0].created_at)
        chosen = [found for found in containers if (everything or self._alive(found)) and matches(found)]
        now = SystemClock().now()
        shown = chosen[:limit] if limit > 0 else chosen
        return answer([await self._summary(*found, now, request) for found in shown])

    async def _summary(
        self, config: ContainerConfig, state: ContainerState, now: int, request: web.Request
    ) -> dict[str, Any]:
        restarting = self._containers.restarting(config.id)
        found = container_summary(self._engine, config, state, now, restarting=restarting)
        return found | (await container_sizes(self._engine, config) if flag(request, "size") else {})

    def _alive(self, found: Found) -> bool:
        return found[1].running or self._containers.restarting(found[0].id)

    async def inspect(self, request: web.Request) -> web.Response:
        config, state = self._find(request)
        found = inspect_json(
            self._engine,
            config,
            state,
            restarting=self._containers.restarting(config.id),
            execs=self._containers.execs.of(config.id),
        )
        sizes = await container_sizes(self._engine, config) if flag(request, "size") else {}
        return answer(found | sizes)

    async def logs(self, request: web.Request) -> web.StreamResponse:
        config, _ = self._find(request)
        stdout, stderr = flag(request, "stdout"), flag(request, "stderr")
        if not (stdout or stderr):
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        tail = request.query.get("tail", "all")
        if tail not in ("all", "") and not tail.isdigit():
            tail = "all"
        query = LogQuery(
            stdout=stdout,
            stderr=stderr,
            follow=flag(request, "follow"),
            since=parse_timestamp(request.query.get("since", "")),
            until=parse_timestamp(request.query.get("until", "")),
            tail=int(tail) if tail.isdigit() else -1,
        )
        entries = self._engine.logs.read(config.id, query)
        kind = "raw-stream" if config.tty else "multiplexed-stream"
        response = web.StreamResponse(headers={"Content-Type": f"application/vnd.docker.{kind}"})
        await response.prepare(request)
        stamps = flag(request, "timestamps")
        details = b""
        if flag(request, "details"):
            details = in_a_line(self._engine.logs.attributes(config.id)).encode() + b" "
        async with aclosing(entries):
            async for entry in entries:
                stamp = log_time(entry.timestamp).encode() + b" " if stamps else b""
                line = stamp + details + entry.data
                await response.write(line if config.tty else frame(entry.stream, line))
        await response.write_eof()
        return response

    def _find(self, request: web.Request) -> Found:
        return self._containers.find(request.match_info["name"])
