"""GET /containers/{id}/stats and /top: what a container uses, and its processes."""

import asyncio
import json
from typing import Any

from aiohttp import web

from cluster.engine_json import rfc3339
from cluster.errors import Conflict
from cluster.seams import SECOND, Clock
from worker.api.container_json import ZERO_TIME
from worker.api.http import add_route, answer, flag
from worker.containers import stats
from worker.containers.containers import Containers
from worker.containers.top import processes
from worker.engine import Engine

_EVERY = SECOND


def routes(app: web.Application, engine: Engine, containers: Containers, clock: Clock) -> None:
    """Add the handlers."""
    handlers = _Handlers(engine, containers, clock)
    add_route(app, "GET", "/containers/{name:.+}/stats", handlers.stats)
    add_route(app, "GET", "/containers/{name:.+}/top", handlers.top)


class _Handlers:
    def __init__(self, engine: Engine, containers: Containers, clock: Clock) -> None:
        self._engine, self._containers, self._clock = engine, containers, clock

    async def stats(self, request: web.Request) -> web.StreamResponse:
        config, state = self._containers.find(request.match_info["name"])
        stream = flag(request, "stream", default=True)
        once = flag(request, "one-shot")
        if not stream:
            before = None
            if state.running and not once:
                before = await self._sample(config.id)
                await self._clock.sleep(_EVERY)
            return answer(_joined(before, await self._sample(config.id)))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        before = None
        while self._engine.runtime.known(config.id):
            now = await self._sample(config.id)
            await response.write(json.dumps(_joined(before, now)).encode() + b"\n")
            before = now
            await self._clock.sleep(_EVERY)
        await response.write_eof()
        return response

    async def _sample(self, id: str) -> dict[str, Any]:
        config, state = self._engine.runtime.get(id)
        found: dict[str, Any] = {"name": f"/{config.name}", "id": id, "num_procs": 0, "storage_stats": {}}
        if not state.running:
            return {**found, "read": ZERO_TIME, **stats.nothing()}
        cgroups, path = self._engine.runtime.cgroup(id)
        machine = self._engine.machine
        used = await asyncio.to_thread(
            stats.usage, cgroups, path, state.pid, machine.cpus, config.resources.memory or machine.memory
        )
        return {**found, "read": rfc3339(self._clock.now()), **used}

    async def top(self, request: web.Request) -> web.Response:
        config, state = self._containers.find(request.match_info["name"])
        if not state.running:
            raise Conflict(f"container {config.id} is not running")
        cgroups, path = self._engine.runtime.cgroup(config.id)
        pids = await asyncio.to_thread(cgroups.processes, path)
        titles, rows = await processes(pids, request.query.get("ps_args", ""))
        self._engine.events.container("top", config)
        return answer({"Titles": titles, "Processes": rows})


def _joined(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """A sample with the one before, as clients compute shares of the CPU from both."""
    return {
        **now,
        "preread": before["read"] if before else ZERO_TIME,
        "precpu_stats": before["cpu_stats"] if before else stats.no_cpu(),
    }
