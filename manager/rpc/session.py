"""An agent's session on the cluster port: a WebSocket with msgpack frames, as the dispatcher's channel."""

from typing import Protocol

import aiohttp
import msgspec
from aiohttp import web

from cluster.messages import AgentMessage, ManagerMessage
from manager.dispatcher.channel import Channel, ChannelClosed, PeerIdentity

MAX_FRAME = 16 << 20  # a status report or a log chunk is far below; anything larger is no agent of ours
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AgentMessage] = msgspec.msgpack.Decoder(AgentMessage)


class WebSocketChannel:
    """One agent's connection."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def send(self, message: ManagerMessage) -> None:
        """Send one frame; raises ChannelClosed. Waits while the agent is slow to read."""
        try:
            await self._socket.send_bytes(_encoder.encode(message))
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise ChannelClosed(f"the agent can't be reached: {error}") from error

    async def receive(self) -> AgentMessage:
        """The next frame; raises ChannelClosed."""
        frame = await self._socket.receive()
        if frame.type is not aiohttp.WSMsgType.BINARY:
            raise ChannelClosed(f"the agent closed the session ({frame.type.name.lower()})")
        try:
            return _decoder.decode(frame.data)
        except msgspec.MsgspecError as error:
            raise ChannelClosed(f"the agent sent a frame that can't be read: {error}") from error

    async def close(self) -> None:
        """Close; safe to repeat."""
        await self._socket.close()


class Sessions(Protocol):
    """The dispatcher, as the port sees it."""

    async def serve(self, peer: PeerIdentity, channel: Channel) -> None:
        """Run one agent's session to its end."""
