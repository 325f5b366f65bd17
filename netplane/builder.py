"""Builds a sandbox's namespace: veths, addresses, routes, name-server sockets, in one short-lived thread."""

import hashlib
import os
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.dataplane import mac_for
from netplane import netns, sysctl
from netplane.errors import NetworkError
from netplane.model import Interface, Segment
from netplane.netlink import route
from netplane.netlink.wire import NETFILTER, ROUTE, NetlinkSocket
from netplane.resolv import NAME_SERVER

PORT_PREFIX = "shv"
LOOPBACK = 1
# Links are given their numbers, so that none must be looked up; built-in tunnels may have taken low ones.
FIRST_INDEX = 11
_MESH_TABLE = 1000
_MESH_PRIORITY = 1000
_DOOMED = 0x53484F41  # the group of links that are about to be deleted
_ENODEV, _ENOENT = 19, 2


@dataclass
class Handles:
    """Sockets inside a sandbox's namespace. Each keeps it alive until closed."""

    rules: NetlinkSocket | None = None
    dns_udp: socket.socket | None = None
    dns_tcp: socket.socket | None = None

    def close(self) -> None:
        """Close them all."""
        for each in (self.rules, self.dns_udp, self.dns_tcp):
            if each is not None:
                each.close()
        self.rules = self.dns_udp = self.dns_tcp = None


def port_name(sandbox_id: str, number: int) -> str:
    """The name of a sandbox's port on a bridge: at most 15 characters, the same on every run."""
    return f"{PORT_PREFIX}{hashlib.blake2b(sandbox_id.encode(), digest_size=5).hexdigest()}{number:x}"


def port_index(name: str) -> int:
    """The number of a port on a bridge: far above those that the kernel gives out."""
    return 0x40000000 | int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") >> 2


def mesh_mark(segment: Segment) -> tuple[int, int]:
    """Mark and mask of replies that go back through the ingress network.

    A connection's mark is the last four bytes of the entry node's MAC, which are its address there. The
    mask covers those bits of the network that all its nodes share.
    """
    network = segment.subnet.network_address.packed
    mask = segment.subnet.netmask.packed
    return struct.unpack("=I", network)[0], struct.unpack("=I", mask)[0]


def build(
    path: Path,
    interfaces: Sequence[Interface],
    segments: Mapping[str, Segment],
    host: NetlinkSocket,
    handles: Handles,
    *,
    rules: bool,
    name_server: bool,
) -> None:
    """Make the namespace at `path` with its interfaces, and open the sockets in it that are wanted.

    Must run in a thread that ends afterwards: it stays in the new namespace. When it fails, the caller closes
    the handles and demolishes what was made.
    """
    descriptor = -1
    try:
        descriptor = netns.make_namespace(path)
        _prepare(ingress=any(each.ingress for each in interfaces))
        # The veths come from the host's side, all else from within.
        if interfaces:
            host.execute([_veth(each, descriptor) for each in interfaces], "making a veth pair")
        inside = NetlinkSocket(ROUTE)
        try:
            inside.execute(_inside(interfaces, segments), "configuring the network namespace")
        finally:
            inside.close()
        if interfaces:
            host.execute(_attach(interfaces, segments), "attaching to the network")
        if rules:
            handles.rules = NetlinkSocket(NETFILTER)
        if name_server:
            handles.dns_udp, handles.dns_tcp = open_name_server(0)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def reopen(*, rules: bool, name_server: bool, port: int) -> Handles:
    """Open the sockets of a sandbox that exists. Must run inside its namespace."""
    handles = Handles()
    try:
        if rules:
            handles.rules = NetlinkSocket(NETFILTER)
        if name_server:
            handles.dns_udp, handles.dns_tcp = open_name_server(port)
    except BaseException:
        handles.close()
        raise
    return handles


def demolish(
    remains: Iterable[tuple[Path, Sequence[Interface]]], segments: Mapping[str, Segment], host: NetlinkSocket
) -> None:
    """Take sandboxes' namespaces and all of the host's side away; what is gone already is no error."""
    remains = list(remains)
    interfaces = [interface for _, each in remains for interface in each]
    messages = [
        route.delete_neighbour(segments[each.network_id].index, each.address)
        for each in interfaces
        if each.network_id in segments
    ]
    if interfaces:
        messages += [route.to_group(each.port, _DOOMED) for each in interfaces]
        messages.append(route.delete_group(_DOOMED))
    try:
        if messages:
            host.execute(messages, "detaching from the network", ignore=(_ENODEV, _ENOENT))
    finally:
        for path, _ in remains:
            netns.remove_namespace(path)


def open_name_server(port: int) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP sockets on one port of 127.0.0.11, `port` if free. Not 53: that is the container's."""
    for wanted in (port, 0, 0, 0, 0):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            udp.bind((NAME_SERVER, wanted))
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((NAME_SERVER, udp.getsockname()[1]))
            tcp.listen(64)
        except OSError:
            udp.close()
            tcp.close()
            continue
        return udp, tcp
    raise NetworkError("no port is free for the name server in the sandbox")


def _prepare(*, ingress: bool) -> None:
    sysctl.write("ipv6/conf/default/disable_ipv6", "1", optional=True)
    sysctl.write("ipv4/ip_unprivileged_port_start", "0", optional=True)
    if ingress:  # requests come from anywhere, through whichever node
        sysctl.write("ipv4/conf/all/rp_filter", "0")
        sysctl.write("ipv4/conf/default/rp_filter", "0")


def _veth(interface: Interface, descriptor: int) -> bytes:
    return route.veth(
        interface.port,
        port_index(interface.port),
        mtu=interface.mtu,
        namespace=descriptor,
        peer=interface.device,
        peer_index=interface.index,
        peer_mac=interface.mac,
    )


def _attach(interfaces: Sequence[Interface], segments: Mapping[str, Segment]) -> list[bytes]:
    messages: list[bytes] = []
    for each in interfaces:
        bridge = segments[each.network_id].index
        messages.append(route.join_bridge(each.port, bridge))
        # The bridge may still know the address's MAC behind the tunnel, from a task on another node that had
        # it before; a sandbox that only listens would never correct that.
        messages.append(route.bridge_entry(port_index(each.port), each.mac))
        messages.append(route.neighbour(bridge, each.address, each.mac))
    return messages


def _inside(interfaces: Sequence[Interface], segments: Mapping[str, Segment]) -> list[bytes]:
    messages = [route.link_up(LOOPBACK)]
    for each in interfaces:
        messages.append(route.address(each.index, each.address, each.prefix))
        messages.append(route.link_up(each.index))
        if each.gateway:
            messages.append(route.neighbour(each.index, each.gateway, mac_for(each.gateway)))
        if each.ingress:
            segment = segments[each.network_id]
            hop = str(segment.subnet.broadcast_address - 1)
            mark, mask = mesh_mark(segment)
            messages += [
                route.neighbour(each.index, hop, mac_for(hop)),
                route.default_route(hop, each.index, _MESH_TABLE),
                route.mark_rule(mark, mask, _MESH_TABLE, _MESH_PRIORITY),
            ]
    way_out = next((each for each in interfaces if each.gateway), None)
    if way_out is not None:
        messages.append(route.default_route(way_out.gateway, way_out.index))
    return messages
