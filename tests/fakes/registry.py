"""An in-process registry behind the RegistryTransport seam: token or basic auth, and faults on demand."""

import base64
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from worker.images.digest import digest_of
from worker.images.errors import RegistryError, TLSFailure, TransportError
from worker.images.manifest import OCI_MANIFEST
from worker.images.transport import Body

_MANIFEST = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<selector>[^/]+)\Z")
_BLOB = re.compile(r"/v2/(?P<name>.+)/blobs/(?P<digest>sha256:[0-9a-f]+)\Z")
_CHUNK = 4096
Fault = Callable[["Request"], "FakeResponse | None"]


@dataclass
class Request:
    """What a client sent."""

    method: str
    url: str
    headers: Mapping[str, str]
    count: int

    @property
    def path(self) -> str:
        return urlsplit(self.url).path


class FakeResponse:
    """An answer; `breaks` after its body, as a lost connection does."""

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        breaks: bool = False,
    ) -> None:
        self.status = status
        self.body = body
        self.headers = {"Content-Length": str(len(body)), **(headers or {})}
        self._breaks = breaks

    async def read(self, limit: int) -> bytes:
        content = b"".join([chunk async for chunk in self.chunks()])
        if len(content) > limit:
            raise RegistryError(f"answer is larger than {limit} bytes")
        return content

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.body), _CHUNK):
            yield self.body[start : start + _CHUNK]
        if self._breaks:
            raise TransportError("connection lost")


@dataclass
class FakeRegistry:
    """Speaks plain HTTP or TLS at one host; serves what was put in."""

    host: str = "127.0.0.1:5000"
    scheme: str = "http"
    login: tuple[str, str] | None = None
    token_auth: bool = False
    ranges: bool = True
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[bytes, str]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    fault: Fault | None = None
    _counts: Counter[str] = field(default_factory=Counter)

    def put_blob(self, content: bytes) -> str:
        self.blobs[digest_of(content)] = content
        return digest_of(content)

    def put_manifest(self, name: str, tag: str, content: bytes, media_type: str = OCI_MANIFEST) -> str:
        digest = digest_of(content)
        self.manifests[name, tag] = self.manifests[name, digest] = (content, media_type)
        return digest

    def count(self, part: str) -> int:
        """How many requests had this in their path."""
        return sum(part in request.path for request in self.requests)

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        verify: bool = True,
        body: Body | None = None,
    ) -> AsyncIterator[FakeResponse]:
        parts = urlsplit(url)
        if parts.netloc != self.host:
            raise TransportError(f"{parts.netloc}: connection refused")
        if parts.scheme != self.scheme:
            raise TLSFailure(f"{parts.netloc} speaks {self.scheme}")
        self._counts[parts.path] += 1
        request = Request(method, url, dict(headers), self._counts[parts.path])
        self.requests.append(request)
        yield (self.fault(request) if self.fault else None) or self._answer(request)

    async def close(self) -> None:
        """Nothing is held."""

    def _answer(self, request: Request) -> FakeResponse:
        if request.path == "/token":
            return self._token(request)
        if (challenge := self._challenge(request)) is not None:
            body = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
            return FakeResponse(401, body, {"WWW-Authenticate": challenge})
        if request.path == "/v2/":
            return FakeResponse(200)
        if match := _MANIFEST.match(request.path):
            found = self.manifests.get((match["name"], match["selector"]))
            if found is None:
                return FakeResponse(
                    404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}'
                )
            return FakeResponse(200, found[0], {"Content-Type": found[1]})
        if (match := _BLOB.match(request.path)) and match["digest"] in self.blobs:
            return self._blob(self.blobs[match["digest"]], request.headers.get("Range", ""))
        return FakeResponse(404, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}')

    def _blob(self, content: bytes, wanted: str) -> FakeResponse:
        if not wanted or not self.ranges:
            return FakeResponse(200, content)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            return FakeResponse(416)
        where = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        return FakeResponse(206, content[start:], where)

    def _basic(self) -> str:
        return "Basic " + base64.b64encode(":".join(self.login or ("", "")).encode()).decode()

    def _challenge(self, request: Request) -> str | None:
        sent = request.headers.get("Authorization", "")
        if self.token_auth:
            realm = f'realm="{self.scheme}://{self.host}/token",service="fake",scope="repository:x:pull"'
            return None if sent == "Bearer good-token" else f"Bearer {realm}"
        if self.login is not None and sent != self._basic():
            return 'Basic realm="fake"'
        return None

    def _token(self, request: Request) -> FakeResponse:
        query = parse_qs(urlsplit(request.url).query)
        if self.login is not None and request.headers.get("Authorization") != self._basic():
            return FakeResponse(401, b'{"errors":[]}')
        if query.get("service") != ["fake"] or not query.get("scope"):
            return FakeResponse(400)
        return FakeResponse(200, b'{"token":"good-token","expires_in":60}')
