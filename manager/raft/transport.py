"""Streams of messages to and from the members.

Each pair of members has two connections: everyone dials everyone, and sends only on the connection it opened.
The accepting side answers the first frame (Welcome or Refused), so both sides know why a connection fails.
"""
# ruff: noqa: N802

import asyncio
import logging
import socket
from collections import OrderedDict
from collections.abc import Callable, Coroutine

from cluster.seams import MILLISECOND, SECOND, Clock
from manager.raft.admission import Admission
from manager.raft.network import Link, Network
from manager.raft.peer import Peer
from manager.raft.wire import (
    AnyMessage,
    BadFrame,
    FrameReader,
    Hello,
    Message,
    Refused,
    RequestVote,
    TimeoutNow,
    Vote,
    Welcome,
    encode,
)

log = logging.getLogger("shoal.raft.transport")

RETRY = 150 * MILLISECOND
RETRY_REFUSED = 100 * MILLISECOND
"""A member that refuses us has mostly not learnt of us yet; with each refusal in a row the pause doubles."""
RETRY_REFUSED_MAX = 1 * SECOND
REMOVED_GRACE = 0.5
"""Seconds in which a removed member can still receive what was sent to it."""
CLOSING_TURNS = 20
MAX_ACCEPTING = 128
"""Handshakes of managers, or of those who say so, at a time; beyond that, the oldest is ended."""


class _Outgoing:
    """The connection that we opened to one peer."""

    def __init__(self, transport: "PeerTransport", peer: Peer) -> None:
        self._transport = transport
        self.peer = peer
        self.link: Link | None = None
        self.welcomed = False
        self.refused = False
        self._stranger = False
        self.lost = asyncio.Event()
        self._reader = FrameReader()

    def link_made(self, link: Link) -> None:
        self.link = link
        self._transport.opened(self)
        identity = link.identity
        problem = self._transport.objection(identity.cluster_id, identity.role)
        self._stranger = problem is None and identity.node_id != self.peer.id
        if self._stranger:
            problem = f"it holds the certificate of node {identity.node_id or '(unnamed)'}"
        if problem is not None:
            self._transport.complain(
                self.peer.id, f"manager {self.peer.id} at {self.peer.address} is not it: {problem}"
            )
        if problem is not None and not (self._stranger and self._transport.is_strange(identity.node_id)):
            link.abort()
        else:
            # A manager of this cluster in a member's place, such as one restored from a backup, may know
            # that this one was left behind; nothing else is said to it.
            link.write(encode(Hello(self._transport.address, self._transport.standing())))

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._reader.feed(data)
        except BadFrame as error:
            messages = []
            self._abort(f"manager {self.peer.id} answered nonsense: {error}")
        for message in messages:
            if isinstance(message, Welcome) and self._stranger:
                self._abort(f"manager {self.peer.id} at {self.peer.address} is another one")
            elif isinstance(message, Welcome) and not self.welcomed:
                self.welcomed = True
                self._transport.outgoing_up(self)
            elif isinstance(message, Refused):
                self.refused = True
                self._abort(f"manager {self.peer.id} refuses this node: {message.reason}")
                if message.generation:
                    self._transport.left_behind(message.generation, message.reason)

    def _abort(self, why: str) -> None:
        self._transport.complain(self.peer.id, why)
        if self.link is not None:
            self.link.abort()

    def link_lost(self, error: Exception | None) -> None:
        self.lost.set()
        self._transport.outgoing_down(self)


class _Incoming:
    """A connection that a peer opened to us."""

    def __init__(self, transport: "PeerTransport") -> None:
        self._transport = transport
        self.link: Link | None = None
        self.peer: Peer | None = None
        self._refused = False
        self._reader = FrameReader()

    def link_made(self, link: Link) -> None:
        self.link = link
        self._transport.opened(self)

    def data_received(self, data: bytes) -> None:
        if self.link is None or self._refused:
            return
        try:
            messages = self._reader.feed(data)
        except BadFrame as error:
            sender = self.link.identity.node_id
            self._transport.complain(sender, f"manager {sender} sent nonsense: {error}")
            self.link.abort()
            return
        for message in messages:
            if self.peer is not None:
                self._transport.received(self, self.peer, message)
            elif isinstance(message, Hello):
                self.peer = self._transport.incoming_up(self, self.link, message)
                self._refused = self.peer is None
        self._transport.after_messages()

    def link_lost(self, error: Exception | None) -> None:
        self._transport.incoming_down(self)


class PeerTransport(Admission):
    """pysyncobj's transport over a Network. Lives on the Raft loop."""

    def __init__(
        self, *, node_id: str, address: str, cluster_id: str, network: Network, clock: Clock
    ) -> None:
        super().__init__(node_id, cluster_id, clock)
        self.address = address
        self.after_messages: Callable[[], None] = lambda: None
        """Set by the node: called when all messages that came together have been handed over."""
        self.older: set[str] = set()
        """Peers of a version that can't read that a member has moved."""
        self._network = network
        self._outgoing: dict[str, _Outgoing] = {}
        self._incoming: dict[str, _Incoming] = {}
        self._streams: set[_Outgoing | _Incoming] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: OrderedDict[asyncio.Task[None], None] = OrderedDict()
        self._diallers: dict[str, asyncio.Task[None]] = {}
        self._pauses: dict[str, asyncio.Task[None]] = {}
        self._started = False

    # -- life

    def start(self) -> None:
        """Begin to dial; from here on addNode dials at once."""
        self._started = True
        for peer in self._peers.values():
            self._dial(peer)

    async def close(self) -> None:
        """End all connections."""
        self._started = False
        for stream in list(self._streams):
            if stream.link is not None:
                stream.link.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Aborted connections, and those that were shaking hands, free their sockets in the loop's next turns.
        for _ in range(CLOSING_TURNS):
            await asyncio.sleep(0)

    def accept(self, sock: socket.socket) -> None:
        """Take over a connection that the cluster port accepted."""
        if not self._started:
            sock.close()
            return
        if len(self._accepting) >= MAX_ACCEPTING:
            self._accepting.popitem(last=False)[0].cancel()
        task = self._own(self._accept(sock))
        self._accepting[task] = None
        task.add_done_callback(lambda done: self._accepting.pop(done, None))
        # A task that is cancelled before its first step runs none of its code.
        task.add_done_callback(lambda done: sock.close() if done.cancelled() else None)

    def _own(self, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, sock: socket.socket) -> None:
        try:
            peer_name = "{}:{}".format(*sock.getpeername())
        except OSError:
            sock.close()
            return
        try:
            await self._network.accept(sock, _Incoming(self))
        except (OSError, TimeoutError) as error:
            self.complain(f"from {peer_name}", f"refused a connection from {peer_name}: {_words(error)}")

    async def _keep_dialling(self, peer: Peer) -> None:
        pause_refused = RETRY_REFUSED
        while self._peers.get(peer.id) is peer:
            stream = _Outgoing(self, peer)
            try:
                await self._network.dial(peer.address, stream)
            except (OSError, TimeoutError) as error:
                self.complain(peer.id, f"can't reach manager {peer.id} at {peer.address}: {_words(error)}")
            else:
                await stream.lost.wait()
            pause = self._own(self._clock.sleep(pause_refused if stream.refused else RETRY))
            self._pauses[peer.id] = pause
            await asyncio.wait([pause])
            pause_refused = min(2 * pause_refused, RETRY_REFUSED_MAX) if stream.refused else RETRY_REFUSED

    def _dial(self, peer: Peer) -> None:
        if self._started and peer.id not in self._diallers:
            task = self._own(self._keep_dialling(peer))
            self._diallers[peer.id] = task
            task.add_done_callback(lambda _: self._forget_dialler(peer.id, task))

    def _forget_dialler(self, node_id: str, task: "asyncio.Task[None]") -> None:
        if self._diallers.get(node_id) is task:
            del self._diallers[node_id]

    # -- membership, called by pysyncobj

    def addNode(self, node: Peer) -> None:
        """A member, or a learner on its way to become one."""
        if node.id not in self._peers:
            self._peers[node.id] = node
            self._dial(node)

    def dropNode(self, node: Peer) -> None:
        """No longer a member; what was sent to it just before may still arrive."""
        self._peers.pop(node.id, None)
        self._said.pop(node.id, None)
        self._pauses.pop(node.id, None)
        task = self._diallers.pop(node.id, None)
        if task is not None:
            task.cancel()
        for stream in (self._outgoing.get(node.id), self._incoming.get(node.id)):
            if stream is not None and stream.link is not None and self._started:
                asyncio.get_running_loop().call_later(REMOVED_GRACE, stream.link.abort)

    def readdress(self, node_id: str, address: str) -> None:
        """Dial the member at another address from now on."""
        peer = self._peers.get(node_id)
        if peer is None or peer.address == address:
            return
        log.info("manager moved", extra={"peer": node_id, "from": peer.address, "to": address})
        moved = self._peers[node_id] = Peer(node_id, address)
        self._pauses.pop(node_id, None)
        task = self._diallers.pop(node_id, None)
        if task is not None:
            task.cancel()
        stream = self._outgoing.get(node_id)
        if stream is not None and stream.link is not None:
            stream.link.abort()
        self._dial(moved)

    def reached(self, node_id: str, address: str) -> bool:
        """Whether the member answers at this address."""
        stream = self._outgoing.get(node_id)
        return stream is not None and stream.welcomed and stream.peer.address == address

    # -- connections

    def incoming_up(self, stream: _Incoming, link: Link, hello: Hello) -> Peer | None:
        """Decide about a connection that was opened to us; returns the peer, or None if it is refused."""
        identity = link.identity
        peer = self.admit(identity, hello)
        if isinstance(peer, Refused):
            self.complain(
                f"in {identity}", f"refused manager connection of node {identity.node_id}: {peer.reason}"
            )
            link.write(encode(peer))
            link.close()
            return None
        before = self._incoming.get(peer.id)
        if before is not None and before.link is not None:
            before.link.abort()  # The newest connection wins: nothing stale may follow what comes on it.
        self._incoming[peer.id] = stream
        if hello.generation < -1:
            self.older.add(peer.id)
        else:
            self.older.discard(peer.id)
        if peer.id in self._pauses:
            self._pauses.pop(peer.id).cancel()  # It is there and knows us: dial it now.
        link.write(encode(Welcome()))
        return peer

    def incoming_down(self, stream: _Incoming) -> None:
        """A connection opened to us ended."""
        self._streams.discard(stream)
        if stream.peer is not None and self._incoming.get(stream.peer.id) is stream:
            del self._incoming[stream.peer.id]

    def opened(self, stream: _Outgoing | _Incoming) -> None:
        """Remember a connection until it ends; one that was made while we close ends at once."""
        self._streams.add(stream)
        if not self._started and stream.link is not None:
            stream.link.abort()

    def outgoing_up(self, stream: _Outgoing) -> None:
        """The peer welcomed us: messages can go."""
        self._outgoing[stream.peer.id] = stream
        if self._said.pop(stream.peer.id, None) is not None:
            log.info("manager reached", extra={"peer": stream.peer.id, "address": stream.peer.address})
        self._onNodeConnected(stream.peer)

    def outgoing_down(self, stream: _Outgoing) -> None:
        """Our connection to the peer ended."""
        self._streams.discard(stream)
        if self._outgoing.get(stream.peer.id) is stream:
            del self._outgoing[stream.peer.id]
            self._onNodeDisconnected(stream.peer)

    def received(self, stream: _Incoming, peer: Peer, message: AnyMessage) -> None:
        """A message from a member; dropped when a newer connection or a removal made the stream stale."""
        if self._incoming.get(peer.id) is stream and self._peers.get(peer.id) is not None:
            self._onMessageReceived(peer, message)

    # -- sending

    def backlog(self, node: Peer) -> int:
        """Bytes on their way to the peer that the kernel has not taken."""
        stream = self._outgoing.get(node.id)
        return stream.link.backlog() if stream is not None and stream.link is not None else 0

    def send(self, node: Peer, message: Message | dict[str, int | str]) -> bool:
        """Queue for the peer; False if there is no connection. Dicts are pysyncobj's own messages."""
        stream = self._outgoing.get(node.id)
        if stream is None or stream.link is None:
            return False
        stream.link.write(encode(_from_engine(message) if isinstance(message, dict) else message))
        return True

    def destroy(self) -> None:
        """pysyncobj's synchronous close; `close` does the work."""


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _from_engine(message: dict[str, int | str]) -> Message:
    kind, term = message["type"], int(message["term"])
    if kind == "request_vote":
        return RequestVote(term, int(message["last_log_index"]), int(message["last_log_term"]))
    if kind == "response_vote":
        return Vote(term)
    if kind == "timeout_now":
        return TimeoutNow(term)
    raise NotImplementedError(f"pysyncobj sent {kind}, which Shoal replaces")
