"""Answers of other name servers, kept as long as they say (RFC 1035), also that there is none (RFC 2308)."""

import struct
from dataclasses import dataclass

from netplane.dns import wire

MOST = 1024
"""Answers that are kept; the oldest go first."""
LONGEST = 3600
"""Seconds for which an answer is kept at most; NEGATIVE: that there is none."""
NEGATIVE = 300
_SIZE = 4096  # longer answers are not kept


@dataclass(frozen=True)
class _Kept:
    answer: bytes
    since: float
    until: float
    lifetimes: tuple[tuple[int, int], ...]  # where each stands, and what it was


class Cache:
    """The answers of one set of servers. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._kept: dict[tuple[bool, bytes], _Kept] = {}

    def get(self, data: bytes, end: int, now: float, *, tcp: bool) -> bytes | None:
        """The kept answer to the query in `data`, whose question ends at `end`; None if there is none."""
        key = _key(data, end, tcp=tcp)
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until <= now:
            del self._kept[key]
            return None
        answer = bytearray(kept.answer)
        answer[:2] = data[:2]
        answer[12:end] = data[12:end]  # in the asker's own case
        age = int(now - kept.since)
        for offset, seconds in kept.lifetimes:
            struct.pack_into(">I", answer, offset, max(0, seconds - age))
        return bytes(answer)

    def put(self, data: bytes, end: int, answer: bytes, now: float, *, tcp: bool) -> None:
        """Keep an answer if it says how long it holds."""
        found = lifetime(answer, end) if len(answer) <= _SIZE else None
        if found is None or found[0] <= 0:
            return
        seconds, places = found
        key = _key(data, end, tcp=tcp)
        self._kept.pop(key, None)
        while len(self._kept) >= MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = _Kept(answer, now, now + seconds, places)


def lifetime(answer: bytes, end: int) -> tuple[int, tuple[tuple[int, int], ...]] | None:
    """Seconds for which an answer holds, and the places of all its lifetimes.

    None if it is not to be kept: cut, a failure, a reply to another question than the one that ends at `end`,
    damaged, or empty without saying for how long.
    """
    if len(answer) < end or answer[4:6] != b"\0\1" or answer[2] & 0x02:
        return None
    code = answer[3] & 0x0F
    if code not in (wire.NOERROR, wire.NXDOMAIN):
        return None
    counts = struct.unpack_from(">HHH", answer, 6)
    places: list[tuple[int, int]] = []
    shortest, negative = LONGEST, -1
    offset = end
    for section, count in enumerate(counts):
        for _ in range(count):
            offset = _after_name(answer, offset)
            if not offset or offset + 10 > len(answer):
                return None
            kind, _, seconds, length = struct.unpack_from(">HHIH", answer, offset)
            after = offset + 10 + length
            if after > len(answer):
                return None
            if kind != wire.OPT:
                if seconds >> 31:  # RFC 2181: means zero
                    return None
                places.append((offset + 4, seconds))
                shortest = min(shortest, seconds)
                if kind == wire.SOA and section == 1 and length >= 22:
                    negative = min(seconds, struct.unpack_from(">I", answer, after - 4)[0], NEGATIVE)
            offset = after
    if code == wire.NXDOMAIN or not counts[0]:
        return (min(shortest, negative), tuple(places)) if negative >= 0 else None
    return shortest, tuple(places)


def _after_name(data: bytes, offset: int) -> int:
    """The offset behind a name; 0 if it is cut off."""
    while offset < len(data):
        length = data[offset]
        if length == 0:
            return offset + 1
        if length >= 0xC0:
            return offset + 2
        offset += 1 + length
    return 0


def _key(data: bytes, end: int, *, tcp: bool) -> tuple[bool, bytes]:
    return tcp, data[2:12] + data[12:end].lower() + data[end:]
