"""Connections that are taken over: raw and framed bytes, a client that closes its side, one that goes."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from worker.api.hijack import Done, Hijacked
from worker.api.interactive import Pair, carry

HEAD = b"POST /talk HTTP/1.1\r\nHost: x\r\n%s\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"


class Echo:
    """A process that says what it is told, in capitals on the other stream, until its input ends."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = False

    async def output(self) -> AsyncGenerator[tuple[int, bytes], None]:
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


class Lost:
    """A client that goes while it is being written to."""

    async def read(self) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def write(self, data: bytes) -> None:
        raise ConnectionResetError("gone")

    async def gone(self) -> None:
        await asyncio.Event().wait()


class Counted(Echo):
    """Knows how many read what it says."""

    readers = 0

    async def output(self) -> AsyncGenerator[tuple[int, bytes], None]:
        self.readers += 1
        try:
            async for said in super().output():
                yield said
        finally:
            for _ in range(5):  # as a real one, which lets its own readers end
                await asyncio.sleep(0)
            self.readers -= 1


async def test_nobody_reads_on_for_a_client_that_has_gone() -> None:
    """Another reader takes its place then, and two would take each other's turn."""
    process = Counted()
    await carry(Lost(), Pair(process, raw=True, stdin=True, streams=frozenset((1,))), keys=None)
    assert process.readers == 0


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


class HalfClosing:
    """A TLS client that can close its side and read on, as Go's can."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out)

    async def _until(self, step: Callable[[], bytes | None]) -> bytes | None:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._writer.write(self._out.read())
                self._in.write(await self._reader.read(65536))
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            finally:
                self._writer.write(self._out.read())

    async def handshake(self) -> None:
        await self._until(self._tls.do_handshake)

    def write(self, data: bytes) -> None:
        self._tls.write(data)
        self._writer.write(self._out.read())

    def close_side(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._writer.write(self._out.read())

    async def read(self) -> bytes:
        return await self._until(lambda: self._tls.read(65536)) or b""

    async def read_to_the_end(self) -> bytes:
        found = b""
        while data := await self.read():
            found += data
        return found


def tls_context(directory: Path) -> ssl.SSLContext:
    """A server's, with a certificate of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1)
        )
    ).sign(key, hashes.SHA256())
    path = directory / "server.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def test_half_closed_over_tls(tmp_path: Path) -> None:
    server = Server(raw=True)
    await server.server.start_server(ssl=tls_context(tmp_path))
    reader, writer = await asyncio.open_connection(server.server.host, server.server.port)
    client = HalfClosing(reader, writer)
    await client.handshake()
    client.write(HEAD % UPGRADE)
    said = b""
    while b"hello " not in said:
        said += await client.read()
    assert said.startswith(b"HTTP/1.1 101 UPGRADED")
    client.write(b"x" * 300_000)
    client.close_side()
    assert await client.read_to_the_end() == b"X" * 300_000 + b"bye"
    await server.gone.wait()
    writer.close()
    await server.server.close()


class Deaf(Echo):
    """Goes on in silence when its input has ended."""

    async def close_input(self) -> None:
        self.closed = True


async def test_a_listener_that_goes_is_noticed(tmp_path: Path) -> None:
    server = Server(raw=True)
    server.process = Deaf()
    runner = web.AppRunner(server.server.app, handler_cancellation=True)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "socket")).start()
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "socket"))
    writer.write(HEAD % UPGRADE)
    await reader.readuntil(b"hello ")
    writer.write_eof()
    await server.process.write(b"more")
    assert await reader.readexactly(4) == b"MORE"  # it still listens
    assert not server.gone.is_set()
    writer.close()
    await asyncio.wait_for(server.gone.wait(), 10)
    await runner.cleanup()
