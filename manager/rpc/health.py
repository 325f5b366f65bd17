"""Asking every manager how it is, at the same time, over the cluster port."""

import asyncio
from collections.abc import Mapping

import aiohttp
import msgspec
from aiohttp import web

from cluster.codec import UNREADABLE
from cluster.errors import NotFound, Unavailable
from cluster.identity import Identity
from manager.api.access import ACCESS
from manager.api.request import answer
from manager.health import ManagerHealth
from manager.rpc.tls import MANAGER_NAME, client_context

PATIENCE = 2.0
"""Seconds for one manager's answer."""


async def own(request: web.Request) -> web.Response:
    """GET /raft/health: this manager in its own words, to the other managers."""
    manager = request.app[ACCESS]
    return answer(manager.health())  # type: ignore[attr-defined]


async def ask_all(
    others: Mapping[str, str], names: Mapping[str, str], identity: Identity
) -> list[ManagerHealth]:
    """The answers of these managers (node id → "ip:port"); of one that gives none, why. names: host names."""
    connector = aiohttp.TCPConnector(ssl=client_context(identity))
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        asking = (_ask(http, node_id, address, names) for node_id, address in others.items())
        return list(await asyncio.gather(*asking))


async def _ask(
    http: aiohttp.ClientSession, node_id: str, address: str, names: Mapping[str, str]
) -> ManagerHealth:
    try:
        async with http.get(f"https://{address}/raft/health", server_hostname=MANAGER_NAME) as response:
            content = await response.read()
            if response.status == NotFound.status:
                raise Unavailable("an older version of Shoal, which can't say how it is")
            if response.status >= 400:
                raise Unavailable(content.decode(errors="replace")[:200])
            found = msgspec.json.decode(content, type=ManagerHealth)
            if found.id != node_id:
                raise Unavailable(f"node {found.id} answers there")
    except TimeoutError:
        problem = f"no answer within {PATIENCE:.0f} s"
    except (aiohttp.ClientError, OSError, Unavailable, *UNREADABLE) as error:
        problem = str(error) or type(error).__name__
    else:
        return msgspec.structs.replace(
            found, address=address, hostname=found.hostname or names.get(node_id, "")
        )
    return ManagerHealth(id=node_id, hostname=names.get(node_id, ""), address=address, problem=problem)
