"""The `filters` query parameter, in both encodings that clients use: {"k": ["v"]} and {"k": {"v": true}}."""

from collections.abc import Iterable, Mapping

import msgspec
from aiohttp import web

from cluster.errors import InvalidArgument
from cluster.pattern import compiled


class Filters:
    """Parsed filters: keys with the values given for each."""

    def __init__(self, values: Mapping[str, tuple[str, ...]]) -> None:
        self._values = values

    def __contains__(self, key: str) -> bool:
        return bool(self._values.get(key))

    def __bool__(self) -> bool:
        return any(self._values.values())

    def get(self, key: str) -> tuple[str, ...]:
        """All values given for a key."""
        return self._values.get(key, ())

    def exact(self, key: str, *actual: str) -> bool:
        """No filter, or one of the values is one of `actual`."""
        return key not in self or any(value in actual for value in self.get(key))

    def prefix(self, key: str, *actual: str) -> bool:
        """No filter, or one of `actual` starts with one of the values."""
        return key not in self or any(a.startswith(value) for value in self.get(key) for a in actual)

    def pattern(self, key: str, *actual: str) -> bool:
        """No filter, or one of the values is one of `actual`, or a pattern that is found in it.

        Raises InvalidArgument for what is no pattern.
        """
        return self.exact(key, *actual) or any(
            compiled(value).search(each) for value in self.get(key) for each in actual
        )

    def labels(self, labels: Mapping[str, str] | None, key: str = "label") -> bool:
        """Every label filter holds: `name`, or `name=value`. As in SwarmKit, an empty value is any value."""
        labels = labels or {}
        for wanted in self.get(key):
            name, _, value = wanted.partition("=")
            if name not in labels or (value and labels[name] != value):
                return False
        return True

    def exact_labels(self, labels: Mapping[str, str] | None) -> bool:
        """As `labels`, but an empty value is an empty value, as it is for networks and events."""
        labels = labels or {}
        return self.labels(labels) and all(
            labels[name] == value
            for name, equals, value in (wanted.partition("=") for wanted in self.get("label"))
            if equals
        )

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
        """The values of a filter that knows only some words, in lower case; an empty one says nothing."""
        allowed = set(allowed)
        given = [value for value in self.get(key) if value]
        for value in given:
            if value.lower() not in allowed:
                raise InvalidArgument(f"Invalid {key} filter: '{value}' ({', '.join(sorted(allowed))})")
        return tuple(value.lower() for value in given)


def parse_filters(request: web.Request, allowed: frozenset[str]) -> Filters:
    """The request's filters; InvalidArgument when they can't be read or aren't known for this list."""
    text = request.query.get("filters", "")
    if not text:
        return Filters({})
    try:
        given = msgspec.json.decode(text.encode(), type=dict[str, dict[str, bool] | list[str] | None] | None)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidArgument(f"invalid filters: {error}") from error
    given = given or {}
    for key in given:
        if key not in allowed:
            raise InvalidArgument(f"invalid filter '{key}'")
    return Filters({key: _values(value) for key, value in given.items()})


def _values(given: dict[str, bool] | list[str] | None) -> tuple[str, ...]:
    if isinstance(given, dict):
        return tuple(value for value, on in given.items() if on)
    return tuple(given or ())
