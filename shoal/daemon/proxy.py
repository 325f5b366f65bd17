"""Hands calls about the cluster to the manager process of this node, over its private unix socket."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import aiohttp
from aiohttp import web

from cluster.errors import ShoalError, Unavailable
from manager.rpc.once import once

log = logging.getLogger("shoal.daemon.proxy")

NOT_IN_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this '
    "node to swarm and try again."
)
NOT_A_MANAGER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please "
    "run this command on a manager node or promote the current node to a manager."
)
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "content-length")
)


class RemoteError(ShoalError):
    """The manager refused; the status is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ManagerProxy:
    """A client of the manager process. `attach` when one runs, `detach` when not."""

    def __init__(self) -> None:
        self._http: aiohttp.ClientSession | None = None
        self._attached = asyncio.Event()
        self.refusal = NOT_IN_SWARM

    @property
    def attached(self) -> bool:
        """Whether this node has a manager."""
        return self._http is not None

    def attach(self, socket: str) -> None:
        """A manager process serves on this unix socket."""
        self._http = once(
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path=socket, limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
                auto_decompress=False,
            )
        )
        self._attached.set()

    async def wait_attached(self) -> None:
        """Return when this node has a manager."""
        await self._attached.wait()

    async def detach(self, refusal: str = NOT_IN_SWARM) -> None:
        """No manager here any more; calls are refused with this text."""
        self.refusal = refusal
        self._attached.clear()
        if self._http is not None:
            http, self._http = self._http, None
            await http.close()

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Pass a request on as it is and stream the answer back."""
        http = self._require()
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        body = await request.read()  # small; and it can be read once only, which a handler may have done

        async def send() -> aiohttp.ClientResponse:
            return await http.request(
                request.method,
                f"http://manager{request.raw_path}",
                headers=headers,
                data=body or None,
                allow_redirects=False,
            )

        try:
            try:
                answer = await send()
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if request.method != "GET":
                    raise  # it may have been carried out
                answer = await send()  # a manager that has restarted, most likely
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(_restarting(error)) from error
        async with answer:
            response = web.StreamResponse(
                status=answer.status,
                headers={k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP},
            )
            if answer.content_length is not None:
                response.content_length = answer.content_length
            await response.prepare(request)
            try:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            except aiohttp.ClientError as error:
                log.warning(
                    "the manager broke off an answer", extra={"path": request.path, "error": str(error)}
                )
                if request.transport is not None:
                    request.transport.abort()
                return response
            await response.write_eof()
            return response

    @contextlib.asynccontextmanager
    async def open(self, request: web.Request) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The manager's answer to a GET, to be read as it comes. Raises RemoteError, Unavailable."""
        http = self._require()
        try:
            answer = await http.get(f"http://manager{request.raw_path}")
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(_restarting(error)) from error
        async with answer:
            if answer.status >= 400:
                content = await answer.json(content_type=None)
                raise RemoteError(answer.status, str(content.get("message", "")))
            yield answer

    async def call(self, method: str, path: str, body: Any = None, *, timeout: float = 30) -> Any:
        """A call of the daemon's own; the decoded JSON answer. Raises RemoteError, Unavailable."""
        return (await self.ask(method, path, body, timeout=timeout))[0]

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> tuple[Any, Mapping[str, str]]:
        """As `call`, with the answer's headers. timeout in seconds."""
        http = self._require()
        try:
            async with (
                asyncio.timeout(timeout),
                http.request(method, f"http://manager{path}", json=body, headers=headers) as answer,
            ):
                content = await answer.json(content_type=None) if answer.status != 204 else None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(_restarting(error)) from error
        if answer.status >= 400:
            text = content.get("message", "") if isinstance(content, dict) else ""
            raise RemoteError(answer.status, text or f"{method} {path}: {answer.status}")
        return content, answer.headers

    def _require(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise Unavailable(self.refusal)
        return self._http


def _restarting(error: Exception) -> str:
    return f"the manager of this node does not answer ({error or type(error).__name__}): try again shortly"
