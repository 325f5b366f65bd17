"""What the dispatcher needs of a connection, so that a WebSocket and the simulator both fit."""

from typing import NamedTuple, Protocol

from cluster.errors import ShoalError
from cluster.messages import AgentMessage, ManagerMessage
from cluster.states import Role


class ChannelClosed(ShoalError):
    """The connection to the agent is gone."""


class PeerIdentity(NamedTuple):
    """Who is at the other end, as its certificate says; `address` is the connection's source."""

    node_id: str
    role: Role
    address: str = ""
    certificate: bytes = b""  # DER


class Channel(Protocol):
    """One connection to an agent."""

    async def send(self, message: ManagerMessage) -> None:
        """Send one message; returns when it is on its way. Raises ChannelClosed."""

    async def receive(self) -> AgentMessage:
        """The next message. Raises ChannelClosed."""

    async def close(self) -> None:
        """Close; safe to repeat."""
