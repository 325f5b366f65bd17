"""Deletes connection-tracking entries of one namespace, through ctnetlink."""

import socket
import struct
from collections.abc import Collection

from netplane.netlink.wire import (
    NetlinkSocket,
    attribute,
    attributes,
    message,
)

_SUBSYSTEM = 1
_GET, _DELETE, _GET_STATS = 1, 2, 5
_TUPLE_ORIGINAL, _TUPLE_REPLY, _ID, _ZONE = 1, 2, 12, 18
_TUPLE_IP, _TUPLE_PROTO, _TUPLE_ZONE = 1, 2, 3
_IPV4_SOURCE, _PROTO_NUMBER = 1, 1
_NESTED = 0x8000
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
    return forget(sock, servers, protocols=(socket.IPPROTO_UDP,))


def forget(sock: NetlinkSocket, servers: Collection[str], protocols: Collection[int] = ()) -> int:
    """Forget flows that any of these addresses answers, of the given protocols (all if empty)."""
    if not servers or count(sock) == 0:
        return 0
    packed = {socket.inet_aton(server) for server in servers}
    deletions: list[bytes] = []
    for body in sock.dump(message((_SUBSYSTEM << 8) | _GET, 0, _HEADER)):
        entry = attributes(body[4:])
        reply = attributes(entry.get(_TUPLE_REPLY, b""))
        if attributes(reply.get(_TUPLE_IP, b"")).get(_IPV4_SOURCE) not in packed:
            continue
        number = attributes(reply.get(_TUPLE_PROTO, b"")).get(_PROTO_NUMBER, b"\0")[0]
        if protocols and number not in protocols:
            continue
        request = _HEADER + attribute(_TUPLE_ORIGINAL | _NESTED, entry[_TUPLE_ORIGINAL])
        for kind in (_ZONE, _ID):
            if kind in entry:
                request += attribute(kind, entry[kind])
        deletions.append(message((_SUBSYSTEM << 8) | _DELETE, 0, request))
    if deletions:
        sock.execute(deletions, "forgetting connections", ignore=(_ENOENT,))
    return len(deletions)
