"""Timestamps in queries: Unix seconds with a fraction, as the CLI sends them, or RFC 3339."""

import re
from datetime import UTC, datetime

from cluster.errors import InvalidArgument
from cluster.seams import SECOND

_AGE = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def parse_moment(text: str, now: int) -> int:
    """As `parse_timestamp`, or how long ago: `24h`, `1h30m`, `10s`."""
    match = _AGE.fullmatch(text)
    if match is None or not text:
        return parse_timestamp(text)
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return now - (hours * 3600 + minutes * 60 + seconds) * SECOND


def parse_timestamp(text: str) -> int:
    """Nanoseconds since the epoch; 0 for an empty text. Raises InvalidArgument."""
    if not text:
        return 0
    seconds, _, fraction = text.partition(".")
    if seconds.lstrip("-").isdigit() and (not fraction or fraction.isdigit()):
        return int(seconds) * SECOND + int(fraction[:9].ljust(9, "0"))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid timestamp {text!r}: use Unix seconds or RFC 3339") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1e6) * 1000
