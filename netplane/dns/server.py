"""One name server in many namespaces: a UDP and a TCP socket in each, all in the daemon's event loop.

The way of most queries is short: what is asked, byte for byte, was asked before, and the answers to give in
turn are kept until something changes that the zones are made of.
"""

import asyncio
import itertools
import logging
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakValueDictionary

from netplane.dns import wire
from netplane.dns.answers import NO_LINKS, answers
from netplane.dns.connection import serve
from netplane.dns.upstream import SocketFactory, Upstreams
from netplane.dns.zone import Zone

log = logging.getLogger("shoal.netplane.dns")

# Queries that wait for other servers, for each sandbox; more are refused at once.
MAX_FORWARDED = 256
MAX_CONNECTIONS = 32
_DRAIN = 32  # datagrams read before other work gets its turn
_LONGEST = 4096  # bytes of a datagram
_PREPARED = 256  # questions of a sandbox whose answers are kept


class Zones(Protocol):
    """Where the names are."""

    @property
    def generation(self) -> int:
        """Rises whenever an answer may have become another one."""

    def zone(self, network_id: str) -> Zone:
        """The zone of a network."""


@dataclass(frozen=True)
class Sight:
    """What one sandbox sees: the zones of its networks in order, then the servers to ask."""

    networks: tuple[str, ...]
    upstreams: Sequence[str]
    make_socket: SocketFactory
    links: Mapping[bytes, bytes] = field(default_factory=dict)  # names of its own → those in its networks
    inside: bool = False  # some of the servers are in the sandbox's own networks, and nobody else's


@dataclass(eq=False)
class View:
    """A sandbox that is served."""

    udp: socket.socket
    tcp: socket.socket
    sight: Sight
    upstreams: Upstreams
    prepared: dict[bytes, Callable[[], bytes]] = field(default_factory=dict)  # all but the first two bytes
    generation: int = -1  # of what is prepared
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    forwarded: int = 0
    connections: int = 0


class NameServers:
    """Serves every sandbox from the zones."""

    def __init__(self, zones: Zones) -> None:
        self._zones = zones
        self._views: dict[str, View] = {}
        self._upstreams: WeakValueDictionary[tuple[str, ...], Upstreams] = WeakValueDictionary()
        self._turn = itertools.count()
        self.answered = 0
        """Questions answered from the zones; `forwarded`: asked of other servers."""
        self.forwarded = 0

    def open(self, sandbox_id: str, udp: socket.socket, tcp: socket.socket, sight: Sight) -> None:
        """Serve a sandbox; its sockets are the server's from now on."""
        view = self._views[sandbox_id] = View(udp, tcp, sight, self._servers(sandbox_id, sight))
        loop = asyncio.get_running_loop()
        loop.add_reader(udp, self._drain, view)
        loop.add_reader(tcp, self._accept, view)

    def close(self, sandbox_id: str) -> None:
        """Stop serving a sandbox and close its sockets, which would keep its namespace alive."""
        view = self._views.pop(sandbox_id, None)
        if view is None:
            return
        loop = asyncio.get_running_loop()
        for sock in (view.udp, view.tcp):
            loop.remove_reader(sock)
            sock.close()
        for task in view.tasks:
            task.cancel()

    async def close_all(self) -> None:
        """Stop serving and wait until all that was begun has ended."""
        tasks = [task for view in self._views.values() for task in view.tasks]
        for sandbox_id in list(self._views):
            self.close(sandbox_id)
        await asyncio.gather(*tasks, return_exceptions=True)

    def reopen(self, sandbox_id: str, sight: Sight) -> None:
        """A sandbox is in other networks now."""
        view = self._views.get(sandbox_id)
        if view is not None:
            view.sight, view.upstreams = sight, self._servers(sandbox_id, sight)
            view.prepared.clear()

    def answer(
        self,
        data: bytes,
        networks: Sequence[str],
        limit: int | None = None,
        links: Mapping[bytes, bytes] = NO_LINKS,
    ) -> bytes | None:
        """The answer from the zones, or None if another server must be asked. `limit` None: as UDP allows."""
        found = answers(self._zones.zone, data, networks, limit=limit, links=links)
        return found[next(self._turn) % len(found)] if found else None

    def _servers(self, sandbox_id: str, sight: Sight) -> Upstreams:
        """Sandboxes with the same servers share what these said, if they are the same ones indeed."""
        key = (sandbox_id if sight.inside else "", *sight.upstreams)
        found = self._upstreams.get(key)
        if found is None:
            found = self._upstreams[key] = Upstreams(sight.upstreams)
        return found

    def _drain(self, view: View) -> None:
        if view.generation != self._zones.generation:
            view.prepared.clear()
            view.generation = self._zones.generation
        receive, send, prepared = view.udp.recvfrom, view.udp.sendto, view.prepared
        for count in range(_DRAIN):
            try:
                data, client = receive(_LONGEST)
            except OSError:  # nothing left to read, or an ICMP error of an earlier answer
                self.answered += count
                return
            choose = prepared.get(data[2:]) or self._prepare(view, data)
            if choose is None:
                self.answered -= 1
                self._spawn(view, self._forward_datagram(view, data, client))
                continue
            if answer := choose():
                try:
                    send(data[:2] + answer, client)
                except OSError as error:  # its buffer is full, or it is gone: it will ask again
                    log.debug("answer not sent", extra={"error": str(error)})
        self.answered += _DRAIN

    def _prepare(self, view: View, data: bytes) -> Callable[[], bytes] | None:
        """Gives the answers from the zones in turn, without their first two bytes; None if there are none."""
        found = answers(self._zones.zone, data, view.sight.networks, links=view.sight.links)
        if found is None:
            return None
        choose = itertools.cycle([each[2:] for each in found]).__next__
        if len(view.prepared) >= _PREPARED:
            view.prepared.clear()
        view.prepared[data[2:]] = choose
        return choose

    def _accept(self, view: View) -> None:
        try:
            connection, _ = view.tcp.accept()
        except OSError:
            return
        connection.setblocking(False)
        if view.connections >= MAX_CONNECTIONS:
            connection.close()
            return
        self._spawn(view, self._serve_connection(view, connection))

    def _spawn(self, view: View, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        view.tasks.add(task)

        def done(ended: asyncio.Task[None]) -> None:
            view.tasks.discard(ended)
            if not ended.cancelled() and (error := ended.exception()) is not None:
                log.error("serving names failed", exc_info=error)

        task.add_done_callback(done)

    async def _forward_datagram(self, view: View, data: bytes, client: Any) -> None:
        answer = await self._forward(view, data, tcp=False)
        try:
            view.udp.sendto(answer, client)
        except OSError as error:
            log.debug("answer not sent", extra={"error": str(error)})

    async def _forward(self, view: View, data: bytes, *, tcp: bool) -> bytes:
        query = wire.parse(data)
        if query is None:
            return wire.refuse(data)
        if view.forwarded >= MAX_FORWARDED:
            return wire.answer(data, query, code=wire.SERVFAIL)
        view.forwarded += 1
        self.forwarded += 1
        try:
            answer = await view.upstreams.ask(data, query.end, view.sight.make_socket, tcp=tcp)
        finally:
            view.forwarded -= 1
        return answer or wire.answer(data, query, code=wire.SERVFAIL)

    async def _serve_connection(self, view: View, connection: socket.socket) -> None:
        async def respond(data: bytes) -> bytes:
            answer = self.answer(data, view.sight.networks, limit=65535, links=view.sight.links)
            return answer if answer is not None else await self._forward(view, data, tcp=True)

        view.connections += 1
        try:
            await serve(connection, respond)
        finally:
            view.connections -= 1
            connection.close()
