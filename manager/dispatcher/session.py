"""One agent's session: what is to be sent, what was applied, and the two loops on its channel."""

import asyncio
import logging
from collections.abc import Callable

from cluster.messages import AgentMessage, ManagerMessage
from manager.dispatcher.assignments import Told
from manager.dispatcher.channel import Channel, ChannelClosed, PeerIdentity
from manager.dispatcher.dataplane import Delta

log = logging.getLogger("shoal.dispatcher.session")

CONGESTED = 16
"""Messages waiting to be sent, from which on assignments are gathered rather than queued."""
MAX_QUEUED = 4096
"""Messages waiting to be sent, beyond which the session ends: the agent does not read."""
MAX_REPORTS = 64
"""Status reports of one agent that wait to be written, beyond which its session ends."""
FAREWELL = 1.0
"""Seconds that a closing session's last messages may take."""


class Session:
    """A session on a channel. Sending never blocks: messages are queued."""

    def __init__(self, id: str, peer: PeerIdentity, channel: Channel) -> None:
        self.id = id
        self.peer = peer
        self.told = Told(peer.node_id)
        self.applied = 0
        self.period = 0
        """The heartbeat period that the agent was told last, in ns."""
        self.touched = Delta()
        self.tasks_touched = True  # a new session knows nothing
        self._channel = channel
        self._outgoing: asyncio.Queue[ManagerMessage | None] = asyncio.Queue()
        self._closing = False
        self._overrun = asyncio.Event()
        self._reports = 0

    @property
    def node_id(self) -> str:
        """The node at the other end."""
        return self.peer.node_id

    @property
    def congested(self) -> bool:
        """True when the agent does not keep up."""
        return self._outgoing.qsize() >= CONGESTED

    @property
    def closing(self) -> bool:
        """True once `close` was called."""
        return self._closing

    def send(self, message: ManagerMessage) -> None:
        """Queue a message; nothing after `close`."""
        if self._closing:
            return
        if self._outgoing.qsize() >= MAX_QUEUED:
            self._break_off("the agent does not read what is sent to it")
        else:
            self._outgoing.put_nowait(message)

    def reports(self, more: int) -> None:
        """That many more (or fewer) status reports of the agent's wait to be written."""
        self._reports += more
        if self._reports > MAX_REPORTS:
            self._break_off("the agent sends statuses faster than they can be written")

    def _break_off(self, reason: str) -> None:
        if not self._closing:
            log.error("ending a session", extra={"node": self.node_id, "reason": reason})
            self._closing = True
            while not self._outgoing.empty():
                self._outgoing.get_nowait()
            self._overrun.set()

    def close(self, farewell: ManagerMessage | None = None) -> None:
        """End the session after what is queued, and this last message, were sent."""
        if self._closing:
            return
        if farewell is not None:
            self._outgoing.put_nowait(farewell)
        self._closing = True
        self._outgoing.put_nowait(None)

    async def run(self, received: Callable[[AgentMessage], None], drained: Callable[[], None]) -> None:
        """Send and receive until the session is closed by either side.

        `received` gets each message; `drained` is called when a congested session catches up.
        """
        sender = asyncio.create_task(self._send_all(drained), name=f"send {self.node_id}")
        receiver = asyncio.create_task(self._receive_all(received), name=f"receive {self.node_id}")
        overrun = asyncio.create_task(self._overrun.wait())
        try:
            await asyncio.wait((sender, receiver, overrun), return_when=asyncio.FIRST_COMPLETED)
            if self._closing and not sender.done() and not self._overrun.is_set():
                await asyncio.wait((sender,), timeout=FAREWELL)
        finally:
            self._closing = True
            sender.cancel()
            receiver.cancel()
            overrun.cancel()
            results = await asyncio.gather(sender, receiver, return_exceptions=True)
        for result in results:
            if isinstance(result, ChannelClosed):
                log.info("session ended", extra={"node": self.node_id, "reason": str(result)})
            elif isinstance(result, Exception):
                raise result

    async def _send_all(self, drained: Callable[[], None]) -> None:
        while (message := await self._outgoing.get()) is not None:
            await self._channel.send(message)
            if self._outgoing.qsize() == CONGESTED // 2:
                drained()

    async def _receive_all(self, received: Callable[[AgentMessage], None]) -> None:
        while True:
            received(await self._channel.receive())
