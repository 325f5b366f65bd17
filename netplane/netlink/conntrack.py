"""Deletes connection-tracking entries of one namespace, through ctnetlink.

The kernel keeps the entries of all namespaces in one hash table, so that each dump walks the whole host's:
about 10 ms where the table has 262,144 buckets, however few entries match. Addresses may be of both families.
"""

import socket
import struct
from collections.abc import Collection, Sequence

from netplane.netlink.wire import NetlinkSocket, attribute, attributes, message, nested, u32

_SUBSYSTEM = 1
_GET, _DELETE, _GET_STATS = 1, 2, 5
_TUPLE_ORIGINAL, _TUPLE_REPLY, _STATUS, _ID, _ZONE, _FILTER, _STATUS_MASK = 1, 2, 3, 12, 18, 25, 26
_SEEN_REPLY = 1 << 1  # IPS_SEEN_REPLY
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_PROTO_NUMBER = 1
_SOURCES: dict[int, int] = {socket.AF_INET: 1, socket.AF_INET6: 3}
_BY_SOURCE, _BY_PROTOCOL = 1 << 0, 1 << 3
_ENOENT = 2
_STATS_ENTRIES = 1


def count(sock: NetlinkSocket) -> int:
    """How many connections the namespace tracks."""
    bodies = sock.request(message((_SUBSYSTEM << 8) | _GET_STATS, 0, struct.pack(">BBH", 0, 0, 0)))
    for body in bodies:
        entries = attributes(body[4:]).get(_STATS_ENTRIES)
        if entries is not None:
            return int(struct.unpack(">I", entries)[0])
    return 0


def forget_udp(sock: NetlinkSocket, servers: Collection[str]) -> int:
    """Forget UDP flows that any of these addresses answers, so that their next packet is balanced anew."""
    if not servers or count(sock) == 0:
        return 0
    return sum(
        _delete(sock, sock.dump(_request(family, group, socket.IPPROTO_UDP)), group, socket.IPPROTO_UDP)
        for family, group in _by_family(servers)
    )


def forget(sock: NetlinkSocket, servers: Collection[str]) -> int:
    """Forget all flows that any of these addresses answers."""
    if not servers or count(sock) == 0:
        return 0
    return sum(
        _delete(sock, sock.dump(_request(family, group)), group, 0) for family, group in _by_family(servers)
    )


def forget_unanswered(sock: NetlinkSocket, servers: Collection[str]) -> int:
    """Forget connections to these addresses that were never answered.

    Their next attempt, which TCP makes by itself after a second, is balanced anew.
    """
    if not servers or count(sock) == 0:
        return 0
    # The kernel filters since Linux 5.18; older ones give every flow.
    unanswered = attribute(_STATUS, struct.pack(">I", 0)) + attribute(
        _STATUS_MASK, struct.pack(">I", _SEEN_REPLY)
    )
    entries = [
        body
        for body in sock.dump(message((_SUBSYSTEM << 8) | _GET, 0, _header(socket.AF_UNSPEC) + unanswered))
        if not int.from_bytes(attributes(body[4:]).get(_STATUS, b"\0"), "big") & _SEEN_REPLY
    ]
    return _delete(sock, entries, servers, socket.IPPROTO_TCP)


def _header(family: int) -> bytes:
    return struct.pack(">BBH", family, 0, 0)


def _by_family(servers: Collection[str]) -> list[tuple[int, list[str]]]:
    """The addresses by family, but for those families of which there is none."""
    groups = {family: [each for each in servers if _family(each) == family] for family in _SOURCES}
    return [(family, group) for family, group in groups.items() if group]


def _family(server: str) -> int:
    return socket.AF_INET6 if ":" in server else socket.AF_INET


def _request(family: int, servers: Sequence[str], protocol: int = 0) -> bytes:
    """A dump of the flows of a family that a server answers, of one protocol; the kernel filters (since Linux
    5.8), by address if there is one. It finds nothing for an IPv6 address (as of 6.18)."""
    flags, reply = 0, b""
    if len(servers) == 1 and family == socket.AF_INET:
        flags |= _BY_SOURCE
        reply += nested(_TUPLE_IP, attribute(_SOURCES[family], socket.inet_pton(family, servers[0])))
    if protocol:
        flags |= _BY_PROTOCOL
        reply += nested(_TUPLE_PROTO, attribute(_PROTO_NUMBER, bytes([protocol])))
    if not flags:
        return message((_SUBSYSTEM << 8) | _GET, 0, _header(family))
    return message(
        (_SUBSYSTEM << 8) | _GET,
        0,
        _header(family) + nested(_TUPLE_REPLY, reply) + nested(_FILTER, u32(1, 0), u32(2, flags)),
    )


def _delete(sock: NetlinkSocket, entries: Sequence[bytes], servers: Collection[str], protocol: int) -> int:
    """Delete those entries that really match: an older kernel gives them all."""
    packed = {socket.inet_pton(_family(server), server) for server in servers}
    deletions: list[bytes] = []
    for body in entries:
        entry = attributes(body[4:])
        reply = attributes(entry.get(_TUPLE_REPLY, b""))
        addresses = attributes(reply.get(_TUPLE_IP, b""))
        if addresses.get(_SOURCES[body[0]]) not in packed:
            continue
        number = attributes(reply.get(_TUPLE_PROTO, b"")).get(_PROTO_NUMBER, b"\0")[0]
        if protocol and number != protocol:
            continue
        request = _header(body[0]) + nested(_TUPLE_ORIGINAL, entry[_TUPLE_ORIGINAL])
        for kind in (_ZONE, _ID):
            if kind in entry:
                request += attribute(kind, entry[kind])
        deletions.append(message((_SUBSYSTEM << 8) | _DELETE, 0, request))
    if deletions:
        sock.execute(deletions, "forgetting connections", ignore=(_ENOENT,))
    return len(deletions)
