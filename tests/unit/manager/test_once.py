"""A write whose connection breaks is never sent again: nobody knows whether it was carried out."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from cluster.errors import Unavailable
from cluster.seams import SystemClock
from cluster.spec import ClusterSpec
from manager.ca.authority import first_identity, found_cluster
from manager.rpc.leader import LeaderClient
from shoal.daemon.proxy import ManagerProxy
from worker.api.http import errors_middleware

KEPT_OPEN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"


class Breaking:
    """A server that answers the first request of a connection, and breaks the connection at the second."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            for number in range(2):
                head = await reader.readuntil(b"\r\n\r\n")
                self.received.append(head.split(b" ", 1)[0].decode())
                if number == 0:
                    writer.write(KEPT_OPEN)
                    await writer.drain()
        except asyncio.IncompleteReadError:
            pass  # the client went first
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def ended(self) -> None:
        """Wait until all connections are closed on this side, too."""
        if self._serving:
            await asyncio.wait(self._serving, timeout=5)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_by_a_manager_to_the_leader(stack: AsyncExitStack) -> None:
    server = Breaking()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    await stack.enter_async_context(listener)
    stack.push_async_callback(server.ended)
    clock, rng = SystemClock(), random.Random(1)
    identity = first_identity(found_cluster(ClusterSpec(), clock=clock, rng=rng), "node", clock)
    client = LeaderClient("node", lambda: None, identity, clock)
    stack.push_async_callback(client.close)
    url = "http://{}:{}/configs/x".format(*listener.sockets[0].getsockname())
    async with client._request("GET", url) as answer:
        assert await answer.read() == b"OK"
    with pytest.raises(Unavailable, match="may or may not have taken effect"):
        async with client._request("DELETE", url):
            pass
    assert server.received == ["GET", "DELETE"]


@pytest.mark.parametrize(
    ("method", "status", "received"),
    [("DELETE", 503, ["GET", "DELETE"]), ("GET", 200, ["GET", "GET", "GET"])],
)
async def test_by_a_node_to_its_manager(
    stack: AsyncExitStack, tmp_path: Path, method: str, status: int, received: list[str]
) -> None:
    server = Breaking()
    path = str(tmp_path / "manager.sock")
    await stack.enter_async_context(await asyncio.start_unix_server(server.serve, path))
    stack.push_async_callback(server.ended)
    proxy = ManagerProxy()
    proxy.attach(path)
    stack.push_async_callback(proxy.detach)
    app = web.Application(middlewares=[errors_middleware])
    app.router.add_route("*", "/configs/x", proxy.forward)
    client: TestClient[web.Request, web.Application] = TestClient(TestServer(app))
    await stack.enter_async_context(client)
    assert (await client.get("/configs/x")).status == 200
    assert (await client.request(method, "/configs/x")).status == status
    assert server.received == received
