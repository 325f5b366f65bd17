"""Durations, sizes and CPUs as people write them, turned into the Engine API's integers."""

import re
from decimal import Decimal, InvalidOperation

from cluster.errors import InvalidArgument

_DURATION_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgtp]?)(?:i?b)?", re.IGNORECASE)


def duration(text: str) -> int:
    """Nanoseconds of a Go duration: `1m30s`, `500ms`, `0`.

    Raises:
        InvalidArgument: it is none.
    """
    if text == "0":
        return 0
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidArgument(f"{text!r} is no duration: write for example 500ms, 10s or 1m30s")
    return int(sum(Decimal(number) * _DURATION_UNITS[unit] for number, unit in parts))


def size(text: str) -> int:
    """Bytes of a size with a binary unit, as docker's: `64m`, `1g`, `512`.

    Raises:
        InvalidArgument: it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument(f"{text!r} is no size: write for example 64m, 1g or 512k")
    return int(Decimal(match[1]) * 1024 ** " kmgtp".index(match[2].lower().replace("b", "") or " "))


def nano_cpus(text: str) -> int:
    """Billionths of a CPU: `0.5` is 500,000,000.

    Raises:
        InvalidArgument: it is no positive number.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal(-1)
    if not value.is_finite() or value < 0:
        raise InvalidArgument(f"{text!r} is no number of CPUs: write for example 0.5 or 2")
    return int(value * 10**9)
