"""Calls of the Engine API that tell a checker: was the request sent, and was there an answer?"""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

_CONNECT_SECONDS = 2.0


class NotSent(Exception):
    """Nobody listens: the request has certainly not had an effect."""


class NoAnswer(Exception):
    """The connection broke, or the time was over: the request may have had an effect, or yet have one."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    content: Any

    @property
    def message(self) -> str:
        """The error's text."""
        return str(self.content.get("message", "")) if isinstance(self.content, dict) else ""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(_CONNECT_SECONDS)
            self.sock.connect(str(self._path))
            self.sock.settimeout(self.timeout)
        except OSError as error:
            self.sock.close()
            raise NotSent(str(error)) from error


class Api:
    """The Engine API on one host's socket; a new connection for each call."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._path = path
        self._timeout = timeout

    def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One call. Raises NotSent, NoAnswer."""
        connection = _Connection(self._path, self._timeout)
        data = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        try:
            connection.request(method, f"/v1.50{path}", body=data, headers=sent)
            with connection.getresponse() as response:
                content = response.read()
                return Answer(
                    response.status, dict(response.headers), json.loads(content) if content else None
                )
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAnswer(str(error) or type(error).__name__) from error
        finally:
            connection.close()

    @contextmanager
    def stream(self, path: str) -> Iterator[tuple[http.client.HTTPResponse, socket.socket]]:
        """An answer to be read as it comes, and its socket, for another thread to shut. Raises as `call`."""
        connection = _Connection(self._path, None)
        try:
            connection.request("GET", f"/v1.50{path}")
            sock = connection.sock
            with connection.getresponse() as response:
                yield response, sock
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(str(error) or type(error).__name__) from error
        finally:
            connection.close()
