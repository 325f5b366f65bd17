"""`/containers`: list, inspect, logs, stop and kill: the tasks' containers on this node."""

from contextlib import aclosing

from aiohttp import web

from cluster.engine_json import rfc3339
from cluster.errors import Conflict, InvalidArgument, NotImplementedHere
from cluster.seams import SECOND, SystemClock
from worker.api.container_filters import KNOWN_FILTERS, Found, matcher
from worker.api.container_json import container_summary, inspect_json
from worker.api.http import (
    add_route,
    answer,
    filters,
    flag,
    frame,
    integer,
    not_found,
)
from worker.api.timestamps import parse_timestamp
from worker.engine import Engine
from worker.logs.reader import LogQuery
from worker.runtime.model import ContainerConfig, ContainerStatus
from worker.runtime.oci import parse_signal


def find(engine: Engine, name: str) -> Found:
    """A container by id, name, or a unique prefix of its id."""
    containers = engine.runtime.list()
    for config, state in containers:
        if name in (config.id, config.name) or name == f"/{config.name}":
            return config, state
    matching = [found for found in containers if found[0].id.startswith(name)]
    if len(matching) > 1:
        raise InvalidArgument(f"Multiple IDs found with provided prefix: {name}")
    if not matching or not name:
        raise not_found("container", name)
    return matching[0]


def routes(app: web.Application, engine: Engine) -> None:
    """Add the handlers."""
    handlers = _Handlers(engine)
    for method, path, handler in (
        ("GET", "/containers/json", handlers.index),
        ("POST", "/containers/create", handlers.create),
        ("GET", "/containers/{name:.+}/json", handlers.inspect),
        ("GET", "/containers/{name:.+}/logs", handlers.logs),
        ("POST", "/containers/{name:.+}/stop", handlers.stop),
        ("POST", "/containers/{name:.+}/kill", handlers.kill),
        ("POST", "/containers/{name:.+}/wait", handlers.wait),
    ):
        add_route(app, method, path, handler)


class _Handlers:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def index(self, request: web.Request) -> web.Response:
        wanted = filters(request, KNOWN_FILTERS)
        matches = matcher(self._engine, wanted, lambda name: find(self._engine, name))
        limit = integer(request, "limit", 0)
        everything = limit > 0 or flag(request, "all") or not wanted.keys().isdisjoint(("status", "exited"))
        containers = sorted(self._engine.runtime.list(), key=lambda found: -found[0].created_at)
        chosen = [found for found in containers if (everything or found[1].running) and matches(found)]
        now = SystemClock().now()
        shown = chosen[:limit] if limit > 0 else chosen
        return answer([container_summary(self._engine, config, state, now) for config, state in shown])

    async def create(self, _: web.Request) -> web.Response:
        raise NotImplementedHere(
            "this version of Shoal runs containers as services only: use `docker service create`, with "
            "`--restart-condition none` for a command that runs once"
        )

    async def inspect(self, request: web.Request) -> web.Response:
        config, state = self._find(request)
        return answer(inspect_json(self._engine, config, state))

    async def stop(self, request: web.Request) -> web.Response:
        config, state = self._find(request)
        if not state.running:
            return web.Response(status=304)
        await self._engine.runtime.stop(config.id, self._grace(request, config))
        return web.Response(status=204)

    async def kill(self, request: web.Request) -> web.Response:
        config, state = self._find(request)
        if not state.running:
            raise Conflict(f"cannot kill container: {config.id}: container {config.id} is not running")
        await self._engine.runtime.signal(config.id, parse_signal(request.query.get("signal") or "KILL"))
        return web.Response(status=204)

    async def wait(self, request: web.Request) -> web.StreamResponse:
        config, state = self._find(request)
        condition = request.query.get("condition", "not-running")
        if condition not in ("not-running", "next-exit", "removed", ""):
            raise InvalidArgument(f'invalid condition: "{condition}"')
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)  # the client starts the container once it has the headers
        if condition != "next-exit" and not state.running and state.status is not ContainerStatus.CREATED:
            ended = state
        else:
            ended = await self._engine.runtime.wait(config.id)
        await response.write(b'{"StatusCode":%d}\n' % ended.exit_code)
        await response.write_eof()
        return response

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
        async with aclosing(entries):
            async for entry in entries:
                line = rfc3339(entry.timestamp).encode() + b" " + entry.data if stamps else entry.data
                await response.write(line if config.tty else frame(entry.stream, line))
        await response.write_eof()
        return response

    def _find(self, request: web.Request) -> Found:
        return find(self._engine, request.match_info["name"])

    @staticmethod
    def _grace(request: web.Request, config: ContainerConfig) -> int:
        seconds = integer(request, "t", -1)
        return config.stop_grace_ns if seconds < 0 else seconds * SECOND
