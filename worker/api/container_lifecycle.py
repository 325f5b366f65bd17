"""What begins, changes and ends containers: create, start, stop, kill, wait, rename, update, remove."""

from aiohttp import web
from msgspec.structs import replace

from cluster.errors import InvalidArgument
from cluster.seams import SECOND
from worker.api.http import add_route, answer, api_version, body, flag, integer
from worker.api.pruning import pruned
from worker.containers.containers import Containers
from worker.containers.request import CreateRequest, NetworkingConfig, UpdateRequest
from worker.engine import Engine
from worker.runtime.stopping import parse_signal

_CONDITIONS = ("not-running", "next-exit", "removed")


def routes(app: web.Application, engine: Engine, containers: Containers) -> None:
    """Add the handlers."""
    handlers = _Handlers(engine, containers)
    for method, path, handler in (
        ("POST", "/containers/create", handlers.create),
        ("POST", "/containers/prune", handlers.prune),
        ("POST", "/containers/{name:.+}/start", handlers.start),
        ("POST", "/containers/{name:.+}/stop", handlers.stop),
        ("POST", "/containers/{name:.+}/restart", handlers.restart),
        ("POST", "/containers/{name:.+}/kill", handlers.kill),
        ("POST", "/containers/{name:.+}/pause", handlers.pause),
        ("POST", "/containers/{name:.+}/unpause", handlers.unpause),
        ("POST", "/containers/{name:.+}/wait", handlers.wait),
        ("POST", "/containers/{name:.+}/rename", handlers.rename),
        ("POST", "/containers/{name:.+}/update", handlers.update),
        ("DELETE", "/containers/{name:.+}", handlers.remove),
    ):
        add_route(app, method, path, handler)


class _Handlers:
    def __init__(self, engine: Engine, containers: Containers) -> None:
        self._engine, self._containers = engine, containers

    async def create(self, request: web.Request) -> web.Response:
        wanted = await body(request, CreateRequest)
        if api_version(request) < (1, 44) and len(wanted.networking_config.endpoints_config) > 1:
            raise InvalidArgument(
                "Container cannot be created with multiple network endpoints: "
                f"{', '.join(sorted(wanted.networking_config.endpoints_config))}"
            )
        if wanted.host_config.network_mode in ("host", "none"):
            wanted = replace(wanted, networking_config=NetworkingConfig())
        platform = request.query.get("platform", "")
        id, warnings = await self._containers.create(request.query.get("name", ""), wanted, platform)
        return answer({"Id": id, "Warnings": warnings}, status=201)

    async def start(self, request: web.Request) -> web.Response:
        started = await self._containers.start(_name(request))
        return web.Response(status=204 if started else 304)

    async def stop(self, request: web.Request) -> web.Response:
        stopped = await self._containers.stop(_name(request), _grace(request), _signal(request))
        return web.Response(status=204 if stopped else 304)

    async def restart(self, request: web.Request) -> web.Response:
        await self._containers.restart(_name(request), _grace(request), _signal(request))
        return web.Response(status=204)

    async def kill(self, request: web.Request) -> web.Response:
        number = parse_signal(request.query.get("signal") or "KILL")
        await self._containers.kill(_name(request), number)
        return web.Response(status=204)

    async def pause(self, request: web.Request) -> web.Response:
        await self._containers.pause(_name(request))
        return web.Response(status=204)

    async def unpause(self, request: web.Request) -> web.Response:
        await self._containers.unpause(_name(request))
        return web.Response(status=204)

    async def wait(self, request: web.Request) -> web.StreamResponse:
        condition = request.query.get("condition") or "not-running"
        if condition not in _CONDITIONS:
            raise InvalidArgument(f'invalid condition: "{condition}"')
        waiting = self._containers.wait(_name(request), condition)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)  # the client starts the container once it has the headers
        ended = await waiting
        await response.write(b'{"StatusCode":%d}\n' % ended.exit_code)
        await response.write_eof()
        return response

    async def rename(self, request: web.Request) -> web.Response:
        await self._containers.rename(_name(request), request.query.get("name", ""))
        return web.Response(status=204)

    async def update(self, request: web.Request) -> web.Response:
        await self._containers.update(_name(request), await body(request, UpdateRequest))
        return answer({"Warnings": None})

    async def remove(self, request: web.Request) -> web.Response:
        if flag(request, "link"):
            await self._containers.unlink(_name(request))
            return web.Response(status=204)
        await self._containers.remove(
            _name(request), force=flag(request, "force"), volumes=flag(request, "v")
        )
        return web.Response(status=204)

    async def prune(self, request: web.Request) -> web.Response:
        return answer(await pruned(self._engine, self._containers, request))


def _name(request: web.Request) -> str:
    return request.match_info["name"]


def _grace(request: web.Request) -> int | None:
    """The query's `t` in ns; a negative one waits for ever."""
    if "t" not in request.query:
        return None
    seconds = integer(request, "t", -1)
    return seconds * SECOND


def _signal(request: web.Request) -> str:
    signal = request.query.get("signal", "")
    if signal:
        parse_signal(signal)
    return signal
