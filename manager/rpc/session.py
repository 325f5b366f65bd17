"""An agent's session on the cluster port: a WebSocket with msgpack frames, as the dispatcher's channel."""

import logging
from typing import Protocol

import aiohttp
from aiohttp import web

from cluster.codec import UNREADABLE
from cluster.messages import AgentMessage, ManagerMessage, UnknownMessage, agent_messages, manager_messages
from manager.dispatcher.channel import Channel, ChannelClosed, PeerIdentity

log = logging.getLogger("shoal.rpc")

MAX_FRAME = 16 << 20  # a status report or a log chunk is far below; anything larger is no agent of ours
_sent, _received = manager_messages(), agent_messages()


class WebSocketChannel:
    """One agent's connection."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def send(self, message: ManagerMessage) -> None:
        """Send one frame; raises ChannelClosed. Waits while the agent is slow to read."""
        try:
            await self._socket.send_bytes(_sent.encode(message))
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise ChannelClosed(f"the agent can't be reached: {error}") from error

    async def receive(self) -> AgentMessage:
        """The next message, passing over those of a newer agent's that this version does not have; raises
        ChannelClosed."""
        while True:
            try:
                return _received.decode(await self._frame())
            except UnknownMessage as error:
                log.info("passing over a message that is unknown here", extra={"kind": str(error)})
            except (*UNREADABLE, ValueError) as error:
                raise ChannelClosed(f"the agent sent a frame that can't be read: {error}") from error

    async def _frame(self) -> bytes:
        frame = await self._socket.receive()
        if frame.type is not aiohttp.WSMsgType.BINARY:
            raise ChannelClosed(f"the agent closed the session ({frame.type.name.lower()})")
        data: bytes = frame.data
        return data

    async def close(self) -> None:
        """Close; safe to repeat."""
        await self._socket.close()


class Sessions(Protocol):
    """The dispatcher, as the port sees it."""

    async def serve(self, peer: PeerIdentity, channel: Channel) -> None:
        """Run one agent's session to its end."""
