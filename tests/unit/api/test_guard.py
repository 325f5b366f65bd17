"""Clients that mean ill, or are broken, against real servers: cut off with a word, and others are served."""

import asyncio
import contextlib
import io
import json
import os
import resource
import sys
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from manager.api.app import engine_app, errors
from manager.api.request import answer, body
from manager.guard import Bounds, Guard
from tests.unit.api.manager import LoneManager

BOUNDS = Bounds(
    connections=20,
    head_timeout=0.3,
    head_bytes=100_000,
    all_heads=300_000,
    idle_timeout=0.5,
    body_bytes=1 << 20,
    body_timeout=0.4,
    all_bodies=2 << 20,
)
GET = b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n"


class Server:
    """A guarded server on a unix socket."""

    def __init__(self, path: Path, stack: AsyncExitStack, bounds: Bounds = BOUNDS) -> None:
        self.path, self.stack, self.guard = path, stack, Guard(bounds)
        self.handled = 0
        self.release = asyncio.Event()

    async def start(self, app: web.Application | None = None) -> "Server":
        if app is None:
            app = web.Application(middlewares=[errors, self.guard.bodies], client_max_size=BOUNDS.body_bytes)
            app.router.add_get("/ok", self.ok)
            app.router.add_post("/json", self.json)
            app.router.add_post("/held", self.held)
            app.router.add_get("/endless", self.endless)
        runner = self.guard.runner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        self.stack.push_async_callback(runner.cleanup)
        await web.UnixSite(runner, str(self.path)).start()
        return self

    async def ok(self, request: web.Request) -> web.Response:
        self.handled += 1
        return answer("ok")

    async def json(self, request: web.Request) -> web.Response:
        return answer(len(await body(request, dict[str, object])))

    async def held(self, request: web.Request) -> web.Response:
        self.handled += 1
        await self.release.wait()
        return answer(len(await request.read()))

    async def endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(65536))
            self.handled += 1

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        self.stack.callback(writer.close)
        return reader, writer

    async def served(self) -> bool:
        """Whether a well-behaved client is."""
        reader, writer = await self.connect()
        writer.write(GET)
        status = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        return b" 200 " in status


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with AsyncExitStack() as stack:
        yield await Server(tmp_path / "api.sock", stack).start()


async def farewell(reader: asyncio.StreamReader) -> tuple[int, str]:
    """The status and message with which the server ends a connection."""
    text = await asyncio.wait_for(reader.read(), 10)
    head, _, content = text.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content)["message"]


# --- what comes too slowly --------------------------------------------------------------------------------


async def test_a_head_that_drips_is_cut_off(server: Server) -> None:
    reader, writer = await server.connect()

    async def drip() -> None:
        # Past the transport, which would forget the answer when a write comes after the end.
        descriptor = writer.get_extra_info("socket").fileno()
        with contextlib.suppress(BrokenPipeError):
            for byte in GET:
                os.write(descriptor, bytes((byte,)))
                await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    assert await farewell(reader) == (408, "no complete request came within 0 s")
    dripping.cancel()
    assert server.guard.heads == 0
    assert await server.served()


async def test_a_second_head_that_drips_is_cut_off_too(server: Server) -> None:
    reader, writer = await server.connect()
    writer.write(GET)
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(len(b'"ok"'))
    writer.write(b"GET /ok HT")
    assert (await farewell(reader))[0] == 408


async def test_a_body_that_does_not_come_is_cut_off(server: Server) -> None:
    reader, writer = await server.connect()
    writer.write(b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    status, message = await farewell(reader)
    assert status == 408
    assert "not complete" in message
    assert await server.served()


async def test_idle_connections_are_closed(server: Server) -> None:
    reader, writer = await server.connect()
    writer.write(GET)
    assert await asyncio.wait_for(reader.read(), 5)  # to its end
    assert not server.guard.connections


# --- what is too large ------------------------------------------------------------------------------------


async def test_a_body_of_a_gigabyte_is_refused_before_it_comes(server: Server) -> None:
    reader, writer = await server.connect()
    writer.write(b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
    status = await asyncio.wait_for(reader.readline(), 5)
    assert b" 413 " in status


async def test_an_endless_body_is_refused_and_not_kept(server: Server) -> None:
    async def gigabyte() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield bytes(1 << 20)

    tracemalloc.start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(server.path))) as http:
            try:
                async with http.post("http://x/json", data=gigabyte()) as response:
                    assert response.status == 413
                    assert "larger than" in (await response.json())["message"]
            except aiohttp.ClientConnectionError:
                pass  # the server stopped reading before the client had read the answer
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30 << 20
    assert await server.served()


async def test_endless_headers_are_refused(server: Server) -> None:
    reader, writer = await server.connect()
    writer.write(b"GET /ok HTTP/1.1\r\n")
    for number in range(200):
        writer.write(b"X-%d: " % number + bytes(1000).replace(b"\0", b"x") + b"\r\n")
    assert (await farewell(reader))[0] in (400, 431)
    assert await server.served()


async def test_incomplete_heads_of_many_connections_are_bounded_together(server: Server) -> None:
    readers = []
    for _ in range(5):
        reader, writer = await server.connect()
        writer.write(b"GET /ok HTTP/1.1\r\nX: " + b"x" * 80_000)
        readers.append(reader)
    while server.guard.heads < 200_000:
        await asyncio.sleep(0.01)
    ends = [asyncio.create_task(farewell(reader)) for reader in readers]
    statuses = sorted([(await end)[0] for end in ends])
    assert statuses.count(503) >= 1
    assert set(statuses) == {408, 503}
    assert server.guard.heads == 0


async def test_large_bodies_wait_for_their_turn(server: Server) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(server.path))) as http:

        async def post() -> int:
            async with http.post("http://x/held", data=bytes(1 << 20)) as response:
                return response.status

        posts = [asyncio.create_task(post()) for _ in range(4)]
        while server.handled < 2:
            await asyncio.sleep(0.01)
        assert await server.served()
        refused = [task for task in posts if task.done()]
        assert not refused
        done, _ = await asyncio.wait(posts, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        server.release.set()
        assert sorted([await task for task in posts]) == [200, 200, 503, 503]
        assert done


async def test_deeply_nested_json_is_refused(server: Server) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(server.path))) as http:
        for opening, closing in ((b'{"a":', b"}"), (b"[", b"]")):
            content = b'{"a":' + opening * 100_000 + b"1" + closing * 100_000 + b"}"
            async with http.post("http://x/json", data=content) as response:
                assert response.status == 400
                assert "invalid request body" in (await response.json())["message"]


# --- what there is too much of ----------------------------------------------------------------------------


async def test_more_connections_than_allowed_are_told_so(server: Server) -> None:
    writers = [(await server.connect())[1] for _ in range(BOUNDS.connections)]
    reader, _ = await server.connect()
    assert await farewell(reader) == (503, "too many connections: try again shortly")
    for writer in writers:
        writer.close()
    while server.guard.connections:
        await asyncio.sleep(0.01)
    assert await server.served()


async def test_many_small_requests_on_one_connection_are_answered_in_order_and_not_piled_up(
    server: Server,
) -> None:
    reader, writer = await server.connect()
    count = 5_000

    async def send() -> None:
        for _ in range(count // 100):
            writer.write(GET * 100)
            await writer.drain()

    tracemalloc.start()
    try:
        sending = asyncio.create_task(send())
        for number in range(count):
            await reader.readuntil(b'"ok"')
            if number == count // 2:
                assert await server.served()
        await sending
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20


async def test_a_reader_that_never_reads_holds_up_only_itself(server: Server) -> None:
    _, writer = await server.connect()
    writer.write(GET.replace(b"/ok", b"/endless"))
    seen = -1
    while seen != server.handled:
        seen = server.handled
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
    assert server.handled * 65536 < 8 << 20  # what the kernel's and our buffers hold, and no more
    assert await server.served()


# --- what is no HTTP --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /ok HTTP/1.1\r\nContent-Length: minus one\r\n\r\n",
        b"GET /ok HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /ok HTTP/1.1\r\nHo st: x\r\n\r\n",
        b"GET /ok HTTP/1.1\r\nA: " + b"x" * 2000 + b"\0\r\n\r\n",
    ],
)
async def test_bad_http_is_answered_in_docker_s_shape(
    server: Server, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await server.connect()
    writer.write(sent)
    status, message = await farewell(reader)
    assert status == 400
    assert "no HTTP request" in message
    assert "Traceback" not in caplog.text


async def test_a_bad_chunk_is_a_bad_request(server: Server) -> None:
    reader, writer = await server.connect()
    writer.write(b"POST /json HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    status, _ = await farewell(reader)
    assert status == 400


# --- the manager's own API --------------------------------------------------------------------------------


async def test_the_api_of_a_manager_bears_them_too(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = Server(tmp_path / "m.sock", stack, replace(BOUNDS, idle_timeout=5.0))
        app = engine_app(LoneManager())
        app.middlewares.append(server.guard.bodies)
        await server.start(app)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(server.path))) as http:
            nested = b'{"Labels":' * 50_000 + b"1" + b"}" * 50_000
            for path in ("services/create", "configs/create", "secrets/create", "networks/create"):
                async with http.post(f"http://x/{path}", data=nested) as response:
                    assert response.status == 400
                async with http.post(f"http://x/{path}", data=io.BytesIO(bytes(2 << 20))) as response:
                    assert response.status == 413
            for query in ("filters=" + "[" * 5000, "filters=" + '{"a":' * 5000, "filters=%00"):
                async with http.get(f"http://x/services?{query}") as response:
                    assert response.status == 400
                    assert (await response.json())["message"]


# --- files ------------------------------------------------------------------------------------------------

_POOR = """
import asyncio, logging, resource, sys
from aiohttp import web
from manager.guard import Bounds, Guard, calm_accepts

async def main():
    calm_accepts(asyncio.get_running_loop())
    guard = Guard(Bounds())
    app = web.Application(middlewares=[guard.bodies])
    async def ok(request):
        return web.json_response("ok")
    app.router.add_get("/ok", ok)
    runner = guard.runner(app)
    await runner.setup()
    await web.UnixSite(runner, sys.argv[1]).start()
    print("ready", flush=True)
    await asyncio.Event().wait()

logging.basicConfig(stream=sys.stdout)
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
asyncio.run(main())
"""


async def test_a_server_without_files_left_says_so_once_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "poor.sock"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _POOR, str(path), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        async with AsyncExitStack() as stack:
            server = Server(path, stack)
            writers = [(await server.connect())[1] for _ in range(100)]
            assert b"can't accept" in await asyncio.wait_for(process.stdout.readline(), 10)
            for writer in writers:
                writer.close()
            async with asyncio.timeout(20):
                while not await server.served():
                    await asyncio.sleep(0.02)
    finally:
        process.kill()
        rest, _ = await process.communicate()
    assert rest.count(b"\n") <= 2


def test_clients_get_a_share_of_the_files_that_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert Bounds().within(0.25).connections == 256
    assert Bounds(anonymous=200).within(0.25).anonymous == 128
    assert Bounds(connections=5, anonymous=2).within(0.25) == Bounds(connections=5, anonymous=2)


async def test_a_server_that_stops_ends_what_goes_on_and_on_and_waits_for_the_rest() -> None:
    guard, ended, asked = Guard(Bounds()), asyncio.Event(), asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first\n")
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return response

    async def slow(_: web.Request) -> web.Response:
        asked.set()
        await ended.wait()  # the stream is ended while this is still being answered
        return web.Response(text="done")

    app = web.Application()
    app.router.add_get("/events", events)
    app.router.add_get("/slow", slow)
    runner = guard.runner(app, shutdown_timeout=60.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as client:
        following = await client.get("/events")
        assert await following.content.readline() == b"first\n"
        waiting = asyncio.ensure_future(client.get("/slow"))
        await asked.wait()
        async with asyncio.timeout(30):
            await runner.cleanup()
        assert (await (await waiting).text()) == "done"
        with pytest.raises(aiohttp.ClientPayloadError):
            await following.read()
