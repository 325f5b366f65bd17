"""Requests to a manager's real applications, through the simulated network instead of sockets."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec
from aiohttp import HttpVersion11, web
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from cluster.identity import Peer
from cluster.seams import Clock
from cluster.states import Role
from manager.api.app import FORWARDED, NOT_DONE
from manager.api.reads import label
from manager.rpc.join import Answered
from manager.rpc.leader import LeaderClient, NotDone, Refused, _message, _unknown
from tests.simulator.loop import Process
from tests.simulator.network import Certificate, End, SimNetwork

NEVER_EXPIRES = 1 << 62


class _Tls(ssl.SSLObject):
    """What the application asks the connection for: the peer's certificate."""

    def __init__(self, certificate: bytes) -> None:
        self._der = certificate

    def getpeercert(self, binary_form: bool = False) -> Any:
        return self._der


def to_der(certificate: Certificate) -> bytes:
    """A certificate as the simulator writes it; `peer_of_der` reads it."""
    return "|".join(certificate[:3]).encode()


def peer_of_der(der: bytes) -> Peer:
    """Stands in for cluster.identity.peer_of_der while a simulation runs."""
    node_id, role, cluster_id = der.decode().split("|")
    return Peer(node_id, Role(role), cluster_id, 0, NEVER_EXPIRES)


class _Payload:
    """A request's body."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def set_read_chunk_size(self, size: int) -> None:
        """It comes in one piece."""

    async def readany(self) -> bytes:
        content, self._content = self._content, b""
        return content


class Request(msgspec.Struct):
    """A request as it travels."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes


@dataclass
class Response:
    """An answer; also what the leader's client sees of one."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def content_length(self) -> int:
        return len(self.body)

    async def read(self) -> bytes:
        return self.body

    @property
    def message(self) -> str:
        """The error's text."""
        return _message(self.body)

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Request)
_answers = msgspec.msgpack.Decoder(tuple[int, dict[str, str], bytes])


async def handle(
    app: web.Application, request: Request, certificate: Certificate | None, client_max_size: int = 4 << 20
) -> Response:
    """Let an application answer."""
    headers = CIMultiDict(request.headers)
    headers["Content-Length"] = str(len(request.content))
    proxy = CIMultiDictProxy(headers)
    raw = tuple((k.encode(), v.encode()) for k, v in headers.items())
    message = RawRequestMessage(
        request.method, request.path, HttpVersion11, proxy, raw, False, None, False, False, URL(request.path)
    )
    tls = None if certificate is None else _Tls.__new__(_Tls)
    if tls is not None and certificate is not None:
        tls.__init__(to_der(certificate))  # type: ignore[misc]
    transport = SimpleNamespace(get_extra_info=lambda name, default=None: {"ssl_object": tls}.get(name))
    protocol: Any = SimpleNamespace(transport=transport, ssl_context=None, peername=None, sockname=None)
    task: Any = asyncio.current_task()
    loop = asyncio.get_running_loop()
    writer: Any = SimpleNamespace()
    payload: Any = _Payload(request.content)
    asked = web.Request(
        message, payload, protocol, writer, task, loop, client_max_size=client_max_size, remote="10.9.9.9"
    )
    response = await app._handle(asked)
    await label(asked, response)
    if not isinstance(response, web.Response):
        raise TypeError(f"{request.path} streams its answer: not simulated")
    body = response.body
    return Response(response.status, dict(response.headers), body if isinstance(body, bytes) else b"")


class Server:
    """The manager's side of one connection: one request, one answer."""

    def __init__(self, app: web.Application, process: Process, end: End) -> None:
        self._app, self._process, self._end = app, process, end
        self._task: asyncio.Task[None] | None = None

    def arrived(self, data: bytes) -> None:
        self._task = self._process.start(self._answer(_decoder.decode(data)), "request")

    async def _answer(self, request: Request) -> None:
        response = await handle(self._app, request, self._end.certificate)
        if response.status == 500:
            raise AssertionError(f"{request.method} {request.path} failed: {response.message}")
        self._end.send(_encoder.encode((response.status, dict(response.headers), response.body)))

    def broken(self, error: OSError | None) -> None:
        if self._task is not None:
            self._task.cancel()  # as aiohttp does, with handler_cancellation


class _Exchange:
    """The asking side."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def arrived(self, data: bytes) -> None:
        if not self.answer.done():
            status, headers, body = _answers.decode(data)
            self.answer.set_result(Response(status, CIMultiDict(headers), body))

    def broken(self, error: OSError | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(error or ConnectionResetError(104, "closed without an answer"))


@dataclass
class Caller:
    """Whoever asks managers: a process on a host, with its certificate."""

    network: SimNetwork
    process: Process
    host: str
    certificate: Certificate
    service: str = "http"

    async def ask(self, address: str, request: Request, timeout: float | None = None) -> Response:
        """One request. Raises OSError or TimeoutError; `connected` on it says whether it may have arrived."""
        try:
            end = await self.network.connect(self.process, self.host, self.service, address, self.certificate)
        except OSError as error:
            raise NotConnected(str(error)) from error
        exchange = _Exchange()
        end.attach(exchange)
        end.send(_encoder.encode(request))
        try:
            async with asyncio.timeout(timeout):
                return await exchange.answer
        finally:
            end.close()

    async def post(self, manager: str, path: str, content: bytes) -> Answered:
        """Implements manager.rpc.join.Post."""
        answer = await self.ask(manager, Request("POST", path, {}, content), timeout=15)
        return Answered(answer.status, answer.body.decode(), NOT_DONE in answer.headers)


class NotConnected(OSError):
    """No connection was made, so nothing was asked."""


class SimLeaderClient(LeaderClient):
    """The real client's logic over the simulated network."""

    def __init__(
        self,
        node_id: str,
        leader: Callable[[], tuple[str, str] | None],
        caller: Caller,
        clock: Clock,
        advice: Callable[[], str],
    ) -> None:
        self._node_id = node_id
        self._leader = leader
        self._clock = clock
        self._caller = caller
        self._advice = advice

    async def close(self) -> None:
        """Nothing is kept open."""

    @asynccontextmanager
    async def _request(  # type: ignore[override]
        self,
        method: str,
        url: str,
        *,
        data: bytes = b"",
        headers: dict[str, str] | None = None,
        check: bool = True,
    ) -> AsyncIterator[Response]:
        address, _, path = url.removeprefix("https://").partition("/")
        request = Request(method, "/" + path, {**(headers or {}), FORWARDED: self._node_id}, data)
        try:
            answer = await self._caller.ask(address, request)
        except NotConnected as error:
            raise NotDone(f"the leader at {address} can't be reached: {error}") from error
        except OSError as error:
            if method == "GET":
                raise NotDone(str(error)) from error
            raise _unknown(str(error)) from error
        if NOT_DONE in answer.headers:
            raise NotDone("the manager that was asked does not lead any more")
        if check and answer.status >= 400:
            raise Refused(answer.status, answer.message)
        yield answer
