"""HTTP servers that bad clients can't hurt: what one connection, and all of them, may take.

aiohttp bounds lines and queues, and leaves open how long a request may take to arrive, how large all its
headers may be together, and how many connections there may be. A client that is cut off is told why, in
Docker's shape. docs/limits.md lists the bounds.
"""

import asyncio
import json
import logging
import resource
from asyncio.sslproto import SSLProtocol
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from cluster.errors import ShoalError, Unavailable

log = logging.getLogger("shoal.http")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MIB = 1 << 20
FREE_BODY = 64 << 10
"""A body up to this size is read without asking for a share of the memory."""
TLS_BUFFER = 64 << 10
_SAID_AGAIN = 5.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """Times in seconds, sizes in bytes."""

    connections: int = 4096
    """More are told to try again."""
    anonymous: int = 4096
    """Of these, connections that showed no client certificate."""
    head_timeout: float = 30.0
    """From a connection's start, or a request's first byte, until its headers are complete."""
    head_bytes: int = MIB + (64 << 10)
    """All headers of one request together."""
    all_heads: int = 32 * MIB
    """The incomplete headers of all connections together."""
    idle_timeout: float = 600.0
    """A connection without a request."""
    body_bytes: int = 8 * MIB
    body_timeout: float = 60.0
    all_bodies: int = 64 * MIB
    """Bodies that are being read or handled at the same time; others wait for their turn."""

    def within(self, share: float) -> "Bounds":
        """These, but no more connections than that share of the files that this process may have open.

        The rest is for what must go on when clients take all that they can: Raft, containers, images, logs.
        """
        open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        affordable = max(8, int(open_files * share))
        return replace(
            self,
            connections=min(self.connections, affordable),
            anonymous=min(self.anonymous, max(4, affordable // 2)),
        )


class TooLargeBody(ShoalError):
    """The request's body is larger than any that makes sense (413)."""

    status = 413


class SlowBody(ShoalError):
    """The request's body did not come (408)."""

    status = 408


class Guard:
    """What the connections of one server share."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.connections: set[object] = set()
        self.anonymous: set[object] = set()
        self.heads = 0
        self._bodies = 0
        self._freed = asyncio.Condition()
        self._streams: set[asyncio.Task[Any]] = set()
        self._said = 0.0

    def runner(self, app: web.Application, **settings: Any) -> web.AppRunner:
        """A runner of the application whose connections keep to the bounds; not set up yet.

        Its clean-up ends answers that go on and on (events, followed logs) at once, and waits for others.
        """
        app.on_response_prepare.append(self._note_stream)
        app.on_shutdown.append(self._end_streams)
        return _Runner(
            self,
            app,
            access_log=None,
            keepalive_timeout=self.bounds.idle_timeout,
            lingering_time=2.0,
            max_line_size=MIB,
            max_field_size=MIB,
            **settings,
        )

    async def _note_stream(self, _: web.Request, response: web.StreamResponse) -> None:
        finite = response.content_length is not None or isinstance(response, web.Response)
        if not finite and not isinstance(response, web.WebSocketResponse):
            task = asyncio.current_task()
            assert task is not None, "a handler runs in a task"
            self._streams.add(task)
            task.add_done_callback(self._streams.discard)

    async def _end_streams(self, _: web.Application) -> None:
        for task in self._streams:
            task.cancel()

    @web.middleware
    async def bodies(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Read the body whole before the handler runs. For applications without streams."""
        return await self.with_body(request, handler)

    async def with_body(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The handler's answer, with the body read. Raises TooLargeBody, SlowBody, Unavailable."""
        bounds = self.bounds
        if not request.body_exists or request.match_info.http_exception is not None:
            return await handler(request)
        length = request.content_length
        if length is not None and length > bounds.body_bytes:
            raise _too_large(bounds)
        share = bounds.body_bytes if length is None else length
        share = 0 if share <= FREE_BODY else share
        await self._take(share)
        try:
            try:
                async with asyncio.timeout(bounds.body_timeout):
                    await request.read()
            except TimeoutError:
                raise SlowBody(
                    f"the request's body was not complete after {bounds.body_timeout:.0f} s"
                ) from None
            except web.HTTPRequestEntityTooLarge:
                raise _too_large(bounds) from None
            return await handler(request)
        finally:
            await self._give(share)

    async def _take(self, share: int) -> None:
        if share == 0:
            return
        try:
            async with asyncio.timeout(self.bounds.body_timeout), self._freed:
                await self._freed.wait_for(lambda: self._bodies + share <= self.bounds.all_bodies)
                self._bodies += share
        except TimeoutError:
            raise Unavailable("too many large requests at the same time: try again shortly") from None

    async def _give(self, share: int) -> None:
        if share:
            self._bodies -= share
            async with self._freed:
                self._freed.notify_all()

    def complain(self, what: str) -> None:
        """Log, but not once for each of a flood."""
        now = asyncio.get_running_loop().time()
        if now - self._said > _SAID_AGAIN:
            self._said = now
            log.warning(what, extra={"connections": len(self.connections)})


def frugal_tls() -> None:
    """Let a TLS connection take 64 KiB for what it receives, not 256: a manager has one to each node."""
    SSLProtocol.max_size = TLS_BUFFER


def calm_accepts(loop: asyncio.AbstractEventLoop) -> None:
    """Say in one line what asyncio says a hundred times over: that a connection can't be accepted for want of
    files. It tries again after a second, by itself."""
    said = -_SAID_AGAIN

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal said
        if not str(context.get("message", "")).startswith("socket.accept() out of system resource"):
            loop.default_exception_handler(context)
        elif loop.time() - said > _SAID_AGAIN:
            said = loop.time()
            log.error("can't accept connections for now: %s", context.get("exception"))

    loop.set_exception_handler(handle)


def _too_large(bounds: Bounds) -> TooLargeBody:
    return TooLargeBody(f"the request's body is larger than {bounds.body_bytes} bytes")


class _Runner(web.AppRunner):
    __slots__ = ("_guard",)

    def __init__(self, guard: Guard, app: web.Application, **settings: Any) -> None:
        super().__init__(app, **settings)
        self._guard = guard

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server  # aiohttp offers no other way to choose the class of its connections
        assert isinstance(server, _Server)
        server.guard = self._guard
        return server


class _Server(web.Server):
    guard: Guard

    def __call__(self) -> RequestHandler:
        return _Connection(self, self.guard, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = ("_body", "_cutter", "_guard", "_head")

    def __init__(self, server: web.Server, guard: Guard, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._guard = guard
        self._head = 0
        self._cutter: asyncio.TimerHandle | None = None
        self._body: Any = None

    # --- beginning and end ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        guard, bounds = self._guard, self._guard.bounds
        tls = transport.get_extra_info("ssl_object")
        guard.connections.add(self)
        if tls is not None and not tls.getpeercert(binary_form=True):
            guard.anonymous.add(self)
        if len(guard.connections) > bounds.connections or len(guard.anonymous) > bounds.anonymous:
            guard.complain("too many connections: refusing more")
            self._cut(503, "too many connections: try again shortly")
        else:
            self._wait_for_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._guard.connections.discard(self)
        self._guard.anonymous.discard(self)
        self._head_done()
        super().connection_lost(exc)

    # --- heads ------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        count = self._request_count
        in_body = self._body is not None and not self._body.is_eof()
        super().data_received(data)
        if self._request_count > count:
            self._head_done()
            self._body = self._messages[-1][1] if self._messages else None
        elif data and not in_body and not self._upgraded and self._payload_parser is None:
            self._head_grew(len(data))

    def _head_grew(self, size: int) -> None:
        bounds, guard = self._guard.bounds, self._guard
        self._wait_for_head()
        self._head += size
        guard.heads += size
        if self._head > bounds.head_bytes:
            self._cut(431, f"the request's headers are larger than {bounds.head_bytes} bytes")
        elif guard.heads > bounds.all_heads:
            guard.complain("too many incomplete requests: ending one")
            self._cut(503, "too many incomplete requests: try again shortly")

    def _wait_for_head(self) -> None:
        if self._cutter is None:
            self._cutter = self._loop.call_later(self._guard.bounds.head_timeout, self._too_slow)

    def _too_slow(self) -> None:
        self._cutter = None
        if self._current_request is not None:  # the next one's head began to come; this one takes its time
            self._wait_for_head()
            return
        self._cut(408, f"no complete request came within {self._guard.bounds.head_timeout:.0f} s")

    def _head_done(self) -> None:
        self._guard.heads -= self._head
        self._head = 0
        if self._cutter is not None:
            self._cutter.cancel()
            self._cutter = None

    def _cut(self, status: int, message: str) -> None:
        """Say why, if nothing else is being said, and close."""
        transport = self.transport
        if transport is not None and self._current_request is None and not transport.is_closing():
            text = json.dumps({"message": message})
            transport.write(
                f"HTTP/1.1 {status} \r\nContent-Type: application/json\r\nConnection: close\r\n"
                f"Content-Length: {len(text)}\r\n\r\n{text}".encode()
            )
        self._head_done()
        self.force_close()

    # --- what is no HTTP --------------------------------------------------------------------------------

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Docker's error shape; a client's mistake is no trouble of ours."""
        if not isinstance(exc, HttpProcessingError):
            super().handle_error(request, status, exc, message)  # logs
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        reason = " ".join((message or "internal error").split()[:40]) if status < 500 else "internal error"
        text = json.dumps({"message": reason if status >= 500 else f"this is no HTTP request: {reason}"})
        response = web.Response(status=status, text=text, content_type="application/json")
        response.force_close()
        return response
