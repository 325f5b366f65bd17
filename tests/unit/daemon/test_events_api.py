"""GET /events of a node: its manager's events, passed on whole, or with a line that says what is not."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from cluster.events import INDEX_HEADER, LOST, event_line, lost_line
from cluster.seams import SystemClock
from shoal.daemon.events_api import ClusterEvents, EventsAPI, Opened
from shoal.daemon.proxy import ManagerProxy
from worker.api.http import errors_middleware

Client = TestClient[web.Request, web.Application]


def line(name: str) -> bytes:
    return event_line("service", "create", name, {"name": name}, "swarm", 1)


class Manager:
    """A manager process's socket; what it streams is put in; None ends it, an exception breaks it off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.asked: list[str] = []

    async def start(self, stack: AsyncExitStack) -> None:
        app = web.Application()
        app.router.add_get("/v1.50/events", self._events)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.UnixSite(runner, str(self.path)).start()

    async def _events(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.query_string)
        if "refuse" in request.query:
            return web.json_response({"message": "no"}, status=400)
        response = web.StreamResponse(headers={INDEX_HEADER: "7"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        while (next_line := await self.lines.get()) is not None:
            if isinstance(next_line, Exception):
                assert request.transport is not None
                request.transport.close()
                break
            await response.write(next_line)
        return response


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def manager(tmp_path: Path, stack: AsyncExitStack) -> Manager:
    manager = Manager(tmp_path / "manager.sock")
    await manager.start(stack)
    return manager


@pytest.fixture
async def proxy(stack: AsyncExitStack) -> ManagerProxy:
    proxy = ManagerProxy()
    stack.push_async_callback(proxy.detach)
    return proxy


async def node(stack: AsyncExitStack, proxy: ManagerProxy, *more: Opened) -> Client:
    clock = SystemClock()

    def source(opened: Opened):  # type: ignore[no-untyped-def]
        async def lines() -> AsyncIterator[Opened]:
            yield opened

        return lambda _: asynccontextmanager(lines)()

    app = web.Application(middlewares=[errors_middleware])
    EventsAPI([ClusterEvents(proxy, "engine", clock), *map(source, more)], clock).routes(app)
    client: Client = TestClient(TestServer(app))
    await client.start_server()
    stack.push_async_callback(client.close)
    return client


async def test_passed_on_with_the_query_and_the_index(
    stack: AsyncExitStack, manager: Manager, proxy: ManagerProxy
) -> None:
    proxy.attach(str(manager.path))
    client = await node(stack, proxy)
    async with client.get("/v1.50/events?filters=%7B%22type%22%3A%5B%22service%22%5D%7D") as answer:
        assert answer.headers[INDEX_HEADER] == "7"
        manager.lines.put_nowait(line("web"))
        assert await answer.content.readline() == line("web")
        manager.lines.put_nowait(None)
        assert await answer.read() == b""
    assert manager.asked == ['filters={"type":["service"]}']


async def test_a_stream_that_breaks_off_says_so(
    stack: AsyncExitStack, manager: Manager, proxy: ManagerProxy
) -> None:
    proxy.attach(str(manager.path))
    client = await node(stack, proxy)
    async with client.get("/v1.50/events") as answer:
        manager.lines.put_nowait(line("web"))
        assert await answer.content.readline() == line("web")
        manager.lines.put_nowait(ConnectionError())
        lost = json.loads(await answer.content.readline())
        assert (lost["Type"], lost["Action"], lost["Actor"]["ID"]) == ("daemon", LOST, "engine")
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_what_the_manager_said_of_a_loss_is_not_said_again(
    stack: AsyncExitStack, manager: Manager, proxy: ManagerProxy
) -> None:
    proxy.attach(str(manager.path))
    client = await node(stack, proxy)
    async with client.get("/v1.50/events") as answer:
        manager.lines.put_nowait(lost_line("m", "why", "swarm", 1))
        assert await answer.content.readline() == lost_line("m", "why", "swarm", 1)
        manager.lines.put_nowait(ConnectionError())
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.readline()


async def test_without_a_manager_nothing_comes_until_there_is_one(
    stack: AsyncExitStack, manager: Manager, proxy: ManagerProxy
) -> None:
    client = await node(stack, proxy)
    async with client.get("/v1.50/events?until=1") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    async with client.get("/v1.50/events") as answer:
        assert INDEX_HEADER not in answer.headers
        proxy.attach(str(manager.path))
        manager.lines.put_nowait(line("web"))
        assert await answer.content.readline() == line("web")


async def test_refusals(stack: AsyncExitStack, manager: Manager, proxy: ManagerProxy, tmp_path: Path) -> None:
    proxy.attach(str(manager.path))
    client = await node(stack, proxy)
    for query in ("refuse=1", "since=2&until=1", "since=never", "filters=%7B%22hue%22%3A%5B%5D%7D"):
        async with client.get(f"/v1.50/events?{query}") as answer:
            assert answer.status == 400
    await proxy.detach()
    proxy.attach(str(tmp_path / "nobody.sock"))
    async with client.get("/v1.50/events") as answer:
        assert answer.status == 503


async def test_sources_are_merged_by_lines(
    stack: AsyncExitStack, manager: Manager, proxy: ManagerProxy
) -> None:
    async def own() -> AsyncIterator[bytes]:
        yield line("own")

    proxy.attach(str(manager.path))
    client = await node(stack, proxy, Opened({}, own()))
    async with client.get("/v1.50/events") as answer:
        assert await answer.content.readline() == line("own")
        manager.lines.put_nowait(line("web"))
        assert await answer.content.readline() == line("web")
