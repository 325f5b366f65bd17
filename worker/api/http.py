"""What all handlers of the Engine API share: versions, errors, query values, streams.

Reference: Docker Engine API 1.50. Errors are `{"message": …}` with the status of the error's class.
"""

import errno
import json
import logging
import platform
import re
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from aiohttp import web

from cluster.errors import InvalidArgument, NotFound, ShoalError
from cluster.request_body import decoded

log = logging.getLogger("shoal.api")

API_VERSION = "1.50"
MIN_API_VERSION = "1.24"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_VERSIONED = re.compile(r"/v(\d{1,3})\.(\d{1,3})(?=/)", re.ASCII)
_TRUE = frozenset(("1", "true", "t", "yes", "y", "on"))
_FALSE = frozenset(("0", "false", "f", "no", "n", "off"))

T = TypeVar("T")


def split_version(path: str) -> tuple[str, str]:
    """The API version in a path ("" if none) and the path without it."""
    match = _VERSIONED.match(path)
    return (f"{match[1]}.{match[2]}", path[match.end() :]) if match else ("", path)


def check_version(version: str) -> None:
    """Refuse versions that are not served, in dockerd's words (clients look at them)."""
    if not version:
        return
    asked, lowest, highest = _number(version), _number(MIN_API_VERSION), _number(API_VERSION)
    if asked > highest:
        raise InvalidArgument(
            f"client version {version} is too new. Maximum supported API version is {API_VERSION}"
        )
    if asked < lowest:
        raise InvalidArgument(
            f"client version {version} is too old. Minimum supported API version is {MIN_API_VERSION}, "
            "please upgrade your client to a newer version"
        )


def _number(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def api_version(request: web.Request) -> tuple[int, int]:
    """The version that the client speaks."""
    version, _ = split_version(request.path)
    return _number(version or API_VERSION)


@web.middleware
async def errors_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure as dockerd would answer it."""
    try:
        check_version(split_version(request.path)[0])
        response = await handler(request)
    except ShoalError as error:
        return failure(error.status, str(error))
    except web.HTTPNotFound:
        return failure(404, "page not found")
    except web.HTTPMethodNotAllowed:
        return failure(405, "method not allowed")
    except web.HTTPRequestEntityTooLarge:
        return failure(413, "the request body is too large")
    except web.RequestPayloadError as error:
        return failure(400, f"the request body can't be read: {error}")
    except web.HTTPException as error:
        return failure(error.status, error.reason.lower())
    except ConnectionError:  # the client went away
        raise
    except OSError as error:
        log.error(
            "a request failed on this machine",
            extra={"method": request.method, "path": request.path, "error": str(error)},
        )
        return failure(500, _told(error))
    except Exception as error:
        log.exception("handler failed", extra={"method": request.method, "path": request.path})
        return failure(500, f"internal error: {type(error).__name__}: {error}")
    return response


def _told(error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            advice = ": free some space on the node's disk and try again"
        case errno.EMFILE | errno.ENFILE:
            advice = ": raise the limit of open files (ulimit -n) that shoald runs with"
        case _:
            advice = ""
    return f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}{advice}"


def answer(content: Any, *, status: int = 200) -> web.Response:
    """A JSON answer. The content type carries no charset: the docker CLI compares it to the letter."""
    return web.Response(
        body=json.dumps(content).encode(), status=status, headers={"Content-Type": "application/json"}
    )


def failure(status: int, message: str) -> web.Response:
    """An error answer."""
    return answer({"message": message}, status=status)


def common_headers(experimental: bool = False) -> dict[str, str]:
    """Headers of every answer; the CLI negotiates its version by them."""
    return {
        "Api-Version": API_VERSION,
        "Docker-Experimental": str(experimental).lower(),
        "Ostype": "linux",
        "Server": f"Shoal (linux; {platform.machine()})",
    }


async def add_common_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Signal handler for `on_response_prepare`."""
    for name, value in common_headers().items():
        response.headers.setdefault(name, value)


def add_route(app: web.Application, method: str, path: str, handler: Handler) -> None:
    """Serve a path with and without a version prefix."""
    app.router.add_route(method, path, handler)
    app.router.add_route(method, r"/v{api:[0-9]{1,3}\.[0-9]{1,3}}" + path, handler)


def flag(request: web.Request, name: str, default: bool = False) -> bool:
    """A boolean of the query: Go and Python clients write "1", "true" and "True"."""
    value = request.query.get(name)
    return default if value is None or value == "" else value.lower() in _TRUE


def integer(request: web.Request, name: str, default: int) -> int:
    """An integer of the query; InvalidArgument otherwise."""
    value = request.query.get(name, "")
    if not value:
        return default
    if not re.fullmatch(r"\s*[-+]?[0-9]{1,18}\s*", value):
        raise InvalidArgument(f"invalid value {value[:80]!r} of parameter {name}: expected an integer")
    return int(value)


def filters(request: web.Request, known: Mapping[str, object] | set[str]) -> dict[str, list[str]]:
    """The `filters` parameter in either encoding: {"k": {"v": true}} (Go) or {"k": ["v"]} (docker-py)."""
    text = request.query.get("filters", "")
    if not text:
        return {}
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"invalid filters: {error}") from error
    if not isinstance(parsed, dict):
        raise InvalidArgument("invalid filters: expected a JSON object")
    result: dict[str, list[str]] = {}
    for key, values in parsed.items():
        if key not in known:
            raise InvalidArgument(f"invalid filter '{key}'")
        if isinstance(values, dict):
            result[key] = [value for value, on in values.items() if on]
        elif isinstance(values, list):
            result[key] = [str(value) for value in values]
        else:
            raise InvalidArgument(f"invalid filter '{key}': expected a list of values")
    return result


def boolean_filter(wanted: Mapping[str, list[str]], key: str) -> bool | None:
    """The value of a boolean filter, None when it is not given; InvalidArgument unless true or false."""
    values = {value.lower() for value in wanted.get(key, ())}
    if not values:
        return None
    if values <= _TRUE:
        return True
    if values <= _FALSE:
        return False
    raise InvalidArgument(f"invalid filter '{key}={', '.join(sorted(values))}': expected true or false")


def matches_labels(labels: Mapping[str, str] | None, wanted: list[str]) -> bool:
    """Whether all of "key" or "key=value" hold."""
    have = labels or {}
    for text in wanted:
        key, separator, value = text.partition("=")
        if key not in have or (separator and have[key] != value):
            return False
    return True


def frame(stream: int, data: bytes) -> bytes:
    """One frame of the multiplexed stream: stream (1 stdout, 2 stderr), three zeros, length, data."""
    return struct.pack(">BxxxI", stream, len(data)) + data


async def body(request: web.Request, kind: type[T]) -> T:
    """The request's JSON body; none at all counts as {}. InvalidArgument when it is not of this kind."""
    return decoded(await request.read(), kind)


class JSONStream:
    """A streamed answer of one JSON object a line, as pull and load send it. Starts with the first line.

    A failure before the first line is an ordinary error answer; after it, a line with `error`.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one object."""
        if self._response is None:
            self._response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await self._response.prepare(self._request)
        await self._response.write(json.dumps(message).encode() + b"\r\n")

    async def fail(self, error: Exception, line: Mapping[str, Any]) -> None:
        """Report a failure in the way that is left."""
        if self._response is None:
            raise error
        await self.send(line)

    async def finish(self) -> web.StreamResponse:
        """End the answer."""
        if self._response is None:
            return web.Response(headers={"Content-Type": "application/json"})
        await self._response.write_eof()
        return self._response


def not_found(kind: str, name: str) -> NotFound:
    """dockerd's "No such …"."""
    return NotFound(f"No such {kind}: {name}")
