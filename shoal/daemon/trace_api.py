"""`GET /shoal/network/trace`: a packet's way as this node sees it."""

import msgspec
from aiohttp import web

from cluster.errors import InvalidArgument
from netplane.plane import NetPlane
from worker.api.http import add_route, flag

PROTOCOLS = ("tcp", "udp", "sctp")


def routes(app: web.Application, network: NetPlane) -> None:
    """Add the handler."""

    async def trace(request: web.Request) -> web.Response:
        source, destination = request.query.get("from", ""), request.query.get("to", "")
        protocol = request.query.get("protocol", "tcp")
        if not source or not destination:
            raise InvalidArgument("say from where and to where: ?from=SRC&to=DST[:PORT]")
        if protocol not in PROTOCOLS:
            raise InvalidArgument(f"protocol {protocol!r} is none of {', '.join(PROTOCOLS)}")
        found = await network.trace(source, destination, protocol, probe=flag(request, "probe"))
        return web.Response(body=msgspec.json.encode(found), content_type="application/json")

    add_route(app, "GET", "/shoal/network/trace", trace)
