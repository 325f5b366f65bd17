"""GET /containers/{id}/attach/ws: a container's own standard streams over a WebSocket, without frames."""

import asyncio

from aiohttp import WSMsgType, web

from cluster.errors import Conflict
from worker.api.http import add_route, flag
from worker.api.interactive import Pair, carry, detach_keys
from worker.containers.containers import Containers
from worker.runtime.model import ContainerStatus


def routes(app: web.Application, containers: Containers) -> None:
    """Add the handler."""

    async def attach(request: web.Request) -> web.StreamResponse:
        config, state = containers.find(request.match_info["name"])
        if state.status is ContainerStatus.PAUSED:
            raise Conflict(f"container {config.id} is paused, unpause the container before attach")
        keys = detach_keys(request.query.get("detachKeys", ""))
        wanted = frozenset(n for n, name in ((1, "stdout"), (2, "stderr")) if flag(request, name))
        attached = containers.attachments.attach(config.id, running=state.running)
        socket = web.WebSocketResponse()
        try:
            await socket.prepare(request)
            stdin = flag(request, "stdin") and config.open_stdin
            pair = Pair(attached, raw=True, stdin=stdin, streams=wanted or frozenset((1, 2)))
            await carry(_Client(socket), pair, keys=keys if config.tty else None)
            await socket.close()
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client has gone
        finally:
            containers.attachments.forget(config.id, attached)
        return socket

    add_route(app, "GET", "/containers/{name:.+}/attach/ws", attach)


class _Client:
    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        """What the client has sent; empty once it has closed."""
        message = await self._socket.receive()
        match message.type:
            case WSMsgType.TEXT:
                return str(message.data).encode()
            case WSMsgType.BINARY:
                return bytes(message.data)
        return b""

    async def write(self, data: bytes) -> None:
        """Send to the client."""
        await self._socket.send_bytes(data)

    async def gone(self) -> None:
        """A WebSocket closes both ways at once."""
