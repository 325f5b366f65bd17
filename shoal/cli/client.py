"""A small client of the Docker Engine API, for the `shoal` command and the playground.

Synchronous, and made of the standard library only, because a command line is waited for by a person.
"""

import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from cluster.consistency import CONSISTENCY, READ, STALE
from cluster.errors import InvalidArgument, ShoalError, Unavailable

API_VERSION = (1, 50)
DEFAULT_HOST = "unix:///var/run/docker.sock"
_TLS_PORT, _PLAIN_PORT = 2376, 2375

Json = dict[str, Any]
"""One object as the Engine API writes it. The command line shows objects; it does not decide on them."""


class EngineError(ShoalError):
    """The engine refused a request; the message is the engine's own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Unreachable(Unavailable):
    """No engine answers at the address."""


@dataclass(frozen=True)
class TLSFiles:
    """The files of a mutual-TLS connection."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def in_folder(cls, folder: Path) -> "TLSFiles":
        """The files' usual names, as in DOCKER_CERT_PATH."""
        return cls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")

    def context(self) -> ssl.SSLContext:
        """A context that verifies the server and shows our certificate.

        Raises:
            InvalidArgument: a file is missing or is not what its name says.
        """
        try:
            context = ssl.create_default_context(cafile=str(self.ca))
            context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(
                f"TLS files {self.ca}, {self.cert}, {self.key} can't be used: {error}; "
                "point DOCKER_CERT_PATH or --tlscacert, --tlscert, --tlskey to readable PEM files"
            ) from error
        return context


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


class Engine:
    """An engine at one address.

    Args:
        host: `unix:///path` or `tcp://name:port`.
        tls: files for mutual TLS; only for tcp.
        timeout: seconds to wait for the connection and for each answer; streams wait without limit.
        stale: read the cluster from the engine's own state, at once. What the answers say of that is in
            `labels`.

    Raises:
        InvalidArgument: the address is of no kind that we know.
    """

    def __init__(
        self, host: str, *, tls: TLSFiles | None = None, timeout: float = 60.0, stale: bool = False
    ) -> None:
        self.host = host
        self.labels: list[str] = []
        self._standing = {CONSISTENCY: STALE} if stale else {}
        self._timeout = timeout
        self._tls = tls.context() if tls else None
        self._version: str | None = None
        url = urlsplit(host)
        if url.scheme == "unix" and url.path:
            self._address = url.path
            self._unix = True
        elif url.scheme in ("tcp", "http", "https") and url.hostname:
            self._unix = False
            self._address = url.hostname
            if url.scheme == "https" and self._tls is None:
                self._tls = ssl.create_default_context()
            self._port = url.port or (_TLS_PORT if self._tls else _PLAIN_PORT)
        else:
            raise InvalidArgument(
                f"engine address {host!r} is not understood: write unix:///path/shoal.sock or tcp://host:2376"
            )

    def _connect(self, timeout: float | None) -> http.client.HTTPConnection:
        if self._unix:
            return _UnixConnection(self._address, timeout)
        if self._tls:
            return http.client.HTTPSConnection(self._address, self._port, timeout=timeout, context=self._tls)
        return http.client.HTTPConnection(self._address, self._port, timeout=timeout)

    @contextmanager
    def _exchange(
        self, method: str, path: str, body: object, headers: Mapping[str, str], timeout: float | None
    ) -> Iterator[http.client.HTTPResponse]:
        sent: dict[str, str] = self._standing | dict(headers)
        data = body
        if body is not None and not isinstance(body, bytes) and not hasattr(body, "read"):
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        connection = self._connect(timeout)
        try:
            try:
                connection.request(method, path, body=data, headers=sent)  # type: ignore[arg-type]
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise Unreachable(self._advice(error)) from error
            with response:
                if label := response.headers.get(READ):
                    self.labels.append(label)
                if response.status >= 400:
                    raise EngineError(response.status, _message(response))
                yield response
        finally:
            connection.close()

    def _advice(self, error: Exception) -> str:
        what = f"no engine answers at {self.host}"
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return (
                f"{what}: is shoald running there? Start it, or name another engine with --host or SHOAL_HOST"
            )
        if isinstance(error, PermissionError):
            return f"{what}: permission denied; run as root or as a member of the socket's group"
        if isinstance(error, ssl.SSLError):
            return f"{what}: TLS failed ({error}); check --tlscacert, --tlscert and --tlskey"
        if isinstance(error, TimeoutError):
            return f"{what}: no answer in {self._timeout:.0f} s; it may be overloaded or without managers"
        return f"{what}: {error or type(error).__name__}"

    def _prefixed(self, path: str, query: Mapping[str, object] | None) -> str:
        if self._version is None:
            with self._exchange("GET", "/_ping", None, {}, self._timeout) as response:
                response.read()  # closing with unread data would reset the connection
                offered = response.headers.get("Api-Version", "")
            try:
                major, minor = (int(part) for part in offered.split("."))
            except ValueError:
                major, minor = API_VERSION
            version = min(API_VERSION, (major, minor))
            self._version = f"{version[0]}.{version[1]}"
        wanted = {key: _query_value(value) for key, value in (query or {}).items() if value is not None}
        return f"/v{self._version}{quote(path, safe='/:@')}" + (f"?{urlencode(wanted)}" if wanted else "")

    def ping(self, timeout: float = 5.0) -> bool:
        """True when an engine answers; never raises for one that doesn't."""
        try:
            with self._exchange("GET", "/_ping", None, {}, timeout) as response:
                response.read()
                return True
        except (Unreachable, EngineError):
            return False

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send one request and return the decoded JSON answer; None when it has no body.

        Args:
            query: values may be strings, numbers, booleans or, for filters, mappings and lists (sent as
                JSON).
            body: what to send as JSON; bytes and files are sent as they are.

        Raises:
            Unreachable: no engine answers.
            EngineError: it answers with an error.
        """
        with self._exchange(
            method, self._prefixed(path, query), body, headers or {}, self._timeout
        ) as response:
            data = response.read()
            if not data:
                return None
            if "json" not in response.headers.get("Content-Type", ""):
                return data.decode(errors="replace")
            return json.loads(data)

    def get(self, path: str, **query: object) -> Any:
        """GET; keywords are the query."""
        return self.request("GET", path, query=query)

    def post(self, path: str, body: object = None, **query: object) -> Any:
        """POST a JSON body; keywords are the query."""
        return self.request("POST", path, query=query, body=body)

    def delete(self, path: str, **query: object) -> Any:
        """DELETE; keywords are the query."""
        return self.request("DELETE", path, query=query)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request whose answer is read as it comes, without a time limit.

        Raises:
            Unreachable: no engine answers.
            EngineError: it answers with an error.
        """
        with self._exchange(
            method, self._prefixed(path, query), body, headers or {}, timeout=None
        ) as response:
            yield response


def _query_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value)
    return str(value)


def _message(response: http.client.HTTPResponse) -> str:
    data = response.read()
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace").strip() or f"HTTP {response.status} {response.reason}"


def json_lines(response: http.client.HTTPResponse) -> Iterator[Json]:
    """The objects of a stream of JSON lines, such as pull progress."""
    for line in response:
        if line.strip():
            yield json.loads(line)


def log_frames(response: http.client.HTTPResponse) -> Iterator[tuple[int, bytes]]:
    """The (stream, bytes) frames of multiplexed logs: 1 is standard output, 2 standard error.

    Raises:
        EngineError: the engine reports an error in the stream (stream 3), or the stream breaks off in a
            frame.
    """
    while header := response.read(8):
        size = int.from_bytes(header[4:8], "big")
        data = response.read(size)
        if len(header) < 8 or len(data) < size:
            raise EngineError(500, "the log stream broke off; run the command again to see the rest")
        if header[0] == 3:
            raise EngineError(500, data.decode(errors="replace").strip())
        yield header[0], data


def default_host(environment: Mapping[str, str] = os.environ) -> str:
    """The engine to use when none is named: SHOAL_HOST, DOCKER_HOST, or the local socket."""
    return environment.get("SHOAL_HOST") or environment.get("DOCKER_HOST") or DEFAULT_HOST
