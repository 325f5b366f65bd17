"""One name server in many namespaces: a UDP and a TCP socket in each, all in the daemon's event loop."""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode

from netplane.dns import upstream, wire
from netplane.dns.zone import Zone

log = logging.getLogger("shoal.netplane.dns")

# Queries that wait for other servers, for each sandbox; more are refused at once.
MAX_FORWARDED = 256
MAX_CONNECTIONS = 32
_IDLE = 10.0  # seconds that a TCP client may be silent
_DRAIN = 64  # datagrams read before other work gets its turn
_NO_LINKS: Mapping[bytes, bytes] = {}

ZoneOf = Callable[[str], Zone]


@dataclass
class View:
    """What one sandbox sees: the zones of its networks in order, then the servers to ask."""

    udp: socket.socket
    tcp: socket.socket
    networks: tuple[str, ...]
    upstreams: Sequence[str]
    make_socket: upstream.SocketFactory
    links: Mapping[bytes, bytes] = field(default_factory=dict)  # names of its own → those in its networks
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    forwarded: int = 0
    connections: int = 0


class NameServers:
    """Serves every sandbox from the zones that `zone_of` gives."""

    def __init__(self, zone_of: ZoneOf) -> None:
        self._zone_of = zone_of
        self._views: dict[str, View] = {}
        self._turn = 0

    def open(self, sandbox_id: str, view: View) -> None:
        """Serve a sandbox; its sockets are the server's from now on."""
        self._views[sandbox_id] = view
        loop = asyncio.get_running_loop()
        loop.add_reader(view.udp, self._drain, view)
        loop.add_reader(view.tcp, self._accept, view)

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

    def reopen(self, sandbox_id: str, networks: tuple[str, ...], links: Mapping[bytes, bytes]) -> None:
        """A sandbox is in other networks now."""
        view = self._views.get(sandbox_id)
        if view is not None:
            view.networks, view.links = networks, links

    def answer(
        self,
        data: bytes,
        networks: Sequence[str],
        limit: int | None = None,
        links: Mapping[bytes, bytes] = _NO_LINKS,
    ) -> bytes | None:
        """The answer from the zones, or None if another server must be asked. `limit` None: as UDP allows."""
        query = wire.parse(data)
        if query is None:
            return _refusal(data)
        name_asked = links.get(query.name, query.name)
        known = False
        for network in networks:
            zone = self._zone_of(network)
            addresses = zone.names.get(name_asked)
            if addresses is not None:
                known = True
                if query.kind == wire.AAAA:  # another of the networks may have IPv6
                    addresses = zone.names6.get(name_asked, ())
                    if not addresses:
                        continue
                elif query.kind not in (wire.A, wire.ANY) or not addresses:
                    return wire.answer_empty(data, query)
                self._turn += 1
                start = self._turn % len(addresses) if addresses else 0
                turned = addresses[start:] + addresses[:start]
                return wire.answer_addresses(data, query, turned, limit=limit or query.limit)
            if query.kind == wire.PTR and zone.pointers:
                name = zone.pointers.get(wire.pointer_address(query.name) or "")
                if name is not None:
                    return wire.answer_pointer(data, query, name)
        return wire.answer_empty(data, query) if known else None

    def _drain(self, view: View) -> None:
        for _ in range(_DRAIN):
            try:
                data, client = view.udp.recvfrom(4096)
            except OSError:  # nothing left to read, or an ICMP error of an earlier answer
                return
            answer = self.answer(data, view.networks, links=view.links)
            if answer is not None:
                _send(view.udp, answer, client)
            else:
                self._spawn(view, self._forward_datagram(view, data, client))

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
        _send(view.udp, await self._forward(view, data, tcp=False), client)

    async def _forward(self, view: View, data: bytes, *, tcp: bool) -> bytes:
        query = wire.parse(data)
        if query is None:
            return _refusal(data)
        if view.forwarded >= MAX_FORWARDED:
            return wire.answer_empty(data, query, wire.SERVFAIL)
        view.forwarded += 1
        try:
            answer = await upstream.ask(data, query.end, view.upstreams, view.make_socket, tcp=tcp)
        finally:
            view.forwarded -= 1
        return answer or wire.answer_empty(data, query, wire.SERVFAIL)

    async def _serve_connection(self, view: View, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        view.connections += 1
        try:
            while True:
                async with asyncio.timeout(_IDLE):
                    length = int.from_bytes(await upstream.receive(connection, 2), "big")
                    data = await upstream.receive(connection, length)
                answer = self.answer(data, view.networks, limit=65535, links=view.links)
                if answer is None:
                    answer = await self._forward(view, data, tcp=True)
                async with asyncio.timeout(_IDLE):
                    await loop.sock_sendall(connection, len(answer).to_bytes(2, "big") + answer)
        except (OSError, EOFError):  # the client closed, or was silent for too long
            return
        finally:
            view.connections -= 1
            connection.close()


def _send(sock: socket.socket, answer: bytes, client: Any) -> None:
    if not answer:
        return
    try:
        sock.sendto(answer, client)
    except OSError as error:  # the client is gone, or its buffer is full: it will ask again
        log.debug("answer not sent", extra={"error": str(error)})


def _refusal(data: bytes) -> bytes:
    """The answer to what is no plain question: FORMERR, NOTIMP or REFUSED; empty for what is no query."""
    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
    except dns.exception.DNSException:
        if len(data) < 12 or data[2] & 0x80:
            return b""
        return data[:2] + bytes([data[2] & 0x79 | 0x80, dns.rcode.FORMERR]) + bytes(8)
    if message.flags & dns.flags.QR:
        return b""
    response = dns.message.make_response(message)
    if message.opcode() != dns.opcode.QUERY:
        response.set_rcode(dns.rcode.NOTIMP)
    else:
        response.set_rcode(dns.rcode.FORMERR if len(message.question) != 1 else dns.rcode.REFUSED)
    return response.to_wire()
