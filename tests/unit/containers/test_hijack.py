"""Connections that are taken over: raw and framed bytes, a client that closes its side, one that goes."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from worker.api.hijack import Done, Hijacked
from worker.api.interactive import Pair, carry

HEAD = b"POST /talk HTTP/1.1\r\nHost: x\r\n%s\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"


class Echo:
    """A process that says what it is told, in capitals on the other stream, until its input ends."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = False

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        yield 1, b"hello "
        while data := await self._said.get():
            yield 2, data.upper()
        yield 1, b"bye"

    async def write(self, data: bytes) -> None:
        await self._said.put(data)

    async def close_input(self) -> None:
        self.closed = True
        await self._said.put(b"")


class Server:
    def __init__(
        self, *, raw: bool, streams: frozenset[int] = frozenset((1, 2)), keys: bytes | None = None
    ) -> None:
        self.process = Echo()
        self.gone = asyncio.Event()
        self._raw, self._streams, self._keys = raw, streams, keys
        app = web.Application()
        app.router.add_post("/talk", self._talk)
        self.server = TestServer(app, handler_cancellation=True)

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        try:
            async with Hijacked(request, {"Content-Type": "application/x"}) as client:
                pair = Pair(self.process, raw=self._raw, stdin=True, streams=self._streams)
                await carry(client, pair, keys=self._keys)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.gone.set()
        return Done()

    async def open(self, headers: bytes = UPGRADE) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await self.server.start_server()
        reader, writer = await asyncio.open_connection(self.server.host, self.server.port)
        writer.write(HEAD % headers)
        return reader, writer


@pytest.mark.parametrize("headers", [UPGRADE, b"", UPGRADE + b"Content-Length: 2\r\n"])
async def test_half_closed(headers: bytes) -> None:
    server = Server(raw=True)
    reader, writer = await server.open(headers)
    if b"Length" in headers:
        writer.write(b"{}")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 UPGRADED" if headers else b"HTTP/1.1 200 OK")
    assert (b"Upgrade: tcp" in head) is bool(headers)
    if headers:
        writer.write(b"abc")
        writer.write_eof()
        assert await reader.read() == b"hello ABCbye"
        assert server.process.closed
    writer.close()
    await server.gone.wait()
    await server.server.close()


async def test_frames_and_unwanted_streams() -> None:
    server = Server(raw=False, streams=frozenset((1,)))
    reader, writer = await server.open()
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"abc")
    writer.write_eof()
    assert await reader.read() == b"\x01\0\0\0\0\0\0\x06hello \x01\0\0\0\0\0\0\x03bye"
    writer.close()
    await server.server.close()


async def test_a_client_that_goes_and_one_that_detaches() -> None:
    server = Server(raw=True)
    reader, writer = await server.open()
    await reader.readuntil(b"hello ")
    writer.transport.abort()
    await asyncio.wait_for(server.gone.wait(), 5)
    await server.server.close()

    server = Server(raw=True, keys=b"\x10\x11")
    reader, writer = await server.open()
    await reader.readuntil(b"hello ")
    writer.write(b"ab\x10\x11")
    await reader.read()
    assert not server.process.closed
    writer.close()
    await server.server.close()


async def test_a_slow_client_holds_the_process_up() -> None:
    server = Server(raw=True)
    reader, writer = await server.open()
    await reader.readuntil(b"hello ")
    sent = 0
    for _ in range(64):
        writer.write(b"x" * 65536)
        sent += 65536
    writer.write_eof()
    assert len(await reader.read()) == sent + len(b"bye")
    writer.close()
    await server.server.close()
