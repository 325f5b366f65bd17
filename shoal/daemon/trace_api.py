"""`GET /shoal/network/trace`: a packet's way as this node sees it."""

from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web

from cluster.errors import InvalidArgument, NotFound, ShoalError
from netplane.plane import NetPlane
from netplane.trace.model import Trace
from shoal.daemon.proxy import ManagerProxy
from worker.api.http import add_route, answer, flag

PROTOCOLS = ("tcp", "udp", "sctp")


def routes(app: web.Application, network: NetPlane, proxy: ManagerProxy) -> None:
    """Add the handler."""

    async def trace(request: web.Request) -> web.Response:
        source, destination = request.query.get("from", ""), request.query.get("to", "")
        protocol = request.query.get("protocol", "tcp")
        if not source or not destination:
            raise InvalidArgument("say from where and to where: ?from=SRC&to=DST[:PORT]")
        if protocol not in PROTOCOLS:
            raise InvalidArgument(f"protocol {protocol!r} is none of {', '.join(PROTOCOLS)}")
        try:
            found = await network.trace(source, destination, protocol, probe=flag(request, "probe"))
        except NotFound as error:
            raise NotFound(f"{error}{await _of_service(proxy, source)}") from error
        told: dict[str, Any] = msgspec.to_builtins(found)
        return answer(await _named(proxy, await _completed(proxy, found, destination, told)))

    add_route(app, "GET", "/shoal/network/trace", trace)


async def _completed(
    proxy: ManagerProxy, found: Trace, destination: str, told: dict[str, Any]
) -> dict[str, Any]:
    """A name that this node does not know may be a service in networks that are not here."""
    last = found.steps[-1]
    if last.stage != "name" or last.good:
        return told
    remark = await _of_service(proxy, destination.partition(":")[0].removeprefix("tasks."))
    if remark:
        told["Steps"][-1]["Text"] += remark
        told["Summary"] += remark
        told["Advice"] = told["Steps"][-1]["Advice"] = (
            "put both into one network: `docker service update --network-add NETWORK SERVICE`, or `docker "
            "network connect NETWORK CONTAINER` for a container and a network made with --attachable"
        )
    return told


async def _of_service(proxy: ManagerProxy, name: str) -> str:
    """Where a service is, as a further clause; "" if there is none, or no manager here to ask."""
    try:
        service = await _ask(proxy, f"/services/{quote(name, safe='')}")
        if service is None:
            return ""
        wanted = service["Spec"]["TaskTemplate"].get("Networks") or service["Spec"].get("Networks") or ()
        networks = [await _ask(proxy, f"/networks/{each['Target']}") for each in wanted]
    except ShoalError:
        return ""
    names = ", ".join(network["Name"] for network in networks if network is not None)
    return f"; there is a service {name}, in {f'networks {names}' if names else 'no network that has names'}"


async def _named(proxy: ManagerProxy, told: dict[str, Any]) -> dict[str, Any]:
    """With nodes' host names in place of their ids, if a manager is here to ask."""
    try:
        nodes = await _ask(proxy, "/nodes") or ()
    except ShoalError:
        return told
    text = msgspec.json.encode(told).decode()
    for node in nodes:
        text = text.replace(f"node {node['ID']}", f"node {node['Description']['Hostname']}")
    named: dict[str, Any] = msgspec.json.decode(text)
    return named


async def _ask(proxy: ManagerProxy, path: str) -> Any:
    return await proxy.call("GET", path, timeout=2) if proxy.attached else None
