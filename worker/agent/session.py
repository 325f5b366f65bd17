"""The agent's session with the leader: connect, hello, heartbeats, messages; again when it breaks."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from cluster.errors import ShoalError
from cluster.messages import (
    AgentMessage,
    Heartbeat,
    Hello,
    ManagerAddress,
    ManagerMessage,
    ManagersChanged,
    SessionRedirect,
    Welcome,
)
from cluster.seams import MILLISECOND, SECOND, Clock, Random

log = logging.getLogger("shoal.agent.session")

RETRY_MIN = 100 * MILLISECOND
RETRY_MAX = 2 * SECOND


class SessionClosed(ShoalError):
    """The connection to the manager broke, or could not be made."""


class Channel(Protocol):
    """One open connection to a manager."""

    async def send(self, message: AgentMessage) -> None:
        """Send one message; raises SessionClosed."""

    async def receive(self) -> ManagerMessage:
        """The next message; raises SessionClosed."""

    async def close(self) -> None:
        """Close; safe to repeat."""


class Connector(Protocol):
    """Opens channels to managers."""

    async def connect(self, address: str) -> Channel:
        """A channel to the manager at "ip:port"; raises SessionClosed."""


class SessionHandler(Protocol):
    """What the agent does with a session."""

    def hello(self) -> Hello:
        """How this node introduces itself."""

    async def opened(self, channel: Channel) -> None:
        """A session is open: all that was not acknowledged is to be reported again."""

    async def received(self, message: ManagerMessage) -> None:
        """A message of the leader's."""

    def managers_changed(self, managers: Sequence[ManagerAddress]) -> None:
        """Remember these managers for the next start."""


class Session:
    """Keeps one session open, for ever, with whichever manager leads."""

    def __init__(
        self,
        connector: Connector,
        handler: SessionHandler,
        managers: Sequence[ManagerAddress],
        clock: Clock,
        rng: Random,
    ) -> None:
        self._connector = connector
        self._handler = handler
        self._managers = tuple(managers)
        self._clock = clock
        self._rng = rng
        self.leader = ""
        self.error = ""
        self._channel: Channel | None = None
        self._closing: asyncio.Task[None] | None = None

    def reconnect(self) -> None:
        """End the present session, so that a new one opens (the certificate was renewed)."""
        if self._channel is not None:
            self._closing = asyncio.create_task(self._channel.close())

    async def run(self) -> None:
        """Keep a session until cancelled."""
        delay = RETRY_MIN
        turn = 0
        while True:
            address = self.leader or self._pick(turn)
            self.leader = ""
            turn += 1
            try:
                if address and await self._session(address):
                    delay = RETRY_MIN
                    turn = 0
            except SessionClosed as error:
                self.error = str(error)
                log.info("session ended", extra={"manager": address, "reason": str(error)})
            if self.leader:
                continue
            await self._clock.sleep(delay // 2 + self._rng.randrange(delay))
            if turn % max(1, len(self._managers)) == 0:
                delay = min(2 * delay, RETRY_MAX)

    def _pick(self, turn: int) -> str:
        return self._managers[turn % len(self._managers)].address if self._managers else ""

    async def _session(self, address: str) -> bool:
        """One session; true if it was opened before it ended."""
        channel = await self._connector.connect(address)
        self._channel = channel
        try:
            await channel.send(self._handler.hello())
            first = await channel.receive()
            if isinstance(first, SessionRedirect):
                self.leader = first.leader if first.leader != address else ""
                self._learn(first.managers)
                return False
            if not isinstance(first, Welcome):
                raise SessionClosed(f"manager {address} answered hello with {type(first).__name__}")
            self._learn(first.managers)
            log.info("session opened", extra={"manager": address, "session": first.session_id})
            self.error = ""
            await self._converse(channel, first.heartbeat_period)
            return True
        finally:
            self._channel = None
            await channel.close()

    async def _converse(self, channel: Channel, period: int) -> None:
        await self._handler.opened(channel)
        beating = asyncio.ensure_future(self._beat(channel, period))
        try:
            while True:
                receiving = asyncio.ensure_future(channel.receive())
                try:
                    await asyncio.wait((receiving, beating), return_when=asyncio.FIRST_COMPLETED)
                    if beating.done():
                        beating.result()
                    if not receiving.done():
                        continue
                    message = receiving.result()
                finally:
                    if not receiving.done():
                        receiving.cancel()
                        await asyncio.wait((receiving,))
                if isinstance(message, SessionRedirect):
                    self.leader = message.leader
                    self._learn(message.managers)
                    return
                if isinstance(message, ManagersChanged):
                    self._learn(message.managers)
                await self._handler.received(message)
        finally:
            if not beating.done():
                beating.cancel()
                await asyncio.wait((beating,))

    async def _beat(self, channel: Channel, period: int) -> None:
        while True:
            await self._clock.sleep(period)
            await channel.send(Heartbeat())

    def _learn(self, managers: Sequence[ManagerAddress]) -> None:
        if managers and tuple(managers) != self._managers:
            self._managers = tuple(managers)
            self._handler.managers_changed(self._managers)
