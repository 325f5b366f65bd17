"""Asks other name servers, as bytes in and bytes out."""

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence

from netplane.dns import wire
from netplane.dns.cache import Cache

# Seconds for one server to answer; each is asked twice. Most programs give up after 5.
TIMEOUT = 2.0
ROUNDS = 2
# Seconds for which a server that was silent is asked after the others.
SHUNNED = 30.0
PORT = 53
_FAILURES = frozenset((wire.SERVFAIL, wire.NOTIMP, wire.REFUSED))

# Makes a socket of a kind (SOCK_DGRAM, SOCK_STREAM) and address family from which a server can be reached.
SocketFactory = Callable[[str, int, int], Awaitable[socket.socket]]


async def host_socket(server: str, family: int, kind: int) -> socket.socket:
    """A socket in the host's own namespace."""
    del server
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


class Upstreams:
    """A set of servers, in the order in which to ask them, with what they said."""

    def __init__(self, servers: Sequence[str]) -> None:
        self.servers = tuple(servers)
        self._cache = Cache()
        self._shunned: dict[str, float] = {}

    async def ask(self, data: bytes, end: int, make_socket: SocketFactory, *, tcp: bool) -> bytes | None:
        """The answer to the query in `data`, whose question ends at `end`: a kept one, or the first that a
        server gives. A refusal counts only if no other server does better; None if none answered."""
        now = asyncio.get_running_loop().time()
        kept = self._cache.get(data, end, now, tcp=tcp)
        if kept is not None:
            return kept
        refusal: bytes | None = None
        waiting = sorted(self.servers, key=lambda server: self._shunned.get(server, 0.0) > now)
        exchange = _over_tcp if tcp else _over_udp
        for _ in range(ROUNDS):
            for server in list(waiting):
                try:
                    async with asyncio.timeout(TIMEOUT):
                        answer = await exchange(data, end, server, make_socket)
                except (OSError, EOFError):  # no answer from this one: TimeoutError is an OSError
                    self._shunned[server] = asyncio.get_running_loop().time() + SHUNNED
                    continue
                self._shunned.pop(server, None)
                if answer[3] & 0x0F in _FAILURES:
                    refusal = answer
                    waiting.remove(server)
                    continue
                self._cache.put(data, end, answer, asyncio.get_running_loop().time(), tcp=tcp)
                return answer
        return refusal


async def _over_udp(data: bytes, end: int, server: str, make_socket: SocketFactory) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    sock = await make_socket(server, family, socket.SOCK_DGRAM)
    try:
        await loop.sock_connect(sock, (server, PORT))
        identifier = secrets.token_bytes(2)
        await loop.sock_sendall(sock, identifier + data[2:])
        while True:
            answer = await loop.sock_recv(sock, 65535)
            if _answers(answer, identifier, data, end):
                return data[:2] + answer[2:]
    finally:
        sock.close()


async def _over_tcp(data: bytes, end: int, server: str, make_socket: SocketFactory) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    sock = await make_socket(server, family, socket.SOCK_STREAM)
    try:
        await loop.sock_connect(sock, (server, PORT))
        identifier = secrets.token_bytes(2)
        await loop.sock_sendall(sock, len(data).to_bytes(2, "big") + identifier + data[2:])
        length = int.from_bytes(await _receive(sock, 2), "big")
        answer = await _receive(sock, length)
        if not _answers(answer, identifier, data, end):
            raise EOFError("answer to another question")
        return data[:2] + answer[2:]
    finally:
        sock.close()


async def _receive(sock: socket.socket, length: int) -> bytes:
    """Exactly `length` bytes; raises EOFError when the peer closes before."""
    loop = asyncio.get_running_loop()
    received = b""
    while len(received) < length:
        part = await loop.sock_recv(sock, length - len(received))
        if not part:
            raise EOFError("closed by peer")
        received += part
    return received


def _answers(answer: bytes, identifier: bytes, data: bytes, end: int) -> bool:
    return (
        len(answer) >= 12
        and answer[:2] == identifier
        and bool(answer[2] & 0x80)
        and (answer[4:6] != b"\0\1" or answer[12:end].lower() == data[12:end].lower())
    )
