"""The dispatcher: agents' sessions with the leading manager."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable

from cluster.errors import Unavailable
from cluster.ids import new_id
from cluster.messages import (
    AgentMessage,
    Hello,
    LogChunk,
    LogRequest,
    Removed,
    RoleChanged,
    SessionRedirect,
    Welcome,
)
from cluster.objects import Node, Task
from cluster.seams import SECOND, Clock, Random
from manager.dispatcher.channel import Channel, ChannelClosed, PeerIdentity
from manager.dispatcher.registration import manager_addresses, register, sound
from manager.dispatcher.session import Session
from manager.dispatcher.term import REMOVED, Term
from manager.store import OVERTAKEN, Store

log = logging.getLogger("shoal.dispatcher")

HELLO_WITHIN = 5.0
"""Seconds that a new connection has to introduce itself."""
RATE_WINDOW = 8 * SECOND
RATE_LIMIT = 5
"""A node that opens more sessions than this within the window is made to wait a second for each."""


class Dispatcher:
    """Serves agents. Lives as long as the manager; `run` is the part that only the leader does.

    `leader_address` says where the leader is ("ip:port"), or "" when that is not known.
    """

    def __init__(self, store: Store, clock: Clock, rng: Random, leader_address: Callable[[], str]) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._leader_address = leader_address
        self._term: Term | None = None
        self._registrations: dict[str, deque[int]] = {}

    @property
    def connected(self) -> frozenset[str]:
        """The nodes with an open session here."""
        return frozenset(self._term.sessions) if self._term is not None else frozenset()

    async def run(self) -> None:
        """Serve sessions, for one term of leadership, until cancelled."""
        term = Term(self._store, self._clock, self._rng)
        self._term = term
        try:
            await term.run()
        finally:
            self._term = None

    def renew(self, node_id: str) -> bool:
        """Let a node renew its certificate; False when it has no session here."""
        session = self._term.sessions.get(node_id) if self._term is not None else None
        if session is None:
            return False
        session.send(RoleChanged(role=session.peer.role.value))
        return True

    async def serve(self, peer: PeerIdentity, channel: Channel) -> None:
        """One agent's connection, until it ends. Closes the channel; raises nothing that the agent causes."""
        try:
            async with asyncio.timeout(HELLO_WITHIN):
                hello = await channel.receive()
            if not isinstance(hello, Hello):
                log.warning("a session must begin with hello", extra={"node": peer.node_id})
                return
            if not sound(hello):
                log.warning("a node says of itself what can't be", extra={"node": peer.node_id})
                return
            await self._admit(peer, hello, channel)
        except (ChannelClosed, TimeoutError, *OVERTAKEN) as error:
            log.info("session not opened", extra={"node": peer.node_id, "reason": str(error)})
        finally:
            await channel.close()

    async def logs(self, query: LogRequest) -> AsyncIterator[LogChunk]:
        """Logs of the tasks that `query.task_ids` names, from wherever they run or ran.

        Raises Unavailable when this manager does not lead; and, after all that could be had, when a node is
        not connected or was lost meanwhile (it is named).
        """
        term = self._term
        if term is None:
            raise Unavailable("this manager does not lead; ask again")
        view = self._store.view()
        nodes: dict[str, tuple[str, list[str]]] = {}
        for task_id in query.task_ids:
            task = view.get(Task, task_id)
            if task is None or not task.node_id:
                continue
            node = view.get(Node, task.node_id)
            name = node.description.hostname if node and node.description.hostname else task.node_id
            nodes.setdefault(task.node_id, (name, []))[1].append(task_id)
        async for chunk in term.logs.read(query, nodes, term.sessions.get):
            yield chunk

    async def _admit(self, peer: PeerIdentity, hello: Hello, channel: Channel) -> None:
        managers = manager_addresses(self._store.view())
        if self._term is None:
            await channel.send(SessionRedirect(leader=self._leader_address(), managers=managers))
            return
        await self._slow_down(peer.node_id)
        try:
            node = await self._store.update_retrying(lambda tx: register(tx, peer, hello))
        except OVERTAKEN:
            await channel.send(SessionRedirect(leader="", managers=managers))
            raise
        term = self._term
        if term is None:
            await channel.send(SessionRedirect(leader=self._leader_address(), managers=managers))
            return
        if node is None:
            await channel.send(Removed(message=REMOVED))
            return
        session = Session(new_id(self._rng), peer, channel)
        session.send(Welcome(session_id=session.id, heartbeat_period=term.period(), managers=managers))
        if node.spec.role != peer.role:
            session.send(RoleChanged(role=node.spec.role.value))
        term.opened(session)
        log.info("session opened", extra={"node": peer.node_id, "session": session.id})

        def received(message: AgentMessage) -> None:
            term.received(session, message)

        try:
            await session.run(received, term.drained)
        finally:
            term.closed(session)

    async def _slow_down(self, node_id: str) -> None:
        now = self._clock.monotonic()
        times = self._registrations.setdefault(node_id, deque(maxlen=RATE_LIMIT))
        while times and times[0] <= now - RATE_WINDOW:
            times.popleft()
        crowded = len(times) == RATE_LIMIT
        times.append(now)
        if crowded:
            log.warning("a node opens sessions too often", extra={"node": node_id})
            await self._clock.sleep(SECOND)
