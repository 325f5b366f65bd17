"""The routes, and what holds for all: version prefix, Docker's error shape, forwarding to the leader."""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from cluster.errors import ShoalError, Unavailable
from cluster.seams import MILLISECOND
from manager.api import (
    backup,
    events,
    explain,
    health,
    logs,
    network_encryption,
    networks,
    nodes,
    payload_versions,
    payloads,
    plan,
    reads,
    services,
    swarm,
    tasks,
)
from manager.api.access import ACCESS, Access, SelfLeads
from manager.api.encoded import ENCODED, Encoded
from manager.api.request import answer, check_api_version
from manager.raft.errors import NotLeader

log = logging.getLogger("shoal.api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MAX_BODY = 4 << 20  # a config's 1000 KiB in base64 fits
_VERSION = r"/v{api_version:\d{1,3}\.\d{1,3}}"
FORWARDED = "X-Shoal-Forwarded-By"
_ATTEMPTS = 40
_CATCH_UP = 25 * MILLISECOND
NOT_DONE = "X-Shoal-Not-Done"  # on an error: the request has certainly not had an effect

_READS: list[tuple[str, str, Handler]] = [
    ("GET", "/events", events.events),
    ("GET", "/swarm", swarm.inspect_swarm),
    ("GET", "/swarm/unlockkey", swarm.unlock_key),
    ("GET", "/nodes", nodes.list_nodes),
    ("GET", "/nodes/{id}", nodes.inspect_node),
    ("GET", "/services", services.list_services),
    ("GET", "/services/{id}", services.inspect_service),
    ("GET", "/tasks", tasks.list_tasks),
    ("GET", "/tasks/{id}", tasks.inspect_task),
    ("GET", "/shoal/services/{id}/explain", explain.service_explanation),
    ("GET", "/shoal/tasks/{id}/explain", explain.task_explanation),
    ("GET", "/networks", networks.list_networks),
    ("GET", "/networks/{id}", networks.inspect_network),
    ("GET", "/secrets", payloads.list_secrets),
    ("GET", "/secrets/{id}", payloads.inspect_secret),
    ("GET", "/configs", payloads.list_configs),
    ("GET", "/configs/{id}", payloads.inspect_config),
]
_ON_THE_LEADER: list[tuple[str, str, Handler]] = [
    ("POST", "/swarm/update", swarm.update_swarm),
    ("POST", "/nodes/{id}/update", nodes.update_node),
    ("DELETE", "/nodes/{id}", nodes.delete_node),
    ("POST", "/services/create", services.create_service),
    ("POST", "/services/{id}/update", services.update_service),
    ("DELETE", "/services/{id}", services.delete_service),
    ("GET", "/services/{id}/logs", logs.service_logs),
    ("GET", "/tasks/{id}/logs", logs.task_logs),
    ("POST", "/networks/create", networks.create_network),
    ("DELETE", "/networks/{id}", networks.delete_network),
    ("POST", "/shoal/networks/rotate-keys", network_encryption.rotate_keys),
    ("POST", "/secrets/create", payloads.create_secret),
    ("POST", "/secrets/{id}/update", payloads.update_secret),
    ("DELETE", "/secrets/{id}", payloads.delete_secret),
    ("POST", "/configs/create", payloads.create_config),
    ("POST", "/configs/{id}/update", payloads.update_config),
    ("DELETE", "/configs/{id}", payloads.delete_config),
    ("POST", "/shoal/secrets/{id}/versions", payload_versions.update_secret),
    ("POST", "/shoal/configs/{id}/versions", payload_versions.update_config),
]


def engine_app(access: Access, *extra: web.RouteDef) -> web.Application:
    """The Engine API's cluster part, with and without a version prefix; `extra` routes have no prefix."""
    app = web.Application(middlewares=[errors], client_max_size=MAX_BODY)
    app[ACCESS] = access
    app[ENCODED] = Encoded()
    app.cleanup_ctx.append(events.event_log)
    app.on_response_prepare.append(reads.label)
    for method, path, handler in _READS:
        _route(app, method, path, where_it_is_known(handler))
    for method, path, handler in _ON_THE_LEADER:
        _route(app, method, path, on_the_leader(handler))
    _route(app, "GET", "/shoal/cluster/health", health.cluster_health)
    _route(app, "POST", "/shoal/cluster/backup", backup.take_backup)
    _route(app, "POST", "/shoal/plan", where_it_is_known(plan.make_plan))
    app.router.add_get("/internal/info", swarm.swarm_info)
    _route(app, "GET", "/_ping", _ping)
    app.add_routes(extra)
    return app


def _route(app: web.Application, method: str, path: str, handler: Handler) -> None:
    for prefix in ("", _VERSION):
        if method == "GET":
            app.router.add_get(prefix + path, handler)
        else:
            app.router.add_route(method, prefix + path, handler)


def on_the_leader(handler: Handler) -> Handler:
    """The handler where this manager leads; elsewhere the request goes to the leader as it is.

    A manager that turns out not to lead any more has certainly not written, so the request is passed on; one
    that was forwarded already is refused instead, and the manager that forwarded it looks for the new leader.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        access = request.app[ACCESS]
        await request.read()
        forwarded = FORWARDED in request.headers
        for _ in range(_ATTEMPTS):
            try:
                if access.leading():
                    return await _decide(request, handler)
                if forwarded:
                    raise NotLeader(access.known_leader() or None)
                return await access.forward(request)
            except NotLeader:
                if forwarded:
                    raise
            except SelfLeads:
                await access.clock.sleep(_CATCH_UP)  # elected, but still applying what its predecessors wrote
        raise Unavailable(access.no_leader())

    return handle


def where_it_is_known(handler: Handler) -> Handler:
    """A read here, or the leader's where this manager takes no entries (its disk is full) and falls behind.

    A client that wants this manager's own state has it all the same.
    """
    by_leader = on_the_leader(handler)

    async def handle(request: web.Request) -> web.StreamResponse:
        access = request.app[ACCESS]
        lags = bool(access.trouble()) and not access.leading()
        return await (by_leader if lags and reads.wants_confirmed(request) else handler)(request)

    return handle


async def _decide(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The leader's answer to a write.

    A refusal says how the state is, so it is decided again on a confirmed one: this manager may have lost its
    leadership without knowing it yet.
    """
    if request.method == "GET":
        return await handler(request)
    try:
        response = await handler(request)
    except Unavailable:
        raise
    except ShoalError:
        await reads.confirm(request)
        response = await handler(request)
    reads.written(request)
    return response


def not_done(message: str) -> web.Response:
    """The refusal of a manager's request that has certainly had no effect: the asker may try elsewhere."""
    response = problem(Unavailable.status, message)
    response.headers[NOT_DONE] = "1"
    return response


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Docker's error shape for everything that goes wrong."""
    try:
        check_api_version(request)
        return await handler(request)
    except ShoalError as error:
        return not_done(str(error)) if isinstance(error, NotLeader) else problem(error.status, str(error))
    except web.HTTPException as error:
        return _http_problem(request, error)
    except (ConnectionResetError, ConnectionAbortedError):
        raise  # the client went away; nobody is left to answer
    except Exception:
        log.exception("a request failed", extra={"method": request.method, "path": request.path})
        return problem(500, "internal error of the manager: its log has the details")


def _http_problem(request: web.Request, error: web.HTTPException) -> web.Response:
    if isinstance(error, web.HTTPNotFound):
        return problem(404, "page not found")
    if isinstance(error, web.HTTPMethodNotAllowed):
        return problem(405, f"method {request.method} is not allowed here")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return problem(413, f"the request's body is larger than {MAX_BODY} bytes")
    return problem(error.status, error.text or error.reason)


def problem(status: int, message: str) -> web.Response:
    """`{"message": …}`."""
    return answer({"message": message}, status)


async def _ping(request: web.Request) -> web.Response:
    """GET /_ping: this manager serves; says nothing of a quorum."""
    return web.Response(text="OK", headers={"Swarm": "active/manager"})
