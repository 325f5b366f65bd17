"""Docker's filters for lists of images."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from cluster.errors import InvalidArgument
from cluster.seams import SECOND
from worker.images.model import Image
from worker.images.reference import Reference

_UNITS = {"h": 3600, "m": 60, "s": 1}
_TRUE, _FALSE = frozenset({"1", "true", "True", "t"}), frozenset({"0", "false", "False", "f"})
Test = Callable[[Image], bool]


def created_seconds(image: Image) -> int:
    """When the image was made, as a Unix time; 0 when unknown."""
    try:
        return max(0, int(datetime.fromisoformat(image.config.created or "").timestamp()))
    except (ValueError, OverflowError):
        return 0


def select(
    images: Sequence[Image],
    filters: Mapping[str, Sequence[str]],
    find: Callable[[str], Image],
    now: int,
) -> list[Image]:
    """The images that pass every filter, newest first; `now` is in ns since the epoch. Raises InvalidArgument
    for an unknown filter, NoSuchImage when `before` or `since` names none."""
    tests = [_test(name, list(values), find, now) for name, values in filters.items() if values]
    chosen = [image for image in images if all(test(image) for test in tests)]
    return sorted(chosen, key=lambda image: (created_seconds(image), image.tagged_at), reverse=True)


def _test(name: str, values: list[str], find: Callable[[str], Image], now: int) -> Test:
    if name == "dangling":
        wanted = _boolean(name, values[0])
        return lambda image: image.dangling is wanted
    if name == "label":
        return lambda image: all(_has_label(image.config.labels, value) for value in values)
    if name == "label!":
        return lambda image: not any(_has_label(image.config.labels, value) for value in values)
    if name == "reference":
        return lambda image: any(_matches(tag, value) for tag in image.repo_tags for value in values)
    if name == "before":
        latest = min(created_seconds(find(value)) for value in values)
        return lambda image: created_seconds(image) < latest
    if name == "since":
        earliest = max(created_seconds(find(value)) for value in values)
        return lambda image: created_seconds(image) > earliest
    if name == "until":
        limit = min(_moment(value, now) for value in values)
        return lambda image: created_seconds(image) < limit
    raise InvalidArgument(f"invalid filter {name!r}")


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _matches(tag: str, pattern: str) -> bool:
    """True when a pattern with wildcards names the tag; one without a tag means any tag."""
    name = Reference.parse_name(tag).familiar_name
    return fnmatch.fnmatchcase(tag, pattern) or fnmatch.fnmatchcase(name, pattern)


def _boolean(name: str, text: str) -> bool:
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise InvalidArgument(f"invalid filter '{name}={text}': expected true or false")


def _moment(text: str, now: int) -> float:
    """A Unix time, an RFC 3339 time, or how long ago (`24h`)."""
    try:
        if text[-1:] in _UNITS:
            return now / SECOND - float(text[:-1]) * _UNITS[text[-1]]
        if text.replace(".", "", 1).isdigit():
            return float(text)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(f"invalid filter 'until={text}': expected a time or a duration") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
