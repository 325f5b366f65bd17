"""HTTP to registries, behind a seam so that tests need no network."""

import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from worker.images.errors import RegistryError, TLSFailure, TransportError, UnknownHost

_CONNECT_SECONDS = 15.0
_STALL_SECONDS = 45.0
_CHUNK = 256 << 10
Body = bytes | AsyncIterator[bytes]


class Response(Protocol):
    """An answer whose body has not been read yet. Header names are case-insensitive."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def read(self, limit: int) -> bytes:
        """The whole body; raises RegistryError when it is larger than `limit` bytes, TransportError when
        the connection breaks."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces of bounded size; raises TransportError when the connection breaks or stalls."""


class RegistryTransport(Protocol):
    """One HTTP exchange; redirects are the caller's."""

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        verify: bool = True,
        body: Body | None = None,
    ) -> AbstractAsyncContextManager[Response]:
        """Send a request; raises TransportError or TLSFailure when no answer came."""

    async def close(self) -> None:
        """Give up all connections."""


class HttpTransport:
    """The real transport. Trusts the system's certificate authorities, and per registry those in
    `certificates/HOST:PORT/*.crt`, as docker does in /etc/docker/certs.d."""

    def __init__(self, user_agent: str, certificates: Path | None = None) -> None:
        self._user_agent = user_agent
        self._certificates = certificates
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        verify: bool = True,
        body: Body | None = None,
    ) -> AsyncIterator[Response]:
        """Send a request and give its response while the context lasts."""
        session = self._open_session()
        target = URL(url, encoded=True)
        with _translated(method, target):
            response = await session.request(
                method,
                target,
                headers=headers,
                data=body,
                ssl=self._context(target) if verify else False,
                allow_redirects=False,
            )
        async with response:
            yield _HttpResponse(response)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=_CONNECT_SECONDS, sock_read=_STALL_SECONDS
                ),
                trust_env=True,
            )
        return self._session

    def _context(self, url: URL) -> ssl.SSLContext:
        name = url.authority
        if name not in self._contexts:
            context = ssl.create_default_context()
            directory = self._certificates / name if self._certificates else None
            for authority in sorted(directory.glob("*.crt")) if directory else ():
                context.load_verify_locations(authority)
            self._contexts[name] = context
        return self._contexts[name]


@contextmanager
def _translated(method: str, url: URL) -> Iterator[None]:
    """Turn the client's errors into ours."""
    try:
        yield
    except (aiohttp.ClientSSLError, ssl.SSLError) as error:
        raise TLSFailure(f"{method} {url.origin()}: no trusted TLS connection: {error}") from error
    except aiohttp.ClientConnectorDNSError as error:
        raise UnknownHost(f"{method} {url.origin()}: can't resolve {url.host}: {error.os_error}") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise TransportError(f"{method} {url.origin()}: {reason}") from error


class _HttpResponse:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        return self._response.headers

    async def read(self, limit: int) -> bytes:
        content = bytearray()
        async for chunk in self.chunks():
            content += chunk
            if len(content) > limit:
                raise RegistryError(f"{self._response.url.origin()}: answer is larger than {limit} bytes")
        return bytes(content)

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            with _translated(self._response.method, self._response.url):
                chunk = await self._response.content.read(_CHUNK)
            if not chunk:
                return
            yield chunk
