"""DNS messages as bytes: enough to answer address and pointer queries without building objects."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, PTR, AAAA, OPT, ANY = 1, 12, 28, 41, 255
NOERROR, SERVFAIL = 0, 2
TTL = 5  # seconds: addresses come and go with tasks
UDP_LIMIT = 512
_HEADER = struct.Struct(">HHHHHH")
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION_AVAILABLE = 0x8000, 0x0400, 0x0200, 0x0080
_OPCODE_AND_RD = 0x7900
_IN = 1


@dataclass(frozen=True)
class Query:
    """A query with one question. `name`: lower-case labels joined by dots; `limit`: bytes of a UDP answer."""

    name: bytes
    kind: int
    end: int  # where the question ends
    limit: int


def parse(data: bytes) -> Query | None:
    """The query in `data`, or None if it is anything but one plain question of class IN."""
    if len(data) < 17:
        return None
    _, flags, questions, answers, authorities, _ = _HEADER.unpack_from(data)
    if flags & (_RESPONSE | 0x7800) or questions != 1 or answers or authorities:
        return None
    labels: list[bytes] = []
    offset = 12
    while True:
        if offset >= len(data):
            return None
        length = data[offset]
        if length == 0:
            break
        if length > 63 or offset + 1 + length > len(data) or offset > 12 + 254:
            return None
        labels.append(data[offset + 1 : offset + 1 + length])
        offset += 1 + length
    end = offset + 5
    if end > len(data):
        return None
    kind, klass = struct.unpack_from(">HH", data, offset + 1)
    if klass != _IN:
        return None
    return Query(b".".join(labels).lower(), kind, end, _limit(data, end))


def _limit(data: bytes, end: int) -> int:
    if len(data) >= end + 11 and data[end] == 0 and struct.unpack_from(">H", data, end + 1)[0] == OPT:
        return max(UDP_LIMIT, int(struct.unpack_from(">H", data, end + 3)[0]))
    return UDP_LIMIT


def answer_addresses(data: bytes, query: Query, addresses: Sequence[bytes], *, limit: int) -> bytes:
    """An answer with packed addresses, all IPv4 or all IPv6; cut, and marked so, if it would be longer than
    `limit` bytes."""
    size = len(addresses[0]) if addresses else 4
    kind = A if size == 4 else AAAA
    room = max(0, (limit - query.end) // (12 + size))
    shown = addresses[:room]
    head = b"\xc0\x0c" + struct.pack(">HHIH", kind, _IN, TTL, size)
    records = b"".join(head + address for address in shown)
    return _head(data, len(shown), truncated=len(shown) < len(addresses)) + data[12 : query.end] + records


def answer_pointer(data: bytes, query: Query, name: str) -> bytes:
    """An answer with the name of an address."""
    target = b"".join(bytes([len(label)]) + label for label in name.encode().split(b".")) + b"\0"
    record = b"\xc0\x0c\x00\x0c\x00\x01" + struct.pack(">IH", TTL, len(target)) + target
    return _head(data, 1) + data[12 : query.end] + record


def answer_empty(data: bytes, query: Query, code: int = NOERROR) -> bytes:
    """An answer without records."""
    return _head(data, 0, code=code) + data[12 : query.end]


def pointer_address(name: bytes) -> str | None:
    """The IPv4 address that a pointer query asks for: `4.3.2.1.in-addr.arpa` → "1.2.3.4"."""
    if not name.endswith(b".in-addr.arpa"):
        return None
    parts = name.removesuffix(b".in-addr.arpa").split(b".")
    if len(parts) != 4 or not all(part.isdigit() and int(part) < 256 for part in parts):
        return None
    return ".".join(str(int(part)) for part in reversed(parts))


def _head(data: bytes, count: int, *, truncated: bool = False, code: int = NOERROR) -> bytes:
    identifier, flags = struct.unpack_from(">HH", data)
    flags = (flags & _OPCODE_AND_RD) | _RESPONSE | _RECURSION_AVAILABLE | code
    if code == NOERROR:
        flags |= _AUTHORITATIVE
    if truncated:
        flags |= _TRUNCATED
    return _HEADER.pack(identifier, flags, 1, count, 0, 0)
