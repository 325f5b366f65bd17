"""`/_ping`, `/version`, `/info`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from worker.api.http import add_route, answer
from worker.api.info import info_json, version_json
from worker.engine import Engine
from worker.programs import programs

SwarmInfo = Callable[[], Awaitable[Mapping[str, Any]]]


def routes(app: web.Application, engine: Engine, swarm: SwarmInfo, ping_header: Callable[[], str]) -> None:
    """Add the handlers. `swarm` gives /info's Swarm part, `ping_header` the Swarm header of /_ping."""

    async def ping(request: web.Request) -> web.Response:
        headers = {
            "Cache-Control": "no-cache, no-store, must-revalidate",
            "Pragma": "no-cache",
            "Builder-Version": "1",
            "Swarm": ping_header(),
        }
        return web.Response(text="" if request.method == "HEAD" else "OK", headers=headers)

    async def version(_: web.Request) -> web.Response:
        return answer(version_json(engine, await asyncio.to_thread(programs)))

    async def info(_: web.Request) -> web.Response:
        return answer(info_json(engine, await swarm(), await asyncio.to_thread(programs)))

    add_route(app, "GET", "/_ping", ping)
    add_route(app, "HEAD", "/_ping", ping)
    add_route(app, "GET", "/version", version)
    add_route(app, "GET", "/info", info)
