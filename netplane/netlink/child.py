"""rtnetlink messages of links on top of another device: macvlan and ipvlan."""

import socket
import struct

from netplane.netlink.route import mac_bytes
from netplane.netlink.wire import CREATE, EXCL, REPLACE, attribute, message, nested, text, u32

MACVLAN, IPVLAN = "macvlan", "ipvlan"
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}

_NEWLINK, _DELLINK, _NEWROUTE = 16, 17, 24
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 5, 18, 28
_INFO_KIND, _INFO_DATA = 1, 2


def child(
    name: str,
    index: int,
    *,
    parent: int,
    kind: str,
    mode: int,
    flags: int,
    mtu: int,
    mac: str,
    namespace: int,
) -> bytes:
    """A link on top of link number `parent`, made in `namespace` (a descriptor) and still down.

    `mode` and `flags` are the kernel's numbers; `mac` "" leaves the address to it.
    """
    if kind == MACVLAN:
        settings = u32(1, mode)
    else:
        settings = attribute(1, struct.pack("=H", mode)) + attribute(2, struct.pack("=H", flags))
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, 0)
    body += text(_IFLA_IFNAME, name) + u32(_IFLA_LINK, parent) + u32(_IFLA_MTU, mtu)
    body += u32(_IFLA_NET_NS_FD, namespace)
    if mac:
        body += attribute(_IFLA_ADDRESS, mac_bytes(mac))
    info = nested(_IFLA_LINKINFO, text(_INFO_KIND, kind), nested(_INFO_DATA, settings))
    return message(_NEWLINK, CREATE | EXCL, body + info)


def delete_link(index: int) -> bytes:
    """Delete a link."""
    return message(_DELLINK, 0, struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, 0))


def default_device_route6(index: int) -> bytes:
    """An IPv6 default route through a link itself."""
    header = struct.pack("=BBBBBBBBI", socket.AF_INET6, 0, 0, 0, 254, 3, 0, 1, 0)
    return message(_NEWROUTE, CREATE | REPLACE, header + u32(4, index))
