"""Asks other name servers, as bytes in and bytes out."""

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence

# Seconds for one server to answer; each is asked twice.
TIMEOUT = 2.0
ROUNDS = 2
PORT = 53

# Makes a socket of a kind (SOCK_DGRAM, SOCK_STREAM) and address family from which a server can be reached.
SocketFactory = Callable[[str, int, int], Awaitable[socket.socket]]


async def host_socket(server: str, family: int, kind: int) -> socket.socket:
    """A socket in the host's own namespace."""
    del server
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


async def ask(
    data: bytes, question_end: int, servers: Sequence[str], make_socket: SocketFactory, *, tcp: bool
) -> bytes | None:
    """The first server's answer to the query in `data`, or None if none answered."""
    for _ in range(ROUNDS):
        for server in servers:
            try:
                async with asyncio.timeout(TIMEOUT):
                    exchange = _over_tcp if tcp else _over_udp
                    return await exchange(data, question_end, server, make_socket)
            except (OSError, EOFError):  # no answer from this one: TimeoutError is an OSError
                continue
    return None


async def _over_udp(data: bytes, question_end: int, server: str, make_socket: SocketFactory) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    sock = await make_socket(server, family, socket.SOCK_DGRAM)
    try:
        await loop.sock_connect(sock, (server, PORT))
        identifier = secrets.token_bytes(2)
        await loop.sock_sendall(sock, identifier + data[2:])
        while True:
            answer = await loop.sock_recv(sock, 65535)
            if _answers(answer, identifier, data, question_end):
                return data[:2] + answer[2:]
    finally:
        sock.close()


async def _over_tcp(data: bytes, question_end: int, server: str, make_socket: SocketFactory) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    sock = await make_socket(server, family, socket.SOCK_STREAM)
    try:
        await loop.sock_connect(sock, (server, PORT))
        identifier = secrets.token_bytes(2)
        await loop.sock_sendall(sock, len(data).to_bytes(2, "big") + identifier + data[2:])
        length = int.from_bytes(await receive(sock, 2), "big")
        answer = await receive(sock, length)
        if not _answers(answer, identifier, data, question_end):
            raise EOFError("answer to another question")
        return data[:2] + answer[2:]
    finally:
        sock.close()


async def receive(sock: socket.socket, length: int) -> bytes:
    """Exactly `length` bytes; raises EOFError when the peer closes before."""
    loop = asyncio.get_running_loop()
    received = b""
    while len(received) < length:
        part = await loop.sock_recv(sock, length - len(received))
        if not part:
            raise EOFError("closed by peer")
        received += part
    return received


def _answers(answer: bytes, identifier: bytes, data: bytes, question_end: int) -> bool:
    return (
        len(answer) >= 12
        and answer[:2] == identifier
        and bool(answer[2] & 0x80)
        and (answer[4:6] != b"\0\1" or answer[12:question_end].lower() == data[12:question_end].lower())
    )
