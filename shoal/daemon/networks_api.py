"""`/networks`: this node's own networks and the cluster's, as one list."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from cluster.consistency import CONSISTENCY, READ
from cluster.engine_json import rfc3339
from cluster.errors import NotFound
from cluster.spec import NetworkSpec
from netplane.model import LocalNetwork
from shoal.daemon.proxy import ManagerProxy
from worker.api.http import add_route, answer, body, filters, matches_labels
from worker.engine import Engine

_FILTERS = {"dangling", "driver", "id", "label", "name", "scope", "type", "node"}
_SWARM_DRIVERS = {"overlay"}


class NetworksAPI:
    """Local networks are answered here, swarm-scoped ones by the manager."""

    def __init__(self, engine: Engine, proxy: ManagerProxy) -> None:
        self._engine = engine
        self._proxy = proxy

    def routes(self, app: web.Application) -> None:
        """Add the handlers."""
        add_route(app, "GET", "/networks", self.index)
        add_route(app, "POST", "/networks/create", self.create)
        add_route(app, "GET", "/networks/{id}", self.inspect)
        add_route(app, "DELETE", "/networks/{id}", self.remove)

    async def index(self, request: web.Request) -> web.Response:
        """GET /networks."""
        wanted = filters(request, _FILTERS)
        found = [
            network_json(self._engine, n)
            for n in self._engine.network.networks().values()
            if _matches(n, wanted)
        ]
        response = answer(found)
        if self._proxy.attached:
            wanted_read = request.headers.get(CONSISTENCY)
            passed_on = {CONSISTENCY: wanted_read} if wanted_read else None
            clusters, headers = await self._proxy.ask("GET", request.raw_path, headers=passed_on)
            response = answer(found + clusters)
            if READ in headers:
                response.headers[READ] = headers[READ]
        return response

    async def create(self, request: web.Request) -> web.StreamResponse:
        """POST /networks/create."""
        spec = await body(request, NetworkSpec)
        if spec.driver in _SWARM_DRIVERS or spec.scope == "swarm" or spec.ingress:
            return await self._proxy.forward(request)
        network = await self._engine.network.create_network(spec)
        return answer({"Id": network.id, "Warning": ""}, status=201)

    async def inspect(self, request: web.Request) -> web.StreamResponse:
        """GET /networks/{id}: a local network first, unless the scope says otherwise."""
        scope = request.query.get("scope", "")
        try:
            if scope in ("", "local"):
                network = self._engine.network.network(request.match_info["id"])
                return answer(network_json(self._engine, network))
        except NotFound:
            if not self._proxy.attached:
                raise
        return await self._proxy.forward(request)

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """DELETE /networks/{id}."""
        try:
            self._engine.network.network(request.match_info["id"])
        except NotFound:
            if not self._proxy.attached:
                raise
            return await self._proxy.forward(request)
        await self._engine.network.remove_network(request.match_info["id"])
        return web.Response(status=204)


def network_json(engine: Engine, network: LocalNetwork) -> dict[str, Any]:
    """A local network in the Engine API's JSON."""
    spec = network.spec
    config = [{"Subnet": network.subnet, "Gateway": network.gateway}] if network.subnet else []
    containers = {}
    for sandbox_id, address in engine.network.residents(network.id).items():
        containers[sandbox_id] = {
            "Name": sandbox_id[:12],
            "EndpointID": "",
            "MacAddress": "",
            "IPv4Address": address,
            "IPv6Address": "",
        }
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": rfc3339(network.created_at),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": config},
        "Internal": network.internal,
        "Attachable": spec.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": containers,
        "Options": spec.options or {},
        "Labels": spec.labels or {},
    }


def _matches(network: LocalNetwork, wanted: dict[str, list[str]]) -> bool:
    tests: dict[str, Callable[[str], bool]] = {
        "driver": lambda v: network.driver == v,
        "id": lambda v: network.id.startswith(v),
        "name": lambda v: v in network.name,
        "scope": lambda v: v == "local",
        "type": lambda v: v == ("builtin" if network.predefined else "custom"),
    }
    if not matches_labels(network.spec.labels, wanted.get("label", [])):
        return False
    return all(any(test(value) for value in wanted[key]) for key, test in tests.items() if key in wanted)
