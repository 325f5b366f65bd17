"""An Engine API server in this process that answers from a table and remembers what it was asked."""

import http.server
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Call:
    """One request as the server saw it."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


@dataclass
class FakeEngine:
    """Answers by method and path (without the version); an answer may be a function of the call."""

    answers: dict[tuple[str, str], Any] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    version: str = "1.50"
    versions: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def on(self, method: str, path: str, answer: Any) -> None:
        """Answer so from now on: JSON, bytes (sent as they are), or (status, message) for an error."""
        self.answers[method, path] = answer

    def asked(self, method: str, path: str) -> list[Call]:
        """The requests of this kind, in order."""
        return [call for call in self.calls if (call.method, call.path) == (method, path)]


def _handler(engine: FakeEngine) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def _serve(self) -> None:
            url = urlsplit(self.path)
            path = url.path
            if path == "/_ping":
                self._send(200, b"OK", "text/plain")
                return
            _, version, rest = path.split("/", 2)
            engine.versions.append(version)
            raw = self._content()
            is_json = "json" in self.headers.get("Content-Type", "")
            body = json.loads(raw) if is_json and raw else raw
            call = Call(self.command, f"/{rest}", dict(parse_qsl(url.query)), body, dict(self.headers))
            engine.calls.append(call)
            answer = engine.answers.get(
                (call.method, call.path), (404, f"no answer for {call.method} {call.path}")
            )
            if isinstance(answer, Callable):  # type: ignore[arg-type]
                answer = answer(call)
            if isinstance(answer, bytes):
                self._send(200, answer, "application/octet-stream")
            elif isinstance(answer, tuple):
                status, message = answer
                self._send(status, json.dumps({"message": message}).encode(), "application/json")
            elif answer is None:
                self._send(200, b"", "text/plain")
            else:
                self._send(200, json.dumps(answer).encode(), "application/json")

        def _content(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = b""
            while length := int(self.rfile.readline(), 16):
                content += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return content

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Api-Version", engine.version)
            self.send_header("Content-Type", kind)
            for name, value in engine.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Silence."""

        def address_string(self) -> str:
            return "local"

    return Handler


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = False


@contextmanager
def serve(path: Path) -> Iterator[FakeEngine]:
    """A server on the unix socket `path`, until the end of the block."""
    engine = FakeEngine()
    with _Server(str(path), _handler(engine)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield engine
        finally:
            server.shutdown()
            thread.join()
