"""Finding the manager that leads: knocking at several, not waiting long for any one of them.

A manager whose host lost power answers nothing at all, so the next one is asked a moment later while the
first may still answer. The leader welcomes; the others say who leads.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import NamedTuple, Protocol

from cluster.errors import ShoalError
from cluster.messages import (
    AgentMessage,
    Hello,
    ManagerAddress,
    ManagerMessage,
    Removed,
    SessionRedirect,
    Welcome,
)
from cluster.seams import MILLISECOND, SECOND, Clock

log = logging.getLogger("shoal.agent.seek")

NEXT_AFTER = 250 * MILLISECOND
"""How long one manager is waited for before the next is asked as well."""
GIVE_UP_AFTER = 5 * SECOND


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


class Found(NamedTuple):
    """The leader's answer to hello, and the channel it came on, which is the taker's to close."""

    address: str
    channel: Channel
    first: Welcome | Removed


class Seeker:
    """Seeks the leader. `learnt` is told of the managers that redirects name."""

    def __init__(
        self,
        connector: Connector,
        hello: Callable[[], Hello],
        learnt: Callable[[Sequence[ManagerAddress]], None],
        clock: Clock,
    ) -> None:
        self._connector = connector
        self._hello = hello
        self._learnt = learnt
        self._clock = clock
        self._ending: set[asyncio.Task[None]] = set()

    async def seek(self, addresses: Sequence[str], *, but: str = "") -> Found:
        """The leader, beginning at these addresses; never `but`. Raises SessionClosed when there is none."""
        waiting, asked = deque(dict.fromkeys(addresses)), {but}
        knocking: dict[asyncio.Task[Found | SessionRedirect], str] = {}
        reason = "no manager's address is known"
        deadline = self._clock.monotonic() + GIVE_UP_AFTER
        try:
            while (waiting or knocking) and self._clock.monotonic() < deadline:
                while waiting and waiting[0] in asked:
                    waiting.popleft()
                if waiting:
                    asked.add(address := waiting.popleft())
                    knocking[asyncio.ensure_future(self._knock(address))] = address
                if not knocking:
                    continue
                for task in await self._answers(knocking):
                    address = knocking.pop(task)
                    try:
                        answer = task.result()
                    except SessionClosed as error:
                        reason = str(error)
                        continue
                    if isinstance(answer, Found):
                        return answer
                    reason = f"manager {address} does not lead, and names {answer.leader or 'nobody'}"
                    self._learnt(answer.managers)
                    if answer.leader:
                        waiting.appendleft(answer.leader)
            raise SessionClosed(reason)
        finally:
            for task in knocking:
                self._own(self._end(task))

    async def _answers(
        self, knocking: dict["asyncio.Task[Found | SessionRedirect]", str]
    ) -> list["asyncio.Task[Found | SessionRedirect]"]:
        """Those that answered or failed, after the first did or when it is time to ask the next."""
        pause = asyncio.ensure_future(self._clock.sleep(NEXT_AFTER))
        try:
            await asyncio.wait((*knocking, pause), return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
        return [task for task in knocking if task.done()]

    async def _knock(self, address: str) -> Found | SessionRedirect:
        channel = await self._connector.connect(address)
        try:
            await channel.send(self._hello())
            first = await channel.receive()
        except BaseException:
            self.close_soon(channel)
            raise
        if isinstance(first, Welcome | Removed):
            return Found(address, channel, first)
        self.close_soon(channel)
        if isinstance(first, SessionRedirect):
            return first
        raise SessionClosed(f"manager {address} answered hello with {type(first).__name__}")

    async def _end(self, task: "asyncio.Task[Found | SessionRedirect]") -> None:
        """Stop knocking; a session that opened at the last moment is closed."""
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled() and task.exception() is None and isinstance(found := task.result(), Found):
            await found.channel.close()

    def close_soon(self, channel: Channel) -> None:
        """Close a channel without waiting for a peer that may never answer."""
        self._own(channel.close())

    def _own(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def stop(self) -> None:
        """Wait until all that was begun has ended."""
        while self._ending:
            await asyncio.wait(self._ending)
