"""The session's connection: a WebSocket with msgpack frames over mutual TLS."""

import asyncio
import logging
import ssl
from collections.abc import Callable

import aiohttp

from cluster.codec import UNREADABLE
from cluster.messages import AgentMessage, ManagerMessage, UnknownMessage, agent_messages, manager_messages
from cluster.states import Role
from worker.agent.seek import SessionClosed

log = logging.getLogger("shoal.agent")

_sent, _received = agent_messages(), manager_messages()
CONNECT_TIMEOUT = 3.0
# Ping at this interval; no pong within half of it means that the leader is gone (power loss sends no FIN).
PING_SECONDS = 2.0
# A full assignment of a big node fits; anything larger is not ours.
MAX_FRAME = 64 << 20


def peer_subject(certificate: dict[str, object] | None) -> dict[str, str]:
    """The subject of a certificate as `ssl` gives it, as {"commonName": …}."""
    subject = (certificate or {}).get("subject", ())
    return {name: value for part in subject for name, value in part}  # type: ignore[attr-defined]


class WebSocketChannel:
    """Implements `session.Channel`."""

    def __init__(self, http: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._http = http
        self._socket = socket

    async def send(self, message: AgentMessage) -> None:
        """Send one frame."""
        try:
            await self._socket.send_bytes(_sent.encode(message))
        except (ConnectionError, aiohttp.ClientError, RuntimeError) as error:
            raise SessionClosed(f"sending to the manager failed: {error}") from error

    async def receive(self) -> ManagerMessage:
        """The next message, passing over those of a newer manager's that this version does not have."""
        while True:
            try:
                return _received.decode(await self._frame())
            except UnknownMessage as error:
                log.info("passing over a message that is unknown here", extra={"kind": str(error)})
            except (*UNREADABLE, ValueError) as error:
                raise SessionClosed(
                    f"the manager sent a frame that this version can't read: {error}"
                ) from error

    async def _frame(self) -> bytes:
        frame = await self._socket.receive()
        if frame.type is not aiohttp.WSMsgType.BINARY:
            reason = frame.extra or frame.data if frame.type is aiohttp.WSMsgType.CLOSE else frame.type.name
            raise SessionClosed(f"the manager closed the session: {reason}")
        data: bytes = frame.data
        return data

    async def close(self) -> None:
        """Close the socket and its connection."""
        await self._socket.close()
        await self._http.close()


class TLSConnector:
    """Implements `session.Connector` with this node's certificate.

    `context` is called for each connection, so that a renewed certificate is used at once.
    """

    def __init__(self, context: Callable[[], ssl.SSLContext], cluster_id: Callable[[], str]) -> None:
        self._context = context
        self._cluster_id = cluster_id

    async def connect(self, address: str) -> WebSocketChannel:
        """Connect and check that the peer is a manager of this cluster."""
        try:
            context = self._context()
        except OSError as error:  # too many open files, say: later it may do
            raise SessionClosed(f"can't use this node's certificate: {error}") from error
        http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=1),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
        )
        try:
            socket = await http.ws_connect(
                f"https://{address}/session",
                heartbeat=PING_SECONDS,
                max_msg_size=MAX_FRAME,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )
        except aiohttp.WSServerHandshakeError as error:
            await http.close()
            raise SessionClosed(
                f"manager {address} refused the session: {error.message} ({error.status})"
            ) from error
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            await http.close()
            raise SessionClosed(f"can't reach manager {address}: {error}") from error
        except asyncio.CancelledError:
            await http.close()
            raise
        tls = socket.get_extra_info("ssl_object")  # None when the connection is gone again
        subject = peer_subject(tls.getpeercert() if tls is not None else None)
        if (
            subject.get("organizationalUnitName") != Role.MANAGER.organizational_unit
            or subject.get("organizationName") != self._cluster_id()
        ):
            await socket.close()
            await http.close()
            raise SessionClosed(f"{address} did not prove to be a manager of this cluster")
        return WebSocketChannel(http, socket)
