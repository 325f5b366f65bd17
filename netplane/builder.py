"""Builds a sandbox's namespace: veths, addresses, routes, name-server sockets, in one short-lived thread."""

import os
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.dataplane import address6_for, mac_for
from netplane import ends, netns, sysctl
from netplane.errors import NetworkError
from netplane.model import Interface, Segment, way_out, way_out6
from netplane.netlink import child, route
from netplane.netlink.nft_events import RulesWatch
from netplane.netlink.wire import NETFILTER, ROUTE, NetlinkSocket
from netplane.resolv import NAME_SERVER

LOOPBACK = 1
# Links are given their numbers, so that none must be looked up; built-in tunnels may have taken low ones.
FIRST_INDEX = 11
_MESH_TABLE = 1000
_MESH_PRIORITY = 1000
_ENODEV, _ENOENT = 19, 2
_UDP_SILENCE_SECONDS = "300"


@dataclass
class Handles:
    """Sockets inside a sandbox's namespace. Each keeps it alive until closed."""

    rules: NetlinkSocket | None = None
    watch: RulesWatch | None = None
    dns_udp: socket.socket | None = None
    dns_tcp: socket.socket | None = None

    def close(self) -> None:
        """Close them all."""
        for each in (self.rules, self.watch, self.dns_udp, self.dns_tcp):
            if each is not None:
                each.close()
        self.rules = self.watch = self.dns_udp = self.dns_tcp = None

    def take_watch(self) -> RulesWatch | None:
        """What tells of others' changes to its rules, which is the caller's from now on."""
        taken, self.watch = self.watch, None
        return taken

    def take_name_server(self) -> tuple[socket.socket, socket.socket]:
        """The name server's UDP and TCP sockets, which are the caller's from now on."""
        if self.dns_udp is None or self.dns_tcp is None:
            raise ValueError("the sandbox has no name server")
        taken = self.dns_udp, self.dns_tcp
        self.dns_udp = self.dns_tcp = None
        return taken


def port_of(handles: Handles) -> int:
    """The port of the name server whose sockets these are; 0 if there are none."""
    return int(handles.dns_udp.getsockname()[1]) if handles.dns_udp is not None else 0


def mesh_mark(segment: Segment) -> tuple[int, int]:
    """Mark and mask of replies that go back through the ingress network.

    A connection's mark is the last four bytes of the entry node's MAC, which are its address there. The
    mask covers those bits of the network that all its nodes share.
    """
    assert segment.subnet is not None, "the ingress network has IPv4"
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
        # The links come from the host's side, all else from within.
        _make(interfaces, segments, descriptor, host)
        messages = [route.link_up(LOOPBACK), *_inside(interfaces, segments), *_ways_out(interfaces)]
        _within(messages, "configuring the network namespace")
        if attaching := _attach(interfaces, segments):
            host.execute(attaching, "attaching to the network")
        _open_sockets(handles, rules=rules, name_server=name_server)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def plug(
    path: Path,
    interface: Interface,
    interfaces: Sequence[Interface],
    segment: Segment,
    host: NetlinkSocket,
    handles: Handles,
    *,
    open_sockets: bool,
) -> None:
    """Give a namespace one more interface; `interfaces` are all that it then has.

    Opens the sockets in it if it had none. Must run in a thread that ends afterwards. When it fails, the
    caller unplugs the interface.
    """
    segments = {segment.network_id: segment}
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        netns.enter_namespace(descriptor)
        _make([interface], segments, descriptor, host)
        messages = [*_inside([interface], segments), *_ways_out(interfaces)]
        _within(messages, "configuring the network namespace")
        if attaching := _attach([interface], segments):
            host.execute(attaching, "attaching to the network")
        if open_sockets:
            _open_sockets(handles, rules=True, name_server=True)
    finally:
        os.close(descriptor)


def unplug(
    path: Path,
    interface: Interface,
    remaining: Sequence[Interface],
    segments: Mapping[str, Segment],
    host: NetlinkSocket,
) -> None:
    """Take an interface from a namespace; the remaining ones lead out. Must run in a thread that ends
    afterwards. What is gone already is no error."""
    if leaving := ends.leave([interface], segments):
        host.execute(leaving, "detaching from the network", ignore=(_ENODEV, _ENOENT))
    ends.leave_inside(path, [interface])
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        netns.enter_namespace(descriptor)
        if messages := _ways_out(remaining):
            _within(messages, "configuring the network namespace")
    finally:
        os.close(descriptor)


def _make(
    interfaces: Sequence[Interface], segments: Mapping[str, Segment], descriptor: int, host: NetlinkSocket
) -> None:
    """The links; the thread is in the namespace of their inner ends."""
    ends.make(interfaces, segments, descriptor, host)
    for each in interfaces:
        if each.kind:  # others on the wire may know the address at another place
            sysctl.write(f"ipv4/conf/{each.device}/arp_notify", "1", optional=True)
        if each.address6:
            sysctl.write(f"ipv6/conf/{each.device}/accept_ra", "0")
            if not each.kind:  # nobody else on a bridge of Shoal's has the address, and no one should wait
                sysctl.write(f"ipv6/conf/{each.device}/accept_dad", "0")
            sysctl.write(f"ipv6/conf/{each.device}/disable_ipv6", "0")
        for name, value in each.sysctls:
            sysctl.write(name.removeprefix("net/"), value)


def _within(messages: Sequence[bytes], what: str) -> None:
    inside = NetlinkSocket(ROUTE)
    try:
        inside.execute(messages, what)
    finally:
        inside.close()


def _open_sockets(handles: Handles, *, rules: bool, name_server: bool) -> None:
    if rules:
        _open_rules(handles)
    if name_server:
        handles.dns_udp, handles.dns_tcp = open_name_server(0)


def _open_rules(handles: Handles) -> None:
    handles.rules = NetlinkSocket(NETFILTER)
    handles.watch = RulesWatch([handles.rules.port])


def reopen(*, rules: bool, name_server: bool, port: int) -> Handles:
    """Open the sockets of a sandbox that exists. Must run inside its namespace."""
    handles = Handles()
    try:
        if rules:
            _open_rules(handles)
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
    try:
        if messages := ends.leave(interfaces, segments):
            host.execute(messages, "detaching from the network", ignore=(_ENODEV, _ENOENT))
        for path, each in remains:
            ends.leave_inside(path, each)
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
    # A flow to a service's address that is silent for longer may go to another task: as long as with IPVS.
    sysctl.write("netfilter/nf_conntrack_udp_timeout_stream", _UDP_SILENCE_SECONDS, optional=True)
    if ingress:  # requests come from anywhere, through whichever node
        sysctl.write("ipv4/conf/all/rp_filter", "0")
        sysctl.write("ipv4/conf/default/rp_filter", "0")
        sysctl.write("ipv4/tcp_fwmark_accept", "1", optional=True)


def _attach(interfaces: Sequence[Interface], segments: Mapping[str, Segment]) -> list[bytes]:
    return [message for each in interfaces for message in ends.join(each, segments[each.network_id])]


def _inside(interfaces: Sequence[Interface], segments: Mapping[str, Segment]) -> list[bytes]:
    messages: list[bytes] = []
    for each in interfaces:
        if each.address:
            messages.append(route.address(each.index, each.address, each.prefix))
        messages += [route.address(each.index, more, 16) for more in each.link_local]
        messages.append(route.link_up(each.index))
        if each.address6:
            messages.append(route.address6(each.index, each.address6, each.prefix6))
        messages += [route.link_route(subnet, each.index) for subnet in each.neighbours]
        if each.gateway and not each.kind:  # the bridge, which has one MAC for all its addresses
            mac = mac_for(segments[each.network_id].gateway)
            messages.append(route.neighbour(each.index, each.gateway, mac))
            if each.gateway6:
                messages.append(route.neighbour(each.index, each.gateway6, mac))
        if each.ingress:
            segment = segments[each.network_id]
            assert segment.subnet is not None, "the ingress network has IPv4"
            hop = str(segment.subnet.broadcast_address - 1)
            mark, mask = mesh_mark(segment)
            messages += [
                route.neighbour(each.index, hop, mac_for(hop)),
                route.default_route(hop, each.index, _MESH_TABLE),
                route.mark_rule(mark, mask, _MESH_TABLE, _MESH_PRIORITY),
            ]
            if each.address6:  # the marks are the same: they come from MACs, which come from IPv4 addresses
                hop6 = address6_for(str(segment.subnet6), hop).partition("/")[0]
                messages += [
                    route.neighbour(each.index, hop6, mac_for(hop)),
                    route.default_route6(hop6, each.index, _MESH_TABLE),
                    route.mark_rule(mark, mask, _MESH_TABLE, _MESH_PRIORITY, socket.AF_INET6),
                ]
    return messages


def _ways_out(interfaces: Sequence[Interface]) -> list[bytes]:
    messages: list[bytes] = []
    if (leading := way_out(interfaces)) is not None:
        messages.append(
            route.default_route(leading.gateway, leading.index)
            if leading.gateway
            else route.link_route("0.0.0.0/0", leading.index)
        )
    if (leading := way_out6(interfaces)) is not None:
        messages.append(
            route.default_route6(leading.gateway6, leading.index)
            if leading.gateway6
            else child.default_device_route6(leading.index)
        )
    return messages
