"""DNS messages as bytes: enough to answer questions about addresses, names and services without building
objects (RFC 1035, RFC 2782, RFC 6891)."""

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, SOA, PTR, AAAA, SRV, OPT, ANY = 1, 6, 12, 28, 33, 41, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
# Seconds. Whoever keeps an answer would go on asking tasks that are gone; asking again costs microseconds.
TTL = 0
UDP_LIMIT = 512
# What we take and give by UDP: fits a frame of every network.
EDNS_LIMIT = 1232
_HEADER = struct.Struct(">HHHHHH")
_RECORD = struct.Struct(">HHIH")
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION_AVAILABLE = 0x8000, 0x0400, 0x0200, 0x0080
_OPCODE_AND_RD = 0x7900
_IN = 1
_QUESTION = b"\xc0\x0c"  # a pointer to the name in the question
_OPT_LENGTH = 11


@dataclass(frozen=True)
class Query:
    """A query with one question. `name`: lower-case labels joined by dots; `limit`: bytes of a UDP answer."""

    name: bytes
    kind: int
    end: int  # where the question ends
    limit: int
    edns: int = -1  # the version that the asker speaks; -1: none


def parse(data: bytes) -> Query | None:
    """The query in `data`, or None if it is anything but one plain question of class IN."""
    if len(data) < 17:
        return None
    _, flags, questions, answers, authorities, _ = _HEADER.unpack_from(data)
    if flags & (_RESPONSE | 0x7800) or questions != 1 or answers or authorities:
        return None
    end = question_end(data)
    if not end or data[end - 2 : end] != b"\0\1":
        return None
    labels: list[bytes] = []
    offset = 12
    while length := data[offset]:
        labels.append(data[offset + 1 : offset + 1 + length])
        offset += 1 + length
    limit, edns = _edns(data, end)
    kind = data[offset + 1] << 8 | data[offset + 2]
    return Query(b".".join(labels).lower(), kind, end, limit, edns)


def question_end(data: bytes) -> int:
    """Where the first question of a message ends; 0 if there is no sound one."""
    offset = 12
    while offset < len(data) and (length := data[offset]):
        if length > 63:
            return 0
        offset += 1 + length
        if offset > 12 + 254:
            return 0
    return offset + 5 if offset + 5 <= len(data) else 0


def _edns(data: bytes, end: int) -> tuple[int, int]:
    if len(data) >= end + _OPT_LENGTH and data[end] == 0:
        kind, size, _, version = struct.unpack_from(">HHBB", data, end + 1)
        if kind == OPT:
            return max(UDP_LIMIT, size), version
    return UDP_LIMIT, -1


def address_record(packed: bytes, owner: bytes = _QUESTION) -> bytes:
    """The record of an address, IPv4 or IPv6, of the name that is asked for or of `owner`."""
    return _record(owner, A if len(packed) == 4 else AAAA, packed)


def pointer_record(name: str) -> bytes:
    """The record of an address's name."""
    return _record(_QUESTION, PTR, encoded(name))


def service_record(port: int, target: str) -> bytes:
    """The record of a port at a host, like any other by priority and weight."""
    return _record(_QUESTION, SRV, struct.pack(">HHH", 0, 0, port) + encoded(target))


def refuse(data: bytes) -> bytes:
    """The answer to what `parse` does not take: FORMERR, NOTIMP or REFUSED; empty for what is no query."""
    if len(data) < 12 or data[2] & 0x80:
        return b""
    _, flags, questions, *_ = _HEADER.unpack_from(data)
    end = question_end(data) if questions == 1 else 0
    if flags & 0x7800:
        code = NOTIMP
    elif end and data[end - 2 : end] != b"\0\1":
        code = REFUSED
    else:
        code = FORMERR
    flags = flags & _OPCODE_AND_RD | _RESPONSE | code
    return data[:2] + struct.pack(">HHHHH", flags, 1 if end else 0, 0, 0, 0) + (data[12:end] if end else b"")


def pointer_address(name: bytes) -> str | None:
    """The address that a pointer query asks for: `4.3.2.1.in-addr.arpa` → "1.2.3.4", and of `ip6.arpa` the
    32 digits, as an IPv6 address in its shortest form."""
    if name.endswith(b".ip6.arpa"):
        digits = name.removesuffix(b".ip6.arpa").split(b".")
        if len(digits) != 32 or not all(len(each) == 1 and each in b"0123456789abcdef" for each in digits):
            return None
        return str(ipaddress.IPv6Address(int(b"".join(reversed(digits)), 16)))
    if not name.endswith(b".in-addr.arpa"):
        return None
    parts = name.removesuffix(b".in-addr.arpa").split(b".")
    if len(parts) != 4 or not all(part.isdigit() and len(part) < 4 and int(part) < 256 for part in parts):
        return None
    return ".".join(str(int(part)) for part in reversed(parts))


def answer(
    data: bytes,
    query: Query,
    records: Sequence[bytes] = (),
    more: Sequence[bytes] = (),
    *,
    limit: int = 65535,
    code: int = NOERROR,
) -> bytes:
    """An answer of at most `limit` bytes: cut, and marked so, if not all records fit; of `more`, which may
    help the asker, what fits."""
    room = limit - query.end - (_OPT_LENGTH if query.edns >= 0 else 0)
    shown, rest = _fitting(records, room)
    extra, _ = _fitting(more, rest)
    identifier, flags = struct.unpack_from(">HH", data)
    flags = (flags & _OPCODE_AND_RD) | _RESPONSE | _RECURSION_AVAILABLE | (code & 15)
    if code == NOERROR:
        flags |= _AUTHORITATIVE
    if len(shown) < len(records):
        flags |= _TRUNCATED
    option = b""
    if query.edns >= 0:
        option = b"\0" + struct.pack(">HHBBHH", OPT, EDNS_LIMIT, code >> 4, 0, 0, 0)
    head = _HEADER.pack(identifier, flags, 1, len(shown), 0, len(extra) + bool(option))
    return b"".join((head, data[12 : query.end], *shown, *extra, option))


def encoded(name: str) -> bytes:
    """A name as labels, of at most 63 bytes each as the protocol has it."""
    labels = [each[:63] for each in name.encode().split(b".") if each]
    return b"".join(bytes((len(each),)) + each for each in labels) + b"\0"


def _fitting(records: Sequence[bytes], room: int) -> tuple[Sequence[bytes], int]:
    for count, record in enumerate(records):
        room -= len(record)
        if room < 0:
            return records[:count], 0
    return records, room


def _record(owner: bytes, kind: int, content: bytes) -> bytes:
    return owner + _RECORD.pack(kind, _IN, TTL, len(content)) + content
