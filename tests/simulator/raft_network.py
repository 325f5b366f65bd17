"""Raft's connections and the agents' sessions over the simulated network."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from cluster.messages import AgentMessage, Assignments, ManagerMessage
from manager.dispatcher.channel import ChannelClosed
from manager.raft.network import Identity, LinkHandler, TlsMaterial
from tests.simulator.loop import Process
from tests.simulator.network import Certificate, End, SimNetwork
from worker.agent.seek import SessionClosed


class _Link:
    """Implements manager.raft.network.Link."""

    def __init__(self, end: End, identity: Identity, handler: LinkHandler) -> None:
        self._end, self.identity, self._handler = end, identity, handler

    def write(self, data: bytes) -> None:
        self._end.send(data)

    def backlog(self) -> int:
        return self._end.backlog()

    def close(self) -> None:
        self._end.abort()

    def abort(self) -> None:
        self._end.abort()

    def arrived(self, data: bytes) -> None:
        self._handler.data_received(data)

    def broken(self, error: OSError | None) -> None:
        self._handler.link_lost(error)


def _identity(certificate: Certificate) -> Identity:
    return Identity(certificate.node_id, f"swarm-{certificate.role}", certificate.cluster_id)


class AcceptedSocket:
    """What a manager's port hands to Raft."""

    def __init__(self, end: End) -> None:
        self.end = end

    def getpeername(self) -> tuple[str, int]:
        return self.end.peer_host, 40000

    def close(self) -> None:
        self.end.abort()


class RaftNetwork:
    """Implements manager.raft.network.Network."""

    def __init__(self, network: SimNetwork, process: Process, host: str, me: Certificate) -> None:
        self._network, self._process, self._host, self._me = network, process, host, me

    async def dial(self, address: str, handler: LinkHandler) -> None:
        end = await self._network.connect(self._process, self._host, "raft", address, self._me)
        self._attach(end, handler)

    async def accept(self, sock: Any, handler: LinkHandler) -> None:
        self._attach(sock.end, handler)

    def _attach(self, end: End, handler: LinkHandler) -> None:
        link = _Link(end, _identity(end.certificate), handler)
        handler.link_made(link)
        end.attach(link)

    def update_tls(self, tls: TlsMaterial) -> None:
        """Certificates are the node's: see `renewed`."""

    def renewed(self, me: Certificate) -> None:
        """Use another certificate from now on."""
        self._me = me


_encode = msgspec.msgpack.Encoder().encode
_from_agent = msgspec.msgpack.Decoder(AgentMessage).decode
_from_manager = msgspec.msgpack.Decoder(ManagerMessage).decode


class _Channel:
    """A session's frames, one way each."""

    def __init__(self, end: End, decode: Any, closed: type[Exception]) -> None:
        self._end, self._decode, self._closed = end, decode, closed
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue()
        end.web_socket = True
        end.attach(self)

    def arrived(self, data: bytes) -> None:
        self._frames.put_nowait(data)

    def broken(self, error: OSError | None) -> None:
        self._frames.put_nowait(None)

    async def send(self, message: Any) -> None:
        if not self._end.open:
            raise self._closed("the connection is closed")
        self._end.send(_encode(message))

    async def receive(self) -> Any:
        frame = await self._frames.get()
        if frame is None:
            self._frames.put_nowait(None)
            raise self._closed("the connection broke")
        return self._decode(frame)

    async def close(self) -> None:
        if self._end.open:
            self._end.close()
            self._frames.put_nowait(None)


def manager_channel(end: End) -> _Channel:
    """The manager's end: implements manager.dispatcher.Channel."""
    return _Channel(end, _from_agent, ChannelClosed)


class AgentConnector:
    """Implements worker.agent.seek.Connector."""

    def __init__(self, network: SimNetwork, process: Process, host: str, certificate: Any) -> None:
        self._network, self._process, self._host, self._certificate = network, process, host, certificate
        self.told: Callable[[Any], None] = lambda message: None

    async def connect(self, address: str) -> _Channel:
        try:
            end = await self._network.connect(
                self._process, self._host, "session", address, self._certificate()
            )
        except OSError as error:
            raise SessionClosed(f"can't reach manager {address}: {error}") from error
        return _Channel(end, self._decode, SessionClosed)

    def _decode(self, frame: bytes) -> Any:
        message = _from_manager(frame)
        if isinstance(message, Assignments):
            self.told(message)
        return message
