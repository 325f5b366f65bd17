"""What the filters of prunes have in common: `until`, `label` and `label!`."""

from collections.abc import Mapping

from cluster.errors import InvalidArgument
from worker.api.http import matches_labels
from worker.api.timestamps import parse_moment


def until(wanted: Mapping[str, list[str]], now: int) -> int | None:
    """The moment of the filter `until` (a time, or how long ago), in ns since the epoch; None without one."""
    values = [value for value in wanted.get("until", ()) if value]
    if len(values) > 1:
        raise InvalidArgument("more than one until filter specified")
    return parse_moment(values[0], now) if values else None


def labels_pass(labels: Mapping[str, str] | None, wanted: Mapping[str, list[str]]) -> bool:
    """Whether all of `label` hold, and none of `label!`."""
    return matches_labels(labels, wanted.get("label", [])) and not any(
        matches_labels(labels, [each]) for each in wanted.get("label!", ())
    )
