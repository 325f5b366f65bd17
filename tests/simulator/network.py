"""The network between nodes: connections as TCP has them, cut, delayed and reset.

A cut link drops packets. What was sent meanwhile arrives when it heals within TCP's patience; after that, or
when the peer's process dies, the connection is lost. Within a connection nothing is reordered; between
connections everything may be.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from random import Random
from typing import NamedTuple, Protocol

from cluster.seams import MILLISECOND, SECOND
from tests.simulator.loop import Process, VirtualLoop
from tests.simulator.root_ca import Held

USER_TIMEOUT = 4 * SECOND
"""As TCP_USER_TIMEOUT of the managers' connections: unacknowledged for longer, and the connection is lost."""
IDLE_TIMEOUT = 5 * SECOND
"""Keepalive, or a WebSocket's ping: how long a silent cut goes unnoticed."""
CONNECT_TIMEOUT = 1500 * MILLISECOND
PONG_WITHIN = 3 * SECOND
RETRANSMIT = 200 * MILLISECOND
"""How long after a cut is healed TCP tries again."""
NOBODY = Context()
"""Where what no process does runs."""


class Receiver(Protocol):
    """What one end of a connection does."""

    def arrived(self, data: bytes) -> None:
        """Something came."""

    def broken(self, error: OSError | None) -> None:
        """The connection ended; nothing follows. None: the peer closed it in order."""


class Certificate(NamedTuple):
    """Who a process is to its peers: node id, role ("manager", "worker"), cluster id."""

    node_id: str
    role: str
    cluster_id: str
    held: Held | None = None
    """None: it has no certificate, or does not look at others'."""


def refused(one: Certificate, other: Certificate) -> bool:
    """Whether either does not trust the root of the other's certificate."""
    if one.held is None or other.held is None:
        return False
    return not (one.held.accepted_by(other.held) and other.held.accepted_by(one.held))


class End:
    """One end of a connection, in a process."""

    def __init__(self, network: "SimNetwork", process: Process, host: str, peer_host: str) -> None:
        self.network, self.process, self.host, self.peer_host = network, process, host, peer_host
        self.receiver: Receiver | None = None
        self.peer: End
        self.open = True
        self._arrives = 0
        self._stuck: list[bytes | None] = []  # sent while the link was cut; None: the end of the stream
        self._stuck_since = 0
        self._early: list[bytes] = []
        self._loss: OSError | None = None
        self.certificate = Certificate("", "", "")
        """The other end's."""
        self.web_socket = False

    def send(self, data: bytes) -> None:
        """Send bytes, in order."""
        if self.open and self.process.alive:
            self._transmit(data)

    def close(self) -> None:
        """Send what is queued, then the end."""
        if self.open:
            self.open = False
            self.network.ends.pop(self, None)
            self._transmit(None)

    def _transmit(self, data: bytes | None) -> None:
        network = self.network
        if self._stuck or network.is_cut(self.host, self.peer_host):
            if not self._stuck:
                self._stuck_since = network.loop.now
                network.lingering[self] = None
                if self.open:
                    network.later(USER_TIMEOUT, self._check_stuck)
            self._stuck.append(data)
            return
        self._arrives = max(self._arrives + 1, network.loop.now + network.latency(self.host, self.peer_host))
        peer = self.peer
        if data is not None and not (peer.open and peer.process.alive):
            # Nobody there knows the connection, as on a host that has booted since.
            back = self._arrives - network.loop.now + network.latency(self.peer_host, self.host)
            network.later(back, self.lose, ConnectionResetError(104, "Connection reset by peer"))
            return
        if data is None:
            peer.process.loop.at(self._arrives, peer.lose, None, context=NOBODY)
        else:
            peer.process.at(self._arrives, peer._arrive, data)

    def _arrive(self, data: bytes) -> None:
        if not self.open:
            return
        self.network.record(self, data)
        if self.receiver is None:
            self._early.append(data)
        else:
            self.receiver.arrived(data)

    def attach(self, receiver: Receiver) -> None:
        """Say who receives; what came before is handed over."""
        self.receiver = receiver
        early, self._early = self._early, []
        for data in early:
            receiver.arrived(data)
        if self._loss is not None:
            receiver.broken(self._loss)

    def healed(self) -> None:
        """The link carries packets again."""
        if self._stuck and self.process.alive and not self.network.is_cut(self.host, self.peer_host):
            stuck, self._stuck = self._stuck, []
            self.network.lingering.pop(self, None)
            for data in stuck:
                self._transmit(data)

    def _check_stuck(self) -> None:
        if self.open and self._stuck and self.network.loop.now - self._stuck_since >= USER_TIMEOUT - 1:
            self.lose(TimeoutError(110, "Connection timed out"))

    def lose(self, error: OSError | None) -> None:
        """The connection is over for this end; it is told in its own process."""
        if self.open:
            self.open = False
            self.network.ends.pop(self, None)
            self.process.call(self._told, error)
            if error is not None and self.peer.open and self.host not in self.network.dead_hosts:
                self._transmit(None)  # a reset, as soon as it gets through

    def _told(self, error: OSError | None) -> None:
        if self.receiver is not None:
            self.receiver.broken(error)
        else:
            self._loss = error or ConnectionResetError(104, "Connection reset by peer")

    def backlog(self) -> int:
        """Bytes that wait for a cut link."""
        return sum(len(data) for data in self._stuck if data)

    def abort(self) -> None:
        """Close at once: both ends are told."""
        if self.open:
            self.close()
            self.process.call(self._told, None)


Listener = Callable[[End], None]


class SimNetwork:
    """Hosts by IP, listeners by service and "ip:port", links that can be cut one way."""

    def __init__(self, loop: VirtualLoop, rng: Random) -> None:
        self.loop = loop
        self.rng = rng
        self.listeners: dict[tuple[str, str], tuple[Process, Listener, Certificate]] = {}
        self.ends: dict[End, None] = {}
        self.lingering: dict[End, None] = {}
        """Ends with something that waits for a cut link."""
        self.cuts: dict[tuple[str, str], int] = {}
        self.cut_since: dict[tuple[str, str], int] = {}
        self.delays: dict[tuple[str, str], int] = {}
        self.dead_hosts: set[str] = set()
        self.base_latency = MILLISECOND // 2
        self.record: Callable[[End, bytes], None] = lambda end, data: None

    def later(self, delay: int, callback: Callable[..., object], *args: object) -> None:
        """Call outside any process."""
        self.loop.at(self.loop.now + delay, callback, *args, context=NOBODY)

    def latency(self, source: str, target: str) -> int:
        """ns that a packet takes now."""
        base = self.base_latency
        extra = self.delays.get((source, target), 0)
        return base + self.rng.randrange(base) + (self.rng.randrange(extra) if extra else 0)

    def is_cut(self, source: str, target: str) -> bool:
        """Whether packets that way are dropped."""
        return (source, target) in self.cuts or source in self.dead_hosts or target in self.dead_hosts

    # --- connecting ---------------------------------------------------------------------------------------

    def listen(
        self, service: str, address: str, process: Process, me: Certificate, listener: Listener
    ) -> None:
        """Accept connections for a service at "ip:port" while the process lives."""
        self.listeners[service, address] = (process, listener, me)

    async def connect(
        self, process: Process, host: str, service: str, address: str, me: Certificate
    ) -> "End":
        """Connect to "ip:port" and shake hands. Raises ConnectionRefusedError or TimeoutError."""
        target = address.rpartition(":")[0]
        trip = 2 * (self.latency(host, target) + self.latency(target, host))
        if not self._cut_either(host, target):
            await asyncio.sleep(trip / SECOND)
            process.check()
        if self._cut_either(host, target):
            await asyncio.sleep(CONNECT_TIMEOUT / SECOND)
            raise TimeoutError(110, "Connection timed out")
        found = self.listeners.get((service, address))
        if found is None or not found[0].alive:
            raise ConnectionRefusedError(111, "Connection refused")
        other, listener, certificate = found
        if other.stopped:  # the kernel accepts, and nobody shakes hands
            await asyncio.sleep(3 * CONNECT_TIMEOUT / SECOND)
            raise TimeoutError(110, "the handshake timed out")
        if refused(me, certificate):
            raise ConnectionResetError(104, "certificate verify failed")
        mine, theirs = End(self, process, host, target), End(self, other, target, host)
        mine.peer, theirs.peer = theirs, mine
        mine.certificate, theirs.certificate = certificate, me
        self.ends[mine] = self.ends[theirs] = None
        other.call(listener, theirs)
        return mine

    def renewed(self, process: Process, me: Certificate) -> None:
        """The process accepts connections with another certificate from now on."""
        for key, (owner, listener, _) in list(self.listeners.items()):
            if owner is process:
                self.listeners[key] = (owner, listener, me)

    def _cut_either(self, one: str, other: str) -> bool:
        return self.is_cut(one, other) or self.is_cut(other, one)

    # --- what goes wrong ----------------------------------------------------------------------------------

    def died(self, process: Process, *, silently: bool) -> None:
        """A process ended: its kernel closes its connections, unless the host lost power."""
        self.listeners = {key: found for key, found in self.listeners.items() if found[0] is not process}
        for end in [end for end in self.ends if end.process is process]:
            end.open = False
            del self.ends[end]
            if silently:
                self.later(USER_TIMEOUT, end.peer.lose, TimeoutError(110, "Connection timed out"))
            elif self.is_cut(end.host, end.peer_host):
                self.later(IDLE_TIMEOUT, end.peer.lose, TimeoutError(110, "Connection timed out"))
            else:
                delay = self.latency(end.host, end.peer_host)
                self.later(delay, end.peer.lose, ConnectionResetError(104, "Connection reset by peer"))

    def stopped(self, process: Process) -> None:
        """A process was stopped: its kernel goes on acknowledging, but nobody answers a WebSocket's ping."""
        for end in self.ends:
            if end.peer.process is process and end.web_socket:
                self.later(PONG_WITHIN, self._unanswered, end, process)

    def _unanswered(self, end: End, process: Process) -> None:
        if end.open and process.stopped:
            end.lose(TimeoutError(110, "no pong"))

    def cut(self, source: str, target: str) -> None:
        """Drop packets that way; cuts are counted."""
        self.cuts[source, target] = self.cuts.get((source, target), 0) + 1
        if self.cuts[source, target] == 1:
            now = self.cut_since[source, target] = self.loop.now
            for end in self.ends:
                if (end.host, end.peer_host) in ((source, target), (target, source)):
                    # Data or acknowledgements are missing: its keepalive gives up, busy or idle.
                    self.later(IDLE_TIMEOUT, self._starved, end, (source, target), now)

    def _starved(self, end: End, link: tuple[str, str], since: int) -> None:
        if end.open and link in self.cuts and self.cut_since[link] == since:
            end.lose(TimeoutError(110, "Connection timed out"))

    def heal(self, source: str, target: str) -> None:
        """Take one cut back."""
        left = self.cuts.get((source, target), 0) - 1
        if left > 0:
            self.cuts[source, target] = left
            return
        self.cuts.pop((source, target), None)
        for end in self.lingering:
            if (end.host, end.peer_host) == (source, target):
                self.later(RETRANSMIT, end.healed)
