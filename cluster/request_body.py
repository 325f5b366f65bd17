"""Bodies of requests as Go reads them: null is the same as leaving a field out, and names have any case."""

from typing import Any, TypeVar

import msgspec

from cluster.errors import InvalidArgument
from cluster.spelling import spelled

T = TypeVar("T")


def decoded(raw: bytes, cls: type[T]) -> T:
    """A request's JSON as a typed value; no body at all counts as {}.

    Raises:
        InvalidArgument: it isn't JSON, or not of that kind.
    """
    try:
        value = msgspec.json.decode(raw) if raw.strip() else {}
        return msgspec.convert(spelled(_without_nulls(value), cls), cls)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise InvalidArgument(f"invalid request body: {error}") from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
