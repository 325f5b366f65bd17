"""Deletes connection-tracking entries of one namespace, through ctnetlink.

The kernel keeps the entries of all namespaces in one hash table, so that each dump walks the whole host's:
about 10 ms where the table has 262,144 buckets, however few entries match.
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
_IPV4_SOURCE, _PROTO_NUMBER = 1, 1
_BY_SOURCE, _BY_PROTOCOL = 1 << 0, 1 << 3
_ENOENT = 2
_HEADER = struct.pack(">BBH", socket.AF_INET, 0, 0)
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
    only = next(iter(servers)) if len(servers) == 1 else ""
    return _delete(sock, sock.dump(_request(only, socket.IPPROTO_UDP)), servers, socket.IPPROTO_UDP)


def forget(sock: NetlinkSocket, servers: Collection[str]) -> int:
    """Forget all flows that any of these addresses answers."""
    if not servers or count(sock) == 0:
        return 0
    return sum(_delete(sock, sock.dump(_request(server)), (server,), 0) for server in servers)


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
        for body in sock.dump(message((_SUBSYSTEM << 8) | _GET, 0, _HEADER + unanswered))
        if not int.from_bytes(attributes(body[4:]).get(_STATUS, b"\0"), "big") & _SEEN_REPLY
    ]
    return _delete(sock, entries, servers, socket.IPPROTO_TCP)


def _request(server: str = "", protocol: int = 0) -> bytes:
    """A dump of the flows that `server` answers, of one protocol; the kernel filters (since Linux 5.8)."""
    flags = (_BY_SOURCE if server else 0) | (_BY_PROTOCOL if protocol else 0)
    reply = b""
    if server:
        reply += nested(_TUPLE_IP, attribute(_IPV4_SOURCE, socket.inet_aton(server)))
    if protocol:
        reply += nested(_TUPLE_PROTO, attribute(_PROTO_NUMBER, bytes([protocol])))
    return message(
        (_SUBSYSTEM << 8) | _GET,
        0,
        _HEADER + nested(_TUPLE_REPLY, reply) + nested(_FILTER, u32(1, 0), u32(2, flags)),
    )


def _delete(sock: NetlinkSocket, entries: Sequence[bytes], servers: Collection[str], protocol: int) -> int:
    """Delete those entries that really match: an older kernel gives them all."""
    packed = {socket.inet_aton(server) for server in servers}
    deletions: list[bytes] = []
    for body in entries:
        entry = attributes(body[4:])
        reply = attributes(entry.get(_TUPLE_REPLY, b""))
        if attributes(reply.get(_TUPLE_IP, b"")).get(_IPV4_SOURCE) not in packed:
            continue
        number = attributes(reply.get(_TUPLE_PROTO, b"")).get(_PROTO_NUMBER, b"\0")[0]
        if protocol and number != protocol:
            continue
        request = _HEADER + nested(_TUPLE_ORIGINAL, entry[_TUPLE_ORIGINAL])
        for kind in (_ZONE, _ID):
            if kind in entry:
                request += attribute(kind, entry[kind])
        deletions.append(message((_SUBSYSTEM << 8) | _DELETE, 0, request))
    if deletions:
        sock.execute(deletions, "forgetting connections", ignore=(_ENOENT,))
    return len(deletions)
