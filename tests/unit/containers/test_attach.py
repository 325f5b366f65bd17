"""Attaching to a container's monitor, which here is only a socket that speaks as conmon does."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.fakes.clock import ManualClock
from tests.fakes.engine import EngineRuntime, fake_engine
from worker.api import containers
from worker.api.http import errors_middleware
from worker.containers.containers import Containers
from worker.containers.request import CreateRequest

HEAD = b"POST /containers/web/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


class Monitor:
    """Says "out" and "err", then what it is told; ends when its input ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(str(path))
        self._socket.listen()
        self._socket.setblocking(False)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(self._socket)
        connection.setblocking(False)
        with connection:
            await loop.sock_sendall(connection, b"\x02out")
            await loop.sock_sendall(connection, b"\x03err")
            while data := await loop.sock_recv(connection, 8192):
                await loop.sock_sendall(connection, b"\x02" + data.upper())

    def close(self) -> None:
        self._socket.close()


class Attachable(EngineRuntime):
    """A runtime whose containers have one monitor."""

    def __init__(self, clock: ManualClock, monitor: Monitor) -> None:
        super().__init__(clock)
        self._monitor = monitor

    def attach_path(self, id: str) -> Path:
        return self._monitor.path


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    clock = ManualClock()
    monitor = Monitor(tmp_path / "attach")
    runtime = Attachable(clock, monitor)
    engine = fake_engine(tmp_path, clock, runtime)
    standalone = Containers(engine, clock, random.Random(2))
    request = CreateRequest(image="busybox", open_stdin=True)
    await standalone.create("web", request)
    app = web.Application(middlewares=[errors_middleware])
    containers.routes(app, engine, standalone)
    serving = asyncio.create_task(monitor.serve())
    async with TestClient(TestServer(app)) as made:
        yield made
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    monitor.close()
    await runtime.close()


async def test_before_the_start(client: TestClient[web.Request, web.Application]) -> None:
    reader, writer = await asyncio.open_connection(client.server.host, client.server.port)
    writer.write(HEAD + UPGRADE)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"application/vnd.docker.multiplexed-stream" in head
    async with client.post("/containers/web/start") as answer:
        assert answer.status == 204
    assert await reader.readexactly(22) == b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err"
    writer.write(b"word")
    assert await reader.readexactly(12) == b"\x01\0\0\0\0\0\0\x04WORD"
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()


async def test_over_a_websocket(client: TestClient[web.Request, web.Application]) -> None:
    async with client.post("/containers/web/start"):
        pass
    async with client.ws_connect("/containers/web/attach/ws?stream=1&stdin=1&stdout=1") as talk:
        assert await talk.receive_bytes() == b"out"
        await talk.send_str("word")
        assert await talk.receive_bytes() == b"WORD"
