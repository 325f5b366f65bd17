"""Reading requests and writing answers as dockerd does."""

from typing import Any, TypeVar

import msgspec
from aiohttp import web

from cluster.errors import InvalidArgument
from cluster.request_body import decoded
from cluster.seams import SECOND

T = TypeVar("T")
_OFF = frozenset({"", "0", "no", "false", "none"})
_WORDS = {"": False}
_WORDS |= dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True)
_WORDS |= dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False)
_encoder = msgspec.json.Encoder()


def answer(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return encoded_answer(_encoder.encode(value), status)


def encoded_answer(value: bytes, status: int = 200) -> web.Response:
    """An answer that is JSON already."""
    return web.Response(body=value, status=status, content_type="application/json")


async def body(request: web.Request, cls: type[T]) -> T:
    """The request's JSON as a typed value. Raises InvalidArgument."""
    return decoded(await request.read(), cls)


def flag(request: web.Request, name: str) -> bool:
    """A boolean query parameter, as dockerd reads most: 0, no, false, none and nothing are false."""
    return request.query.get(name, "").strip().lower() not in _OFF


def strict_flag(request: web.Request, name: str) -> bool:
    """A boolean query parameter that dockerd takes in Go's spellings only. Raises InvalidArgument."""
    text = request.query.get(name, "")
    if text not in _WORDS:
        raise InvalidArgument(f"invalid value for {name}: {text}: write true or false")
    return _WORDS[text]


def version(request: web.Request, what: str) -> int:
    """The `version` query parameter that every update must carry."""
    text = request.query.get("version", "")
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise InvalidArgument(
            f"invalid {what} version '{text}': give the Version.Index that the {what} was read at"
        )
    return int(text)


def unix_time(request: web.Request, name: str) -> int:
    """A Unix time with up to nine decimals, in ns; 0 when not given."""
    text = request.query.get(name, "")
    if text in ("", "0"):
        return 0
    seconds, _, fraction = text.partition(".")
    if not (seconds + fraction).isascii() or not (seconds + fraction).isdigit() or len(seconds) > 12:
        raise InvalidArgument(f"invalid value for {name}: {text!r} is not a Unix timestamp")
    return int(seconds or "0") * SECOND + int(fraction[:9].ljust(9, "0") or "0")


def api_version(request: web.Request) -> tuple[int, int]:
    """The API version that the client speaks."""
    text = request.match_info.get("api_version", "")
    if not text:
        return MAX_VERSION
    major, _, minor = text.partition(".")
    return int(major), int(minor)


MIN_VERSION = (1, 24)
MAX_VERSION = (1, 50)


def check_api_version(request: web.Request) -> None:
    """Refuse clients that are too old or too new, with dockerd's words."""
    given = api_version(request)
    text = request.match_info.get("api_version", "")
    if given < MIN_VERSION:
        raise InvalidArgument(
            f"client version {text} is too old. Minimum supported API version is "
            f"{MIN_VERSION[0]}.{MIN_VERSION[1]}, please upgrade your client to a newer version"
        )
    if given > MAX_VERSION:
        raise InvalidArgument(
            f"client version {text} is too new. "
            f"Maximum supported API version is {MAX_VERSION[0]}.{MAX_VERSION[1]}"
        )
