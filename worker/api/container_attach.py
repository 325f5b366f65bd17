"""POST /containers/{id}/attach and /resize: a container's own standard streams."""

import asyncio
from contextlib import aclosing

from aiohttp import web

from cluster.errors import Conflict, InvalidArgument
from worker.api.hijack import Done, Hijacked
from worker.api.http import add_route, flag, frame, integer
from worker.api.interactive import Pair, carry, detach_keys
from worker.containers.containers import Containers
from worker.engine import Engine
from worker.logs.reader import LogQuery
from worker.runtime.model import ContainerConfig, ContainerStatus


def routes(app: web.Application, engine: Engine, containers: Containers) -> None:
    """Add the handlers."""
    handlers = _Handlers(engine, containers)
    add_route(app, "POST", "/containers/{name:.+}/attach", handlers.attach)
    add_route(app, "POST", "/containers/{name:.+}/resize", handlers.resize)


class _Handlers:
    def __init__(self, engine: Engine, containers: Containers) -> None:
        self._engine, self._containers = engine, containers

    async def attach(self, request: web.Request) -> web.StreamResponse:
        config, state = self._containers.find(request.match_info["name"])
        if state.status is ContainerStatus.PAUSED:
            raise Conflict(f"container {config.id} is paused, unpause the container before attach")
        keys = detach_keys(request.query.get("detachKeys", ""))
        streams = frozenset(n for n, name in ((1, "stdout"), (2, "stderr")) if flag(request, name))
        stdin, follow = flag(request, "stdin") and config.open_stdin, flag(request, "stream")
        kind = "raw-stream" if config.tty else "multiplexed-stream"
        attachments = self._containers.attachments
        attached = attachments.attach(config.id, running=state.running) if follow else None
        self._engine.events.container("attach", config)
        try:
            async with Hijacked(request, {"Content-Type": f"application/vnd.docker.{kind}"}) as client:
                if flag(request, "logs"):
                    await self._replay(client, config, streams)
                if attached is not None:
                    pair = Pair(attached, raw=config.tty, stdin=stdin, streams=streams)
                    await carry(client, pair, keys=keys if config.tty else None)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client has gone
        finally:
            if attached is not None:
                attachments.forget(config.id, attached)
        return Done()

    async def _replay(self, client: Hijacked, config: ContainerConfig, streams: frozenset[int]) -> None:
        query = LogQuery(stdout=1 in streams, stderr=2 in streams)
        async with aclosing(self._engine.logs.read(config.id, query)) as entries:
            async for entry in entries:
                await client.write(entry.data if config.tty else frame(entry.stream, entry.data))

    async def resize(self, request: web.Request) -> web.Response:
        config, state = self._containers.find(request.match_info["name"])
        height, width = size(request)
        if not state.running:
            raise Conflict(f"container {config.id} is not running")
        await asyncio.to_thread(self._engine.runtime.resize, config.id, height, width)
        return web.Response(status=200)


def size(request: web.Request) -> tuple[int, int]:
    """The query's h and w."""
    height, width = integer(request, "h", 0), integer(request, "w", 0)
    if not (0 <= height < 1 << 16 and 0 <= width < 1 << 16):
        raise InvalidArgument("a terminal's height and width are from 0 to 65535")
    return height, width
