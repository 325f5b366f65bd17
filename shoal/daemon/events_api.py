"""GET /events on a node: the events of its sources, merged line by line: the cluster's, through this node's
manager, and the node's own."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import NamedTuple

import aiohttp
from aiohttp import web

from cluster.errors import InvalidArgument, ShoalError
from cluster.event_ring import EventsLost
from cluster.events import FILTERS, INDEX_HEADER, is_lost, lost_line
from cluster.seams import SECOND, Clock
from shoal.daemon.proxy import ManagerProxy
from worker.api.events import local_events
from worker.api.http import add_route, filters
from worker.api.timestamps import parse_timestamp
from worker.events import EngineEvents


class BrokenOff(Exception):
    """A source can tell no more events; its last line has said so."""


class Opened(NamedTuple):
    """A source's events for one request: whole lines, without an end unless `until` was given.

    Iterating raises BrokenOff when the source can tell no more.
    """

    headers: dict[str, str]
    lines: AsyncIterator[bytes]


Source = Callable[[web.Request], AbstractAsyncContextManager[Opened]]
"""Opens the events that a request asks for. Raises ShoalError when it can't."""


class ClusterEvents:
    """The cluster's events, from this node's manager; nothing happens while the node has none."""

    def __init__(self, proxy: ManagerProxy, engine_id: str, clock: Clock) -> None:
        self._proxy = proxy
        self._engine_id = engine_id
        self._clock = clock

    @contextlib.asynccontextmanager
    async def __call__(self, request: web.Request) -> AsyncGenerator[Opened]:
        """Open them."""
        if not self._proxy.attached:
            yield Opened({}, self._later(request))
            return
        async with self._proxy.open(request) as answer:
            yield Opened({INDEX_HEADER: answer.headers[INDEX_HEADER]}, self._lines(answer))

    async def _later(self, request: web.Request) -> AsyncIterator[bytes]:
        if 0 < _until(request) <= self._clock.now():
            return
        await self._proxy.wait_attached()
        try:
            async with self._proxy.open(request) as answer:
                async for line in self._lines(answer):
                    yield line
        except ShoalError as error:
            yield self._lost(str(error))
            raise BrokenOff from error

    async def _lines(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        line = b""
        try:
            async for line in answer.content:
                yield line
        except (aiohttp.ClientError, OSError) as error:
            if not is_lost(line):
                reason = str(error) or type(error).__name__
                yield self._lost(f"this node's manager broke off ({reason})")
            raise BrokenOff from error

    def _lost(self, why: str) -> bytes:
        text = f"events were lost: {why}; list what you follow, and follow it again"
        return lost_line(self._engine_id, text, "swarm", self._clock.now())


class LocalEvents:
    """The node's own events."""

    def __init__(self, events: EngineEvents, engine_id: str, clock: Clock) -> None:
        self._events = events
        self._engine_id = engine_id
        self._clock = clock

    @contextlib.asynccontextmanager
    async def __call__(self, request: web.Request) -> AsyncGenerator[Opened]:
        """Open them."""
        yield Opened({}, self._lines(request))

    async def _lines(self, request: web.Request) -> AsyncIterator[bytes]:
        try:
            async for line in local_events(self._events, self._engine_id, self._clock, request):
                yield line
        except EventsLost as error:
            raise BrokenOff from error


class EventsAPI:
    """The route."""

    def __init__(self, sources: Sequence[Source], clock: Clock) -> None:
        self._sources = sources
        self._clock = clock

    def routes(self, app: web.Application) -> None:
        """Add the handler."""
        add_route(app, "GET", "/events", self.events)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET /events. A stream that has lost events says so and breaks off without the answer's end mark."""
        filters(request, set(FILTERS))
        since, until = parse_timestamp(request.query.get("since", "")), _until(request)
        if since and until and since > until:
            raise InvalidArgument("`since` time cannot be after `until` time")
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(source(request)) for source in self._sources]
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            for source in opened:
                response.headers.update(source.headers)
            response.enable_chunked_encoding()
            await response.prepare(request)
            left = (until - self._clock.now()) / SECOND if until else None
            with contextlib.suppress(TimeoutError):  # `until` has come
                async with asyncio.timeout(left if left and left > 0 else None):
                    await _pump_all(opened, response, request)
            return response


def _until(request: web.Request) -> int:
    return parse_timestamp(request.query.get("until", ""))


async def _pump_all(opened: Sequence[Opened], response: web.StreamResponse, request: web.Request) -> None:
    try:
        async with asyncio.TaskGroup() as pumps:
            for source in opened:
                pumps.create_task(_pump(source.lines, response))
    except* (BrokenOff, ConnectionError):  # or the client has gone
        if request.transport is not None:
            request.transport.close()


async def _pump(lines: AsyncIterator[bytes], response: web.StreamResponse) -> None:
    async for line in lines:
        await response.write(line)
