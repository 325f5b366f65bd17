"""The agent's session with the leader: hello, heartbeats, messages; again when it breaks, elsewhere when the
leader falls silent."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from cluster.messages import (
    Heartbeat,
    HeartbeatAck,
    Hello,
    ManagerAddress,
    ManagerMessage,
    ManagersChanged,
    Removed,
    SessionRedirect,
)
from cluster.seams import MILLISECOND, SECOND, Clock, Random
from worker.agent.seek import Channel, Connector, Found, Seeker, SessionClosed

log = logging.getLogger("shoal.agent.session")

RETRY_MIN = 100 * MILLISECOND
RETRY_MAX = SECOND
"""Longest pause between two searches; a new leader waits one heartbeat period longer for agents than for a
heartbeat, so that none is taken for dead. In clusters with a longer period, that."""
ANSWER_WITHIN = 500 * MILLISECOND
"""A heartbeat not answered for so long makes the agent ask the other managers who leads."""
LOOK_EVERY = 100 * MILLISECOND


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
        self._handler = handler
        self._seeker = Seeker(connector, handler.hello, self._hear_of, clock)
        self._managers = tuple(managers)
        self._clock = clock
        self._rng = rng
        self.leader = ""
        self.error = ""
        self._channel: Channel | None = None
        self._found: Found | None = None  # the next session, already open
        self._longest_pause = RETRY_MAX
        self._heard = 0  # monotonic, ns
        self._period = 0  # of the heartbeat that is waited for, ns
        self._next_period = 0
        self._handling = False

    @property
    def connected(self) -> bool:
        """Whether a session is open at present."""
        return self._channel is not None

    def reconnect(self) -> None:
        """End the present session, so that a new one opens (the certificate was renewed)."""
        if self._channel is not None:
            self._seeker.close_soon(self._channel)

    async def run(self) -> None:
        """Keep a session until cancelled."""
        delay = RETRY_MIN
        try:
            while True:
                try:
                    found = self._found or await self._seeker.seek(self._addresses())
                    delay = RETRY_MIN
                    await self._session(found)
                except SessionClosed as error:
                    self.error = str(error)
                    log.info("session ended", extra={"reason": str(error)})
                if self.leader or self._found:
                    continue
                await self._clock.sleep(delay // 2 + self._rng.randrange(delay))
                delay = min(2 * delay, self._longest_pause)
        finally:
            if self._found is not None:
                self._seeker.close_soon(self._found.channel)
            await self._seeker.stop()

    def _addresses(self) -> list[str]:
        """Where to ask: at the leader if it is known, then at all, beginning anywhere."""
        known = [manager.address for manager in self._managers]
        start = self._rng.randrange(len(known)) if known else 0
        leader, self.leader = self.leader, ""
        return [*filter(None, (leader,)), *known[start:], *known[:start]]

    async def _session(self, found: Found) -> None:
        self._found = None
        self._channel = found.channel
        try:
            if isinstance(found.first, Removed):
                await self._handler.received(found.first)
                raise SessionClosed(found.first.message)
            self._learn(found.first.managers)
            log.info("session opened", extra={"manager": found.address, "session": found.first.session_id})
            self.error = ""
            await self._converse(found, found.first.heartbeat_period)
        finally:
            self._channel = None
            self._seeker.close_soon(found.channel)

    async def _converse(self, found: Found, period: int) -> None:
        channel = found.channel
        self._longest_pause = max(RETRY_MAX, period)
        self._period = self._next_period = period
        await self._handler.opened(channel)
        self._heard = self._clock.monotonic()
        beating = asyncio.ensure_future(self._beat(channel))
        looking = asyncio.ensure_future(self._look_elsewhere(found.address))
        try:
            while True:
                receiving = asyncio.ensure_future(channel.receive())
                try:
                    await asyncio.wait((receiving, beating, looking), return_when=asyncio.FIRST_COMPLETED)
                    if looking.done():
                        looking.result()
                        raise SessionClosed(f"manager {found.address} fell silent, and another one leads")
                    if beating.done():
                        beating.result()
                    if not receiving.done():
                        continue
                    message = receiving.result()
                finally:
                    receiving.cancel()
                    await _ended(receiving)
                self._heard = self._clock.monotonic()
                if isinstance(message, HeartbeatAck):
                    self._next_period = message.period or self._next_period
                    continue
                if isinstance(message, SessionRedirect):
                    self.leader = message.leader
                    self._hear_of(message.managers)
                    return
                if isinstance(message, ManagersChanged):
                    self._learn(message.managers)
                self._handling = True
                await self._handler.received(message)
                self._handling, self._heard = False, self._clock.monotonic()
        finally:
            self._handling = False
            for task in (beating, looking):
                task.cancel()
            await _ended(beating, looking)

    async def _beat(self, channel: Channel) -> None:
        while True:
            self._period = self._next_period
            self._longest_pause = max(RETRY_MAX, self._period)
            await self._clock.sleep(self._period)
            await channel.send(Heartbeat())

    async def _look_elsewhere(self, address: str) -> None:
        """Return when the manager at `address` is silent and another one leads: its session is `_found`.

        A leader that lost power closes nothing. One that is only slow keeps its session: the others name it.
        """
        while True:
            silent = self._clock.monotonic() - self._heard
            await self._clock.sleep(max(LOOK_EVERY, self._period + ANSWER_WITHIN - silent))
            silent = self._clock.monotonic() - self._heard
            if self._handling or silent <= self._period + ANSWER_WITHIN:
                continue
            try:
                self._found = await self._seeker.seek(self._addresses(), but=address)
            except SessionClosed as error:
                log.debug("the leader is silent", extra={"manager": address, "elsewhere": str(error)})
            else:
                return

    def _hear_of(self, managers: Sequence[ManagerAddress]) -> None:
        """From a manager that does not lead. It may be far behind, so nobody is forgotten by its word: those
        that it names may all be gone, and then this node would never find the ones that are left."""
        news = [manager for manager in managers if manager not in self._managers]
        self._learn((*self._managers, *news))

    def _learn(self, managers: Sequence[ManagerAddress]) -> None:
        if managers and tuple(managers) != self._managers:
            self._managers = tuple(managers)
            self._handler.managers_changed(self._managers)


async def _ended(*tasks: "asyncio.Future[Any]") -> None:
    """Wait for the end of what was cancelled. Each may have failed first; the session ends for one reason."""
    if pending := [task for task in tasks if not task.done()]:
        await asyncio.wait(pending)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, so that the loop doesn't report it
