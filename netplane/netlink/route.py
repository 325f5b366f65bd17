"""rtnetlink messages that a sandbox and an overlay need: links, addresses, routes, rules, neighbours."""

import socket
import struct

from netplane.netlink.wire import CREATE, EXCL, REPLACE, attribute, message, nested, text, u32

_NEWLINK, _DELLINK, _NEWADDR, _NEWROUTE, _NEWNEIGH, _DELNEIGH, _NEWRULE = 16, 17, 20, 24, 28, 29, 32
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_GROUP, _IFLA_NET_NS_FD = 27, 28
_NUD_PERMANENT, _NUD_NOARP = 0x80, 0x40
_NTF_SELF, _NTF_MASTER, _NTF_STICKY = 0x02, 0x04, 0x40
_UP = 1


def _link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, change)


def mac_bytes(mac: str) -> bytes:
    """A MAC address as six bytes."""
    return bytes.fromhex(mac.replace(":", ""))


def veth(
    name: str, index: int, *, mtu: int, namespace: int, peer: str, peer_index: int, peer_mac: str
) -> bytes:
    """A veth pair: `name` here and up, `peer` inside `namespace` (a descriptor) and still down.

    The kernel heeds the peer's index only if this end has one too.
    """
    peer_part = (
        _link(peer_index)
        + text(_IFLA_IFNAME, peer)
        + u32(_IFLA_NET_NS_FD, namespace)
        + u32(_IFLA_MTU, mtu)
        + attribute(_IFLA_ADDRESS, mac_bytes(peer_mac))
    )
    info = nested(_IFLA_LINKINFO, text(1, "veth"), nested(2, attribute(1, peer_part)))
    body = _link(index, _UP, _UP) + text(_IFLA_IFNAME, name) + u32(_IFLA_MTU, mtu)
    return message(_NEWLINK, CREATE | EXCL, body + info)


def join_bridge(name: str, bridge: int) -> bytes:
    """Make a link a port of a bridge. Once both its ends are up, it forwards from the first frame."""
    return message(_NEWLINK, 0, _link() + text(_IFLA_IFNAME, name) + u32(_IFLA_MASTER, bridge))


def link_up(index: int) -> bytes:
    """Set a link up."""
    return message(_NEWLINK, 0, _link(index, _UP, _UP))


def to_group(name: str, group: int) -> bytes:
    """Put a link into a group."""
    return message(_NEWLINK, 0, _link() + text(_IFLA_IFNAME, name) + u32(_IFLA_GROUP, group))


def delete_group(group: int) -> bytes:
    """Delete all links of a group at once: the kernel waits for its readers once, not once a link."""
    return message(_DELLINK, 0, _link() + u32(_IFLA_GROUP, group))


def address(index: int, ip: str, prefix: int) -> bytes:
    """Give a link an IPv4 address."""
    packed = socket.inet_aton(ip)
    header = struct.pack("=BBBBi", socket.AF_INET, prefix, 0, 0, index)
    return message(_NEWADDR, CREATE | REPLACE, header + attribute(1, packed) + attribute(2, packed))


def address6(index: int, ip: str, prefix: int) -> bytes:
    """Give a link an IPv6 address that is usable at once, without a look for duplicates."""
    no_detection = 0x02
    header = struct.pack("=BBBBi", socket.AF_INET6, prefix, no_detection, 0, index)
    return message(_NEWADDR, CREATE | REPLACE, header + attribute(1, socket.inet_pton(socket.AF_INET6, ip)))


def default_route6(gateway: str, index: int, table: int = 254) -> bytes:
    """An IPv6 default route through a gateway of this link."""
    header = struct.pack("=BBBBBBBBI", socket.AF_INET6, 0, 0, 0, table if table < 256 else 0, 3, 0, 1, 0)
    body = header + attribute(5, socket.inet_pton(socket.AF_INET6, gateway)) + u32(4, index) + u32(15, table)
    return message(_NEWROUTE, CREATE | REPLACE, body)


def link_route(subnet: str, index: int) -> bytes:
    """A subnet that is on this link."""
    ip, _, prefix = subnet.partition("/")
    link = 253
    header = struct.pack("=BBBBBBBBI", socket.AF_INET, int(prefix), 0, 0, 254, 3, link, 1, 0)
    return message(_NEWROUTE, CREATE | REPLACE, header + attribute(1, socket.inet_aton(ip)) + u32(4, index))


def default_route(gateway: str, index: int, table: int = 254) -> bytes:
    """A default route through an on-link gateway."""
    onlink = 4
    header = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, table if table < 256 else 0, 3, 0, 1, onlink)
    body = header + attribute(5, socket.inet_aton(gateway)) + u32(4, index) + u32(15, table)
    return message(_NEWROUTE, CREATE | REPLACE, body)


def mark_rule(
    mark: int, mask: int, table: int, priority: int, family: socket.AddressFamily = socket.AF_INET
) -> bytes:
    """Packets whose mark is `mark` under `mask` look up `table`."""
    header = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 1, 0)
    body = header + u32(10, mark) + u32(16, mask) + u32(15, table) + u32(6, priority)
    return message(_NEWRULE, CREATE | EXCL, body)


def _packed(ip: str) -> tuple[socket.AddressFamily, bytes]:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    return family, socket.inet_pton(family, ip)


def neighbour(index: int, ip: str, mac: str) -> bytes:
    """A permanent neighbour of either family, so that no one must ask."""
    family, packed = _packed(ip)
    header = struct.pack("=BxxxiHBB", family, index, _NUD_PERMANENT, 0, 0)
    return message(_NEWNEIGH, CREATE | REPLACE, header + attribute(1, packed) + attribute(2, mac_bytes(mac)))


def delete_neighbour(index: int, ip: str) -> bytes:
    """Forget a neighbour."""
    family, packed = _packed(ip)
    header = struct.pack("=BxxxiHBB", family, index, 0, 0, 0)
    return message(_DELNEIGH, 0, header + attribute(1, packed))


def bridge_entry(port: int, mac: str) -> bytes:
    """Frames for `mac` leave their bridge by this port, whatever the bridge has learnt or will learn."""
    flags = _NTF_MASTER | _NTF_STICKY
    header = struct.pack("=BxxxiHBB", socket.AF_BRIDGE, port, _NUD_NOARP, flags, 0)
    return message(_NEWNEIGH, CREATE | REPLACE, header + attribute(2, mac_bytes(mac)))


def tunnel_entry(index: int, mac: str, node: str) -> bytes:
    """Frames for `mac` leave VXLAN device `index` for the node at address `node`; replaces an older entry."""
    header = struct.pack("=BxxxiHBB", socket.AF_BRIDGE, index, _NUD_NOARP | _NUD_PERMANENT, _NTF_SELF, 0)
    body = header + attribute(2, mac_bytes(mac)) + attribute(1, _end(node))
    return message(_NEWNEIGH, CREATE | REPLACE, body)


def _end(node: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in node else socket.AF_INET, node)


def delete_tunnel_entry(index: int, mac: str, node: str) -> bytes:
    """Forget where a MAC is."""
    header = struct.pack("=BxxxiHBB", socket.AF_BRIDGE, index, 0, _NTF_SELF, 0)
    body = header + attribute(2, mac_bytes(mac)) + attribute(1, _end(node))
    return message(_DELNEIGH, 0, body)
