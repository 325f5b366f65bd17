"""The `filters` query parameter, in both encodings that clients use: {"k": ["v"]} and {"k": {"v": true}}."""

from collections.abc import Iterable, Mapping

import msgspec
from aiohttp import web

from cluster.errors import InvalidArgument


class Filters:
    """Parsed filters: keys with the values given for each."""

    def __init__(self, values: Mapping[str, tuple[str, ...]]) -> None:
        self._values = values

    def __contains__(self, key: str) -> bool:
        return bool(self._values.get(key))

    def get(self, key: str) -> tuple[str, ...]:
        """All values given for a key."""
        return self._values.get(key, ())

    def exact(self, key: str, *actual: str) -> bool:
        """No filter, or one of the values is one of `actual`."""
        return key not in self or any(value in actual for value in self.get(key))

    def prefix(self, key: str, *actual: str) -> bool:
        """No filter, or one of `actual` starts with one of the values."""
        return key not in self or any(a.startswith(value) for value in self.get(key) for a in actual)

    def contains(self, key: str, *actual: str) -> bool:
        """No filter, or one of the values is a part of one of `actual`."""
        return key not in self or any(value in a for value in self.get(key) for a in actual)

    def labels(self, labels: Mapping[str, str] | None, key: str = "label") -> bool:
        """Every label filter holds: `name`, or `name=value`."""
        labels = labels or {}
        for wanted in self.get(key):
            name, equals, value = wanted.partition("=")
            if name not in labels or (equals and labels[name] != value):
                return False
        return True

    def boolean(self, key: str) -> bool | None:
        """A true-or-false filter; None when it is not given."""
        if key not in self:
            return None
        words = {"1": True, "true": True, "0": False, "false": False}
        found = {words.get(value.lower()) for value in self.get(key)}
        if len(found) != 1 or None in found:
            raise InvalidArgument(f"invalid filter '{key}={','.join(self.get(key))}': expected true or false")
        return found.pop()

    def words(self, key: str, allowed: Iterable[str]) -> tuple[str, ...]:
        """The values of a filter that knows only some words."""
        allowed = set(allowed)
        for value in self.get(key):
            if value not in allowed:
                raise InvalidArgument(f"Invalid {key} filter: '{value}' ({', '.join(sorted(allowed))})")
        return self.get(key)


def parse_filters(request: web.Request, allowed: frozenset[str]) -> Filters:
    """The request's filters; InvalidArgument when they can't be read or aren't known for this list."""
    text = request.query.get("filters", "")
    if not text:
        return Filters({})
    try:
        given = msgspec.json.decode(text.encode(), type=dict[str, dict[str, bool] | list[str]])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InvalidArgument(f"invalid filters: {error}") from error
    for key in given:
        if key not in allowed:
            raise InvalidArgument(f"invalid filter '{key}'")
    return Filters({key: _values(value) for key, value in given.items()})


def _values(given: dict[str, bool] | list[str]) -> tuple[str, ...]:
    if isinstance(given, dict):
        return tuple(value for value, on in given.items() if on)
    return tuple(given)
