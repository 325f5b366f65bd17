"""A client of the distribution API for one repository (OCI distribution spec)."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

import msgspec

from cluster.errors import ShoalError
from cluster.seams import MILLISECOND, SECOND, Clock, Random
from worker.images.auth import Challenge, RegistryAuth, parse_challenges
from worker.images.config import MAX_CONFIG_BYTES
from worker.images.digest import digest_of, is_digest, matches
from worker.images.endpoints import Endpoint
from worker.images.errors import (
    AccessDenied,
    DigestMismatch,
    ManifestUnknown,
    RegistryError,
    RegistryUnauthorized,
    TLSFailure,
    TransportError,
    UnknownHost,
)
from worker.images.manifest import ACCEPTED, MAX_MANIFEST_BYTES, Descriptor, Document, decode_document
from worker.images.reference import Reference
from worker.images.transport import Body, RegistryTransport, Response

_log = logging.getLogger("shoal.images")

ATTEMPTS = 5
"""How often a request is tried before its failure is reported."""

_T = TypeVar("_T")
_FIRST_BACKOFF = 250 * MILLISECOND
_MAX_BACKOFF = 8 * SECOND
_MAX_RETRY_AFTER = 30 * SECOND
_MAX_REDIRECTS = 5
_MAX_ERROR_BYTES = 64 << 10
_MAX_TOKEN_BYTES = 256 << 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


class _ErrorItem(msgspec.Struct):
    code: str = ""
    message: str = ""


class _ErrorBody(msgspec.Struct):
    errors: list[_ErrorItem] = []


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class TransientStatus(TransportError):
    """The registry answered with a status that asks for another try; `retry_after` in ns, 0 when unsaid."""

    def __init__(self, message: str, retry_after: int = 0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RangeRefused(TransportError):
    """The server does not continue the download where it broke off; begin anew."""


class RegistryClient:
    """One repository at one endpoint, with one caller's credentials. Not shared between callers."""

    def __init__(
        self,
        transport: RegistryTransport,
        reference: Reference,
        endpoint: Endpoint,
        auth: RegistryAuth | None,
        clock: Clock,
        random: Random,
        *,
        actions: str = "pull",
        attempts: int = ATTEMPTS,
    ) -> None:
        self.reference = reference
        self.endpoint = endpoint
        self.attempts = attempts
        self._transport = transport
        self._auth = auth
        self._clock = clock
        self._random = random
        self._actions = actions
        self._base = f"{endpoint.url}/v2/{reference.path}/"
        self._authorization = ""

    async def manifest(self, selector: str) -> Document:
        """The manifest or index at a tag or digest; a digest is verified."""

        async def fetch() -> Document:
            headers = {"Accept": ", ".join(ACCEPTED)}
            async with self.request("GET", f"manifests/{selector}", headers) as response:
                if response.status != 200:
                    raise await self.failure(response, f"manifest for {self.reference.familiar} not found")
                content = await response.read(MAX_MANIFEST_BYTES)
                media_type = response.headers.get("Content-Type", "")
            if is_digest(selector):
                verify(f"manifest of {self.reference.familiar}", selector, content)
            return decode_document(content, media_type)

        return await self.retrying(fetch)

    async def config(self, descriptor: Descriptor) -> bytes:
        """A configuration, verified."""

        async def fetch() -> bytes:
            async with self.request("GET", f"blobs/{descriptor.digest}") as response:
                if response.status != 200:
                    raise await self.failure(
                        response, f"configuration of {self.reference.familiar} not found"
                    )
                content = await response.read(MAX_CONFIG_BYTES)
            if len(content) < descriptor.size:
                raise TransportError(f"{self.reference.domain}: configuration was cut short")
            verify(f"configuration of {self.reference.familiar}", descriptor.digest, content)
            return content

        return await self.retrying(fetch)

    @asynccontextmanager
    async def blob(self, descriptor: Descriptor, offset: int = 0) -> AsyncIterator[tuple[int, Response]]:
        """Open a blob from `offset`; gives where the body really starts: 0 when the server ignores ranges.

        One attempt only: the caller retries, since it knows how much it has.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self.request("GET", f"blobs/{descriptor.digest}", headers) as response:
            if response.status == 206 and _range_start(response) == offset:
                yield offset, response
            elif response.status == 200:
                yield 0, response
            elif response.status in {206, 416}:
                raise RangeRefused(f"{self.reference.domain}: refused to continue a download")
            else:
                raise await self.failure(response, f"layer {descriptor.digest} not found")

    async def retrying(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Run an idempotent exchange, again after transient failures, with back-off."""
        failures = 0
        while True:
            try:
                return await attempt()
            except TransportError as error:
                failures += 1
                if failures >= self.attempts or isinstance(error, TLSFailure | UnknownHost):
                    raise
                await self.back_off(failures, error)

    async def back_off(self, failures: int, error: TransportError) -> None:
        """Wait before the next attempt after that many failures: exponential, with jitter."""
        wait = min(_MAX_BACKOFF, _FIRST_BACKOFF << (failures - 1))
        jittered = wait // 2 + self._random.randrange(wait // 2)
        asked = error.retry_after if isinstance(error, TransientStatus) else 0
        delay = max(jittered, min(asked, _MAX_RETRY_AFTER))
        _log.info(
            "registry request failed, trying again",
            extra={"registry": self.reference.domain, "error": str(error), "delay_ms": delay // MILLISECOND},
        )
        await self._clock.sleep(delay)

    @asynccontextmanager
    async def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Body | None = None
    ) -> AsyncIterator[Response]:
        """One exchange below `/v2/NAME/` (or at a URL the registry gave), authorised when it asks for that.

        Raises TransportError for what is worth another try; any other status is the caller's to judge. A body
        that is a stream can't be sent twice: call `authorize` first.
        """
        url = urljoin(self._base, path)
        async with self._follow(method, url, headers or {}, body) as response:
            challenge = "" if response.status != 401 else response.headers.get("WWW-Authenticate", "")
            if not challenge or not isinstance(body, bytes | None):
                self._check_transient(response)
                yield response
                return
        await self._answer(challenge)
        async with self._follow(method, url, headers or {}, body) as response:
            self._check_transient(response)
            yield response

    async def authorize(self) -> None:
        """Find out whether the endpoint answers and wants credentials, and obtain them."""

        async def ping() -> None:
            async with self.request("GET", f"{self.endpoint.url}/v2/") as response:
                if response.status not in {200, 401}:
                    raise await self.failure(
                        response, f"{self.endpoint.url} does not speak the distribution API"
                    )

        await self.retrying(ping)

    async def failure(self, response: Response, what: str) -> ShoalError:
        """The error that a failed response means; `what` says in words what a 404 is about."""
        try:
            items = msgspec.json.decode(await response.read(_MAX_ERROR_BYTES), type=_ErrorBody).errors
        except (msgspec.MsgspecError, RegistryError, UnicodeDecodeError):
            items = []
        detail = "; ".join(f"{item.code.lower().replace('_', ' ')}: {item.message}" for item in items[:3])
        name, domain = self.reference.familiar_name, self.reference.domain
        if response.status == 404:
            return ManifestUnknown(f"{what}: {detail or 'manifest unknown'}")
        if response.status == 401 and self._auth is None and self._authorization.startswith("Bearer"):
            return _denied(name, detail)
        if response.status == 401:
            return RegistryUnauthorized(f"{domain}: {detail or 'unauthorized: authentication required'}")
        if response.status == 403:
            return _denied(name, detail)
        return RegistryError(
            f"{domain}: unexpected status {response.status}{': ' + detail if detail else ''}"
        )

    @asynccontextmanager
    async def _follow(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None
    ) -> AsyncIterator[Response]:
        """Send, following redirects; credentials never go to another origin."""
        home = _origin(self.endpoint.url)
        for _ in range(_MAX_REDIRECTS):
            sent = dict(headers)
            if self._authorization and _origin(url) == home:
                sent["Authorization"] = self._authorization
            async with self._transport.request(
                method, url, headers=sent, verify=self.endpoint.verify, body=body
            ) as response:
                location = response.headers.get("Location", "")
                if response.status not in _REDIRECTS or not location:
                    yield response
                    return
            url = self._checked(urljoin(url, location))
        raise RegistryError(f"{home}: more than {_MAX_REDIRECTS} redirects")

    def _checked(self, url: str) -> str:
        """A URL that the registry names; only an insecure registry may name one without TLS."""
        allowed = {"https"} if self.endpoint.verify else {"https", "http"}
        if urlsplit(url).scheme not in allowed:
            raise RegistryError(f"{self.endpoint.url} points to {_origin(url)}, which is not HTTPS")
        return url

    def _check_transient(self, response: Response) -> None:
        if response.status in _TRANSIENT_STATUSES:
            after = response.headers.get("Retry-After", "")
            raise TransientStatus(
                f"{self.reference.domain}: status {response.status}",
                int(after) * SECOND if after.isdecimal() and len(after) < 6 else 0,
            )

    async def _answer(self, header: str) -> None:
        """Obtain what a challenge asks for; Bearer is preferred, as it gives the password to fewer."""
        by_scheme = {challenge.scheme: challenge for challenge in reversed(parse_challenges(header))}
        if self._auth and self._auth.registry_token:
            self._authorization = f"Bearer {self._auth.registry_token}"
        elif bearer := by_scheme.get("bearer"):
            self._authorization = f"Bearer {await self._token(bearer)}"
        elif "basic" in by_scheme:
            if self._auth is None or not self._auth.username:
                raise RegistryUnauthorized(
                    f"{self.reference.domain}: no basic auth credentials; log in with docker login first"
                )
            self._authorization = self._auth.basic()
        else:
            raise RegistryError(f"{self.reference.domain}: unknown authentication scheme {header[:100]!r}")

    async def _token(self, challenge: Challenge) -> str:
        realm = self._checked(urljoin(self.endpoint.url, challenge.parameters.get("realm", "")))
        query = {"scope": f"repository:{self.reference.path}:{self._actions}"}
        if service := challenge.parameters.get("service"):
            query["service"] = service
        headers: dict[str, str] = {}
        method, body = "GET", None
        if self._auth and self._auth.identity_token:
            query |= {"grant_type": "refresh_token", "refresh_token": self._auth.identity_token}
            query["client_id"] = "shoal"
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            method, body = "POST", urlencode(query).encode()
        else:
            if self._auth and self._auth.username:
                headers["Authorization"] = self._auth.basic()
                query["account"] = self._auth.username
            realm += ("&" if urlsplit(realm).query else "?") + urlencode(query)
        async with self._transport.request(
            method, realm, headers=headers, verify=self.endpoint.verify, body=body
        ) as response:
            self._check_transient(response)
            if response.status in {401, 403}:
                raise RegistryUnauthorized(
                    f"{self.reference.domain}: unauthorized: incorrect username or password"
                    if self._auth
                    else f"{self.reference.domain}: unauthorized: authentication required"
                )
            if response.status != 200:
                raise RegistryError(f"{_origin(realm)}: no token: status {response.status}")
            content = await response.read(_MAX_TOKEN_BYTES)
        try:
            answer = msgspec.json.decode(content, type=_Token)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RegistryError(f"{_origin(realm)}: token answer can't be read: {error}") from error
        token = answer.token or answer.access_token
        if not token.isascii() or not token.isprintable() or not token:
            raise RegistryError(f"{_origin(realm)}: answer has no usable token")
        return token


def verify(what: str, digest: str, content: bytes) -> None:
    """Raise DigestMismatch unless the content has the digest."""
    if not matches(digest, content):
        raise DigestMismatch(what, digest, digest_of(content))


def _denied(name: str, detail: str) -> AccessDenied:
    return AccessDenied(
        f"pull access denied for {name}, repository does not exist or may require 'docker login': "
        f"{detail or 'denied: requested access to the resource is denied'}"
    )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _range_start(response: Response) -> int:
    """The first byte of a partial response; -1 when it does not say."""
    words = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")
    return int(words[0]) if words[0].isdecimal() else -1
