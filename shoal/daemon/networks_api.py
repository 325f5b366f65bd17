"""`/networks`: this node's own networks and the cluster's, as one list."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web

from cluster.consistency import CONSISTENCY, READ, STALE
from cluster.errors import Conflict, Forbidden, InvalidArgument, NotFound, ShoalError
from cluster.seams import Clock
from cluster.spec import NetworkSpec
from netplane.errors import NetworkNotFound
from netplane.local_networks import PREDEFINED
from netplane.model import LocalNetwork
from shoal.daemon.network_filters import FILTERS, PRUNE_FILTERS, check_filters, kept, listed
from shoal.daemon.networks_json import containers_json, details_json, network_json, record_json
from shoal.daemon.proxy import ManagerProxy, RemoteError
from worker.api.http import add_route, answer, body, filters, flag
from worker.api.prune_filters import until
from worker.api.timestamps import parse_timestamp
from worker.endpoints import EndpointSettings, NetworkMembers, check_endpoint
from worker.engine import Engine

_SWARM_DRIVERS = {"overlay"}
_ALONE = {
    "host": "cannot connect container to host network - container must be created in host network mode",
    "none": (
        "container cannot be connected to multiple networks with one of the networks in private (none) mode"
    ),
}


class ConnectRequest(msgspec.Struct, frozen=True, rename="pascal"):
    """POST /networks/{id}/connect."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


class DisconnectRequest(msgspec.Struct, frozen=True, rename="pascal"):
    """POST /networks/{id}/disconnect."""

    container: str = ""
    force: bool = False


class NetworksAPI:
    """Local networks are answered here, swarm-scoped ones by the manager."""

    def __init__(self, engine: Engine, proxy: ManagerProxy, members: NetworkMembers, clock: Clock) -> None:
        self._engine = engine
        self._proxy = proxy
        self._members = members
        self._clock = clock

    def routes(self, app: web.Application) -> None:
        """Add the handlers."""
        add_route(app, "GET", "/networks", self.index)
        add_route(app, "POST", "/networks/create", self.create)
        add_route(app, "POST", "/networks/prune", self.prune)
        add_route(app, "GET", "/networks/{id:.+}", self.inspect)
        add_route(app, "DELETE", "/networks/{id:.+}", self.remove)
        add_route(app, "POST", "/networks/{id:.+}/connect", self.connect)
        add_route(app, "POST", "/networks/{id:.+}/disconnect", self.disconnect)

    async def index(self, request: web.Request) -> web.Response:
        """GET /networks."""
        wanted = filters(request, FILTERS)
        check_filters(wanted)
        found = [
            network_json(network)
            for network in self._engine.network.networks().values()
            if listed(network, wanted, in_use=bool(self._engine.network.residents(network.id)))
        ]
        if not self._proxy.attached:
            for record in self._engine.cluster_networks().values():
                shown = record_json(record)
                if kept(shown, wanted, in_use=True):
                    found.append(shown)
            return answer(found)
        clusters, headers = await self._ask(request, request.raw_path)
        response = answer(found + clusters)
        if READ in headers:
            response.headers[READ] = headers[READ]
        return response

    async def create(self, request: web.Request) -> web.StreamResponse:
        """POST /networks/create."""
        spec = await body(request, NetworkSpec)
        in_swarm = spec.driver in _SWARM_DRIVERS or spec.scope == "swarm" or spec.ingress
        if in_swarm and not spec.config_only:  # settings alone belong to a node, whatever the driver
            if self._local(spec.name) is not None and spec.name not in PREDEFINED:
                raise Conflict(f"network with name {spec.name} already exists")
            if spec.driver in _SWARM_DRIVERS and spec.scope not in ("", "swarm"):
                raise InvalidArgument(
                    f"networks of driver {spec.driver} are of scope swarm, not {spec.scope}"
                )
            return await self._proxy.forward(request)
        if spec.scope not in ("", "local"):
            raise InvalidArgument(f"invalid network scope {spec.scope!r}: local or swarm")
        if self._proxy.attached and spec.name and await self._named_in_cluster(spec.name):
            raise Conflict(f"network with name {spec.name} already exists")
        network = await self._engine.network.create_network(spec)
        return answer({"Id": network.id, "Warning": ""}, status=201)

    async def _named_in_cluster(self, name: str) -> bool:
        """As far as this node's manager knows: a node goes on by itself while the cluster has no leader."""
        try:
            found, _ = await self._proxy.ask("GET", "/networks", headers={CONSISTENCY: STALE})
        except ShoalError:
            return False
        return any(network["Name"] == name for network in found)

    async def inspect(self, request: web.Request) -> web.StreamResponse:
        """GET /networks/{id}: a local network first, unless the scope says otherwise."""
        name, scope = request.match_info["id"], request.query.get("scope", "")
        verbose = flag(request, "verbose")
        local = self._local(name) if scope in ("", "local") else None
        if local is None and scope in ("", "swarm"):
            found, headers = await self._cluster_network(request, name)
            if found is not None:
                found["Containers"] = containers_json(self._engine, found["Id"])
                own = await details_json(self._engine, found["Id"], verbose=verbose)
                found = {**own, **found}  # a manager knows more
                response = answer(found)
                if READ in headers:
                    response.headers[READ] = headers[READ]
                return response
        if local is None and scope in ("", "local"):
            local = self._local(name, prefix=True)
        if local is None:
            raise self._no_such(name)
        own = await details_json(self._engine, local.id, verbose=verbose)
        containers = containers_json(self._engine, local.id)
        return answer({**network_json(local), "Containers": containers, **own})

    def _no_such(self, name: str) -> NotFound:
        """For a network of this node where one of the swarm is asked for, as docker does for a service's,
        with dockerd's words for it."""
        if (own := self._local(name)) is None:
            return NetworkNotFound(name)
        return NotFound(
            f"network {own.name} not found in the swarm: it is this node's own. The network {own.name} "
            "cannot be used with services. Only networks scoped to the swarm can be used, such as those "
            "created with the overlay driver."
        )

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """DELETE /networks/{id}."""
        name = request.match_info["id"]
        local = self._local(name)
        if local is None and self._proxy.attached:
            try:
                await self._proxy.call("DELETE", f"/networks/{quote(name, safe='')}")
                return web.Response(status=204)
            except RemoteError as error:
                if error.status != 404:
                    raise
        local = local or self._local(name, prefix=True)
        if local is None:
            raise NetworkNotFound(name)
        await self._engine.network.remove_network(local.id)
        return web.Response(status=204)

    async def prune(self, request: web.Request) -> web.Response:
        """POST /networks/prune: the networks that nothing uses."""
        wanted = filters(request, PRUNE_FILTERS)
        before = until(wanted, self._clock.now())
        removed: list[str] = []
        for network in list(self._engine.network.networks().values()):
            free = not network.predefined and not self._engine.network.residents(network.id)
            young = before is not None and network.created_at >= before
            if not free or young or not kept(network_json(network), wanted, in_use=False):
                continue
            try:
                await self._engine.network.remove_network(network.id)
            except ShoalError:  # somebody uses it now, or takes settings from it
                continue
            removed.append(network.name)
        if self._proxy.attached:
            removed += await self._prune_cluster(wanted, before)
        if removed:
            self._engine.events.tell("network", "prune", "", {"reclaimed": "0"})
        return answer({"NetworksDeleted": removed or None})

    async def _prune_cluster(self, wanted: Mapping[str, list[str]], before: int | None) -> list[str]:
        query = quote(json.dumps({"dangling": ["true"]}))
        removed: list[str] = []
        for found in await self._proxy.call("GET", f"/networks?filters={query}"):
            young = before is not None and parse_timestamp(found["Created"]) >= before
            if found["Ingress"] or young or not kept(found, wanted, in_use=False):
                continue
            try:
                await self._proxy.call("DELETE", f"/networks/{found['Id']}")
            except RemoteError:  # used meanwhile, or gone
                continue
            removed.append(found["Name"])
        return removed

    async def connect(self, request: web.Request) -> web.Response:
        """POST /networks/{id}/connect."""
        asked = await body(request, ConnectRequest)
        settings = asked.endpoint_config or EndpointSettings()
        network_id, local = await self._resolved(request)
        config, _ = self._members.find(asked.container)
        if local is not None:
            if local.name in _ALONE and local.predefined:
                raise Forbidden(_ALONE[local.name])
            if local.spec.config_only:
                raise Forbidden(
                    f"network {local.name} only holds settings for others: it takes no containers"
                )
            check_endpoint(local, settings)
        await self._members.connect(config.id, network_id, settings)
        return web.Response()

    async def disconnect(self, request: web.Request) -> web.Response:
        """POST /networks/{id}/disconnect."""
        asked = await body(request, DisconnectRequest)
        network_id, local = await self._resolved(request)
        config, _ = self._members.find(asked.container)
        if local is not None and local.predefined and local.name in _ALONE:
            raise Forbidden(f"container cannot be disconnected from {local.name} network")
        if config.id not in {*self._members.members(network_id), *self._engine.network.residents(network_id)}:
            name = self._engine.network_name(network_id)
            raise Forbidden(f"container {config.id} is not connected to network {name}")
        await self._members.disconnect(config.id, network_id, force=asked.force)
        return web.Response()

    async def _resolved(self, request: web.Request) -> tuple[str, LocalNetwork | None]:
        """The network that a request names: its id, and it itself if it is local."""
        name = request.match_info["id"]
        local = self._local(name)
        if local is None:
            found, _ = await self._cluster_network(request, name, f"/networks/{quote(name, safe='')}")
            if found is not None:
                return found["Id"], None
            local = self._local(name, prefix=True)
        if local is None:
            raise NetworkNotFound(name)
        return local.id, local

    def _local(self, name: str, *, prefix: bool = False) -> LocalNetwork | None:
        if not prefix:
            try:
                return self._engine.network.network(name)
            except NotFound:
                return None
        found = [
            each for each in self._engine.network.networks().values() if name and each.id.startswith(name)
        ]
        if len(found) > 1:
            raise InvalidArgument(
                f"network {name} is ambiguous ({len(found)} matches found based on ID prefix)"
            )
        return found[0] if found else None

    async def _cluster_network(
        self, request: web.Request, name: str, path: str = ""
    ) -> tuple[dict[str, Any] | None, Mapping[str, str]]:
        """A network of the cluster's; as far as this node knows it if it has no manager."""
        if not self._proxy.attached:
            records = self._engine.cluster_networks().values()
            for matches in (
                [each for each in records if name in (each.id, each.name)],
                [each for each in records if name and each.id.startswith(name)],
            ):
                if len(matches) == 1:
                    return record_json(matches[0]), {}
            return None, {}
        try:
            return await self._ask(request, path or request.raw_path)
        except RemoteError as error:
            if error.status != 404:
                raise
            return None, {}

    async def _ask(self, request: web.Request, path: str) -> tuple[Any, Mapping[str, str]]:
        wanted_read = request.headers.get(CONSISTENCY)
        return await self._proxy.ask("GET", path, headers={CONSISTENCY: wanted_read} if wanted_read else None)
