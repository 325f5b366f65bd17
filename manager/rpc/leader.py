"""Asking the leader: forwarded requests and confirmed reads, found anew when leadership moves."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import aiohttp
import msgspec
from aiohttp import web

from cluster.codec import UNREADABLE
from cluster.errors import ShoalError, Unavailable
from cluster.identity import Identity
from cluster.seams import MILLISECOND, SECOND, Clock
from manager.api.access import NO_LEADER, SelfLeads
from manager.api.app import FORWARDED, NOT_DONE
from manager.rpc.once import once
from manager.rpc.tls import MANAGER_NAME, client_context

log = logging.getLogger("shoal.rpc")

PATIENCE = 3 * SECOND
"""How long a request waits for a leader: a little more than an election takes."""
POLL = 25 * MILLISECOND
CONNECT_TIMEOUT = 1.5
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "content-length")
)
_R = TypeVar("_R")


class Refused(ShoalError):
    """Another manager answered with an error; the status is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotDone(Exception):
    """The request has certainly had no effect: another manager may be tried."""


class Barrier(msgspec.Struct, frozen=True):
    """The leader's answer to GET /raft/barrier: everything acknowledged so far is at most at `index`."""

    index: int
    leader: str
    members: frozenset[str]
    reachable: frozenset[str]


class LeaderClient:
    """HTTP to the leader over mutual TLS. `leader` gives its node id and address, or None."""

    def __init__(
        self,
        node_id: str,
        leader: Callable[[], tuple[str, str] | None],
        identity: Identity,
        clock: Clock,
        advice: Callable[[], str] = lambda: NO_LEADER,
    ) -> None:
        """advice: what to say when no leader is found."""
        self._advice = advice
        self._node_id = node_id
        self._leader = leader
        self._clock = clock
        self._http: aiohttp.ClientSession | None = None
        self._context = client_context(identity)

    async def use(self, identity: Identity) -> None:
        """Use a renewed certificate for new connections."""
        self._context = client_context(identity)
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._http is not None:
            http, self._http = self._http, None
            await http.close()

    async def barrier(self) -> Barrier:
        """A confirmed read's index. Raises Unavailable when no leader is found in time."""

        async def ask(address: str) -> Barrier:
            async with self._request("GET", f"https://{address}/raft/barrier") as answer:
                return msgspec.json.decode(await answer.read(), type=Barrier)

        return await self._with_leader(ask)

    async def call(self, method: str, path: str, content: bytes = b"") -> bytes:
        """A call of the manager's own to the leader's cluster port. Raises Refused, Unavailable."""

        async def ask(address: str) -> bytes:
            async with self._request(method, f"https://{address}{path}", data=content) as answer:
                return await answer.read()

        return await self._with_leader(ask)

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Hand a request to the leader and stream its answer back."""
        content = await request.read()
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}

        async def ask(address: str) -> web.StreamResponse:
            url = f"https://{address}/forward{request.raw_path}"
            async with self._request(
                request.method, url, data=content, headers=headers, check=False
            ) as answer:
                return await _relay(request, answer)

        return await self._with_leader(ask)

    async def _with_leader(self, ask: Callable[[str], Awaitable[_R]]) -> _R:
        """Ask whoever leads; ask the next one when the request has certainly had no effect."""
        deadline = self._clock.monotonic() + PATIENCE
        reason = ""
        while True:
            leader = self._leader()
            if leader is not None and leader[0] != self._node_id:
                try:
                    return await self._while_leading(leader[0], ask(leader[1]))
                except NotDone as error:
                    reason = str(error)
                    log.debug("the leader did not take a request", extra={"reason": reason})
            elif leader is not None:
                raise SelfLeads
            if self._clock.monotonic() >= deadline:
                raise Unavailable(self._advice() + (f" ({reason})" if reason else ""))
            await self._clock.sleep(POLL)

    async def _while_leading(self, leader_id: str, work: Awaitable[_R]) -> _R:
        """Wait for the work, but not for ever on a leader that lost power: give up when another leads."""
        task = asyncio.ensure_future(work)
        led_at = self._clock.monotonic()
        try:
            while True:
                done, _ = await asyncio.wait((task,), timeout=POLL * 10 / SECOND)
                if done:
                    return task.result()
                leader, now = self._leader(), self._clock.monotonic()
                if leader is not None and leader[0] != leader_id:
                    raise _unknown("another manager took over")
                if leader is not None:
                    led_at = now
                elif now - led_at > PATIENCE:
                    raise _unknown("the managers have no leader any more")
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        url: str,
        *,
        data: bytes = b"",
        headers: dict[str, str] | None = None,
        check: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request. Raises NotDone, Refused (when `check`), or Unavailable when the outcome is unknown."""
        try:
            answer = await self._session().request(
                method,
                url,
                data=data,
                headers={**(headers or {}), FORWARDED: self._node_id},
                server_hostname=MANAGER_NAME,
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotDone(f"the leader at {url.split('/')[2]} can't be reached: {error}") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if method == "GET":
                raise NotDone(str(error)) from error
            raise _unknown(str(error) or type(error).__name__) from error
        async with answer:
            if NOT_DONE in answer.headers:
                raise NotDone(_message(await answer.read()))
            if check and answer.status >= 400:
                raise Refused(answer.status, _message(await answer.read()))
            yield answer

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = once(
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=self._context, limit=0),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
                    auto_decompress=False,
                )
            )
        return self._http


def _unknown(reason: str) -> Unavailable:
    return Unavailable(
        f"the connection to the leader broke before it answered ({reason}), so the request may or may not "
        "have taken effect: look at the current state before trying again"
    )


def _message(content: bytes) -> str:
    try:
        return str(msgspec.json.decode(content, type=dict[str, str])["message"])
    except (*UNREADABLE, KeyError):
        return content.decode(errors="replace")


async def _relay(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Pass an answer on piece by piece, as logs that follow need it."""
    headers = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
    if answer.content_length is not None:
        return web.Response(status=answer.status, headers=headers, body=await answer.read())
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    try:
        async for piece in answer.content.iter_any():
            await response.write(piece)
    except aiohttp.ClientError as error:
        log.warning("the leader broke off an answer", extra={"path": request.path, "error": str(error)})
        if request.transport is not None:
            request.transport.abort()  # the client must not take the part for the whole
        return response
    except asyncio.CancelledError:
        # The leader is given up, and no other answer fits into this one; or the client has gone.
        if request.transport is not None:
            request.transport.abort()
        raise
    await response.write_eof()
    return response
