"""The Engine API's cluster part on a node: init, join, leave and unlock here, the rest by its manager."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiohttp import web

from cluster.errors import ShoalError
from shoal.daemon.proxy import ManagerProxy
from shoal.daemon.restore import receive
from shoal.daemon.swarm_node import SwarmNode
from shoal.daemon.swarm_requests import InitRequest, JoinRequest, UnlockRequest
from worker.api.http import add_route, answer, body, flag

FORWARDED = (
    ("GET", "/shoal/cluster/health"),
    ("POST", "/shoal/cluster/backup"),
    ("GET", "/shoal/services/{id}/explain"),
    ("GET", "/shoal/tasks/{id}/explain"),
    ("GET", "/swarm"),
    ("POST", "/swarm/update"),
    ("GET", "/swarm/unlockkey"),
    ("GET", "/nodes"),
    ("GET", "/nodes/{id}"),
    ("DELETE", "/nodes/{id}"),
    ("POST", "/nodes/{id}/update"),
    ("GET", "/services"),
    ("POST", "/services/create"),
    ("GET", "/services/{id}"),
    ("DELETE", "/services/{id}"),
    ("POST", "/services/{id}/update"),
    ("GET", "/services/{id}/logs"),
    ("GET", "/tasks"),
    ("GET", "/tasks/{id}"),
    ("GET", "/tasks/{id}/logs"),
    ("GET", "/secrets"),
    ("POST", "/secrets/create"),
    ("GET", "/secrets/{id}"),
    ("POST", "/secrets/{id}/update"),
    ("DELETE", "/secrets/{id}"),
    ("GET", "/configs"),
    ("POST", "/configs/create"),
    ("GET", "/configs/{id}"),
    ("POST", "/configs/{id}/update"),
    ("DELETE", "/configs/{id}"),
    ("POST", "/shoal/secrets/{id}/versions"),
    ("POST", "/shoal/configs/{id}/versions"),
    ("POST", "/shoal/plan"),
    ("POST", "/shoal/networks/rotate-keys"),
)

INFO_TIMEOUT = 2
"""Seconds that GET /info waits for the manager, which may be stopped or starting: it never hangs."""


def routes(app: web.Application, node: SwarmNode, proxy: ManagerProxy) -> None:
    """Add the handlers."""

    async def init(request: web.Request) -> web.Response:
        return answer(await node.init(await body(request, InitRequest)))

    async def join(request: web.Request) -> web.Response:
        await node.join(await body(request, JoinRequest))
        return web.Response()

    async def leave(request: web.Request) -> web.Response:
        await node.leave(flag(request, "force"))
        return web.Response()

    async def unlock(request: web.Request) -> web.Response:
        await node.unlock((await body(request, UnlockRequest)).unlock_key)
        return web.Response()

    async def restore(request: web.Request) -> web.Response:
        with TemporaryDirectory(prefix="restore.", dir=node.data_root) as directory:
            file = Path(directory) / "backup"
            options = await receive(request, file)
            restored = await node.restore(options, file)
        return answer({"NodeID": restored.node_id, "ClusterID": restored.cluster_id})

    add_route(app, "POST", "/shoal/cluster/restore", restore)
    add_route(app, "POST", "/swarm/init", init)
    add_route(app, "POST", "/swarm/join", join)
    add_route(app, "POST", "/swarm/leave", leave)
    add_route(app, "POST", "/swarm/unlock", unlock)
    for method, path in FORWARDED:
        add_route(app, method, path, proxy.forward)


async def swarm_info(node: SwarmNode, proxy: ManagerProxy) -> dict[str, Any]:
    """The Swarm part of GET /info; without the manager when that does not answer."""
    seen = None
    if proxy.attached:
        try:
            seen = await proxy.call("GET", "/internal/info", timeout=INFO_TIMEOUT)
        except ShoalError as error:
            info = node.state.info(None)
            return {**info, "Error": info["Error"] or str(error)}
    return node.state.info(seen)
