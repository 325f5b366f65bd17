"""The log lines that conmon writes (CRI's format) and the entries that readers want.

2026-11-21T12:47:23.020213890+00:00 stdout F a whole line
2026-11-21T12:47:23.020213890+00:00 stderr P a part of a line, more follows in this stream
"""

from datetime import datetime
from functools import lru_cache

import msgspec

STDOUT, STDERR = 1, 2
_STREAMS = {b"stdout": STDOUT, b"stderr": STDERR}
_MAX_ENTRY = 1 << 20
_SECOND = 1_000_000_000


class LogEntry(msgspec.Struct, frozen=True):
    """A line of output with its newline (if it had one); `timestamp` in ns since the epoch; stream 1 or 2."""

    timestamp: int
    stream: int
    data: bytes


class Line(msgspec.Struct, frozen=True):
    """One line of the log file. `final`: the output's line ends here."""

    timestamp: int
    stream: int
    final: bool
    data: bytes


@lru_cache(maxsize=64)
def _seconds(date_and_time: bytes, zone: bytes) -> int:
    return int(datetime.fromisoformat((date_and_time + zone).decode()).timestamp())


def parse_timestamp(text: bytes) -> int:
    """RFC 3339 with any number of fractional digits, in ns since the epoch."""
    whole, zone = text[:19], text[19:]
    nanoseconds = 0
    if zone.startswith(b"."):
        digits = zone[1:10]
        end = len(digits) if digits.isdigit() else next(i for i, c in enumerate(digits) if not 48 <= c <= 57)
        nanoseconds = int(digits[:end].ljust(9, b"0"))
        zone = zone[1 + end :]
    return _seconds(whole, zone.replace(b"Z", b"+00:00")) * _SECOND + nanoseconds


def parse_line(raw: bytes) -> Line | None:
    """A line without its newline; None when it is damaged (a crash while writing)."""
    parts = raw.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in _STREAMS or parts[2] not in (b"F", b"P"):
        return None
    try:
        timestamp = parse_timestamp(parts[0])
    except (ValueError, StopIteration):
        return None
    return Line(timestamp, _STREAMS[parts[1]], parts[2] == b"F", parts[3])


class Joiner:
    """Puts the parts of long lines together, each stream by itself; very long lines come in pieces."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[int, bytearray]] = {}  # by stream: time of the first part, all parts

    def add(self, line: Line) -> LogEntry | None:
        """The entry that this line completes, if it does."""
        if line.final and line.stream not in self._begun:
            return LogEntry(line.timestamp, line.stream, line.data + b"\n")
        _, data = self._begun.setdefault(line.stream, (line.timestamp, bytearray()))
        data += line.data
        if line.final or len(data) >= _MAX_ENTRY:
            return self._take(line.stream, b"\n" if line.final else b"")
        return None

    def rest(self) -> list[LogEntry]:
        """What was not completed: the output ended without a newline."""
        return [self._take(stream, b"") for stream in sorted(self._begun)]

    def _take(self, stream: int, end: bytes) -> LogEntry:
        timestamp, data = self._begun.pop(stream)
        return LogEntry(timestamp, stream, bytes(data) + end)
