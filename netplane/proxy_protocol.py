"""The PROXY protocol for published ports: a small process of a node, which its daemon starts and may outlive.

    python -m netplane.proxy_protocol STATE

Rules redirect connections to published ports of services that asked for it to this process. It connects to
where the client wanted to, with a mark by which the same rules lead it to a task, and says first who the
client is (haproxy's doc/proxy-protocol.txt, versions 1 and 2). It needs no configuration: the rules know
which service is meant. STATE is written once it listens; then it gives up root, for which a root process
starts it. SIGTERM: take no more, and end with the last one.
"""

import asyncio
import contextlib
import ipaddress
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from netplane.privileges import NET_ADMIN, become_nobody, renounce

VERSIONS = ("v1", "v2")
MARK = 0x53485058
"""Of the connections that this process makes."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_PROXIED_STREAM = {4: b"\x21\x11", 6: b"\x21\x21"}
_ORIGINAL_DESTINATION = 80  # SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST
_CHUNK = 1 << 16

Address = tuple[str, int]


def header(version: str, client: Address, wanted: Address) -> bytes:
    """What a task is told of a connection: from whom, and to which published address."""
    source, destination = (ipaddress.ip_address(address[0]) for address in (client, wanted))
    if version == "v1":
        return f"PROXY TCP{source.version} {source} {destination} {client[1]} {wanted[1]}\r\n".encode()
    body = source.packed + destination.packed + struct.pack(">HH", client[1], wanted[1])
    return _SIGNATURE + _PROXIED_STREAM[source.version] + struct.pack(">H", len(body)) + body


def original_destination(sock: socket.socket) -> Address:
    """Where a redirected connection was going. Raises OSError for one that was not redirected."""
    if sock.family == socket.AF_INET6:
        data = sock.getsockopt(socket.IPPROTO_IPV6, _ORIGINAL_DESTINATION, 28)
        return socket.inet_ntop(socket.AF_INET6, data[8:24]), int.from_bytes(data[2:4], "big")
    data = sock.getsockopt(socket.IPPROTO_IP, _ORIGINAL_DESTINATION, 16)
    return socket.inet_ntop(socket.AF_INET, data[4:8]), int.from_bytes(data[2:4], "big")


class Proxy:
    """The connections of one process."""

    def __init__(self) -> None:
        self._serving: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self.stopping = asyncio.Event()

    async def listen(self) -> dict[str, int]:
        """Listen for each version, by IPv4 and IPv6 on the same port. Returns the ports."""
        ports = {}
        for version in VERSIONS:
            sockets = _listeners()
            ports[version] = int(sockets[0].getsockname()[1])
            for sock in sockets:
                self._servers.append(await asyncio.start_server(self._accepting(version), sock=sock))
        return ports

    async def drain(self) -> None:
        """Take no more connections, and wait for the last one to end."""
        for server in self._servers:
            server.close()
        while self._serving:
            await asyncio.wait(self._serving)

    def _accepting(
        self, version: str
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._serving.add(task)
            try:
                await _serve(version, reader, writer)
            finally:
                self._serving.discard(task)

        return accept


async def _serve(version: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    try:
        wanted, own = original_destination(sock), writer.get_extra_info("sockname")
        if wanted[1] == own[1]:  # it came here by itself
            raise ConnectionAbortedError
        out = socket.socket(sock.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
            await asyncio.get_running_loop().sock_connect(out, wanted)
        except OSError:
            out.close()
            raise
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # as if refused
        writer.transport.abort()
        return
    task_reader, task_writer = await asyncio.open_connection(sock=out)
    task_writer.write(header(version, writer.get_extra_info("peername")[:2], wanted))
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_relay(reader, task_writer))
            both.create_task(_relay(task_reader, writer))
    except* OSError:  # one end broke off: so does the other
        for each in (writer, task_writer):
            each.transport.abort()
    for each in (writer, task_writer):
        each.close()
        with contextlib.suppress(OSError):
            await each.wait_closed()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def _listeners() -> list[socket.socket]:
    """Sockets on one free port, by IPv4 and, if the host has it, IPv6."""
    first = _listener(socket.AF_INET, 0)
    port = int(first.getsockname()[1])
    try:
        return [first, _listener(socket.AF_INET6, port)]
    except OSError:
        return [first]


def _listener(family: socket.AddressFamily, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("", port))
        sock.listen(1024)
    except OSError:
        sock.close()
        raise
    return sock


async def main(state: Path) -> None:
    """Run until SIGTERM and the end of the last connection."""
    proxy = Proxy()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, proxy.stopping.set)
    ports = await proxy.listen()
    renounce()
    written = state.with_suffix(".new")
    written.write_text(json.dumps({"pid": os.getpid(), "ports": ports}))
    written.replace(state)
    become_nobody(NET_ADMIN)  # for the mark
    await proxy.stopping.wait()
    await proxy.drain()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
