"""Timestamps in queries: Unix seconds with a fraction, as the CLI sends them, or RFC 3339."""

from datetime import UTC, datetime

from cluster.errors import InvalidArgument
from cluster.seams import SECOND


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
