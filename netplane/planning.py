"""From what a sandbox should be to its interfaces and its files."""

import contextlib
import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from cluster.dataplane import address6_for
from netplane import resolv
from netplane.builder import FIRST_INDEX
from netplane.drivers.addressing import mac_of
from netplane.ends import port_name
from netplane.errors import InvalidNetwork, NetworkError
from netplane.gateway_modes import ROUTED
from netplane.local_networks import LocalNetworks
from netplane.model import (
    DNS,
    Attachment,
    HostPort,
    Interface,
    Mode,
    Sandbox,
    SandboxSpec,
    Segment,
    way_out,
    way_out6,
)
from netplane.records import bare

# The docker command writes it in lower case for services.
_SYSCTL = re.compile(r"net\.(ipv4|ipv6|mpls)\.(conf|neigh)\.(?:IFNAME|ifname)\.([a-z0-9_]+)", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)


def plan(
    spec: SandboxSpec, segments: Sequence[Segment], local: LocalNetworks, undo: contextlib.AsyncExitStack
) -> tuple[Interface, ...]:
    """The interfaces of a sandbox on these segments; `undo` gives addresses of local pools back."""
    if len({segment.network_id for segment in segments}) < len(segments):
        raise InvalidNetwork("a sandbox can be in a network only once")
    if spec.host_ports and not segments:
        raise InvalidNetwork("host ports need a network")
    check_apart(segments)
    # The ingress network is the way out of a task that is on it: its replies must return through it.
    order = sorted(
        zip(spec.attachments, segments, strict=True),
        key=lambda pair: (not pair[1].ingress, -pair[0].priority),
    )
    return tuple(
        interface(spec.id, number, attachment, segment, local, undo)
        for number, (attachment, segment) in enumerate(order)
    )


def interface(
    sandbox_id: str,
    number: int,
    attachment: Attachment,
    segment: Segment,
    local: LocalNetworks,
    undo: contextlib.AsyncExitStack,
) -> Interface:
    """A sandbox's interface with this number on a segment."""
    address, address6 = _addresses(attachment, segment, local, undo)
    subnet, gateway = _place(address, segment)
    subnet6, child = segment.subnet6, segment.child
    device = attachment.device or f"{segment.interface_prefix}{number}"
    mac = _mac(attachment)
    if child is not None and child.mac:
        if mac:
            raise InvalidNetwork(
                f"containers of this network have the address of the device {segment.bridge}, {child.mac}: "
                "leave --mac-address out"
            )
        mac = child.mac
    return Interface(
        network_id=segment.network_id,
        device=device,
        index=FIRST_INDEX + number,
        port="" if child is not None else port_name(sandbox_id, number),
        mtu=segment.mtu,
        address=address,
        prefix=subnet.prefixlen if subnet is not None else 0,
        mac=mac or mac_of(address, address6),
        gateway="" if segment.internal or not address else gateway,
        ingress=segment.ingress,
        address6=address6,
        prefix6=subnet6.prefixlen if subnet6 is not None and address6 else 0,
        gateway6="" if segment.internal or not address6 else segment.gateway6,
        link_local=tuple(_link_local(each) for each in attachment.link_local),
        priority=attachment.priority,
        neighbours=tuple(str(other) for other, _ in segment.subnets if other != subnet),
        sysctls=_sysctls(attachment, device),
        kind=child.kind if child is not None else "",
        direct=bool(address) and segment.gateway_mode == ROUTED and not segment.internal,
        direct6=bool(address6) and segment.gateway_mode6 == ROUTED and not segment.internal,
        trusted=bool(segment.trusted) and not segment.internal,
        routed=child is not None and child.routed and not segment.internal,
    )


def check_apart(segments: Sequence[Segment]) -> None:
    """Raises InvalidNetwork if a sandbox would have one subnet on two links: it could use only one."""
    seen: list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, Segment]] = []
    for segment in segments:
        own = [subnet for subnet, _ in segment.subnets]
        for subnet in (*own, segment.subnet6):
            if subnet is None:
                continue
            for other, holder in seen:
                if (
                    holder.network_id != segment.network_id
                    and other.version == subnet.version
                    and subnet.overlaps(other)
                ):
                    raise InvalidNetwork(
                        f"the networks {holder.network_id[:12]} ({other}) and {segment.network_id[:12]} "
                        f"({subnet}) overlap: a container can be in one of them only"
                    )
            seen.append((subnet, segment))


def _place(address: str, segment: Segment) -> tuple[ipaddress.IPv4Network | None, str]:
    """The subnet of an address, and its gateway."""
    if not address:
        return None, ""
    return next(
        (pair for pair in segment.subnets if ipaddress.IPv4Address(address) in pair[0]), segment.subnets[0]
    )


def _addresses(
    attachment: Attachment, segment: Segment, local: LocalNetworks, undo: contextlib.AsyncExitStack
) -> tuple[str, str]:
    if local.segment(segment.network_id) is None:
        if attachment.mac:
            raise InvalidNetwork("in cluster networks MAC addresses can't be chosen: leave --mac-address out")
        if attachment.address6:
            raise InvalidNetwork(
                "in cluster networks the IPv6 address follows from the IPv4 address: choose that with --ip, "
                "and leave --ip6 out"
            )
        if not attachment.address:
            raise InvalidNetwork(f"network {attachment.network_id} needs an address from the managers")
        if segment.without_ipv6 and not segment.ingress:
            raise NetworkError(segment.without_ipv6)
        if segment.subnet6 is None:
            return bare(attachment.address), ""
        return bare(attachment.address), bare(address6_for(str(segment.subnet6), attachment.address))
    found = []
    for pool, wanted in (
        (local.pool(segment.network_id), attachment.address),
        (local.pool6(segment.network_id), attachment.address6),
    ):
        if pool is None:
            if wanted:
                raise InvalidNetwork(
                    f"no configured subnet contains IP address {wanted}: the network has none of its kind"
                )
            found.append("")
            continue
        found.append(given := pool.allocate(wanted))
        undo.callback(pool.release, given)
    return found[0], found[1]


def _sysctls(attachment: Attachment, device: str) -> tuple[tuple[str, str], ...]:
    """As paths below /proc/sys. They must be the interface's own."""
    found = []
    for name, value in attachment.sysctls:
        match = _SYSCTL.fullmatch(name)
        if match is None:
            raise InvalidNetwork(
                f"invalid sysctl {name!r}: write net.ipv4.conf.IFNAME.NAME (or ipv6, mpls; or neigh)"
            )
        found.append((f"net/{match[1]}/{match[2]}/{device}/{match[3]}", value))
    return tuple(found)


def _mac(attachment: Attachment) -> str:
    if not attachment.mac:
        return ""
    text = attachment.mac.replace("-", ":").lower()
    if not _MAC.fullmatch(text):
        raise InvalidNetwork(f"invalid MAC address: {attachment.mac}")
    if int(text[:2], 16) & 1:
        raise InvalidNetwork(f"invalid MAC address: {attachment.mac} is one of a group")
    return text


def _link_local(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError as error:
        raise InvalidNetwork(f"invalid link-local address: {text}") from error


def describe(
    spec: SandboxSpec,
    path: Path,
    interfaces: Sequence[Interface],
    ports: tuple[HostPort, ...],
    host_dns: DNS,
    *,
    embedded: bool,
) -> Sandbox:
    """The public face of a private sandbox."""
    exit_interface = way_out(interfaces)
    exit_interface6 = way_out6(interfaces)
    gateway = exit_interface.gateway if exit_interface is not None else ""
    if exit_interface is None and exit_interface6 is not None:
        gateway = exit_interface6.gateway6
    addresses = [
        address
        for address in (*(each.address for each in interfaces), *(each.address6 for each in interfaces))
        if address
    ]
    return Sandbox(
        id=spec.id,
        netns=path,
        addresses={each.network_id: each.cidr for each in interfaces},
        addresses6={each.network_id: each.cidr6 for each in interfaces if each.address6},
        macs={each.network_id: each.mac for each in interfaces},
        gateways={each.network_id: each.gateway for each in interfaces},
        gateways6={each.network_id: each.gateway6 for each in interfaces if each.address6},
        resolv_conf=resolv.resolv_conf(spec.dns, host_dns, embedded=embedded),
        hosts=resolv.hosts(spec.hostname, addresses, spec.extra_hosts, gateway),
        ports=ports,
    )


def describe_plain(spec: SandboxSpec, path: Path | None, host_dns: DNS) -> Sandbox:
    """The public face of a sandbox with no network, or with the host's."""
    own = spec.dns
    if spec.mode is Mode.HOST and not own.servers:  # there, the host's loopback resolvers work too
        own = replace(own, servers=host_dns.servers)
    return Sandbox(
        id=spec.id,
        netns=path,
        resolv_conf=resolv.resolv_conf(own, host_dns, embedded=False),
        hosts=resolv.hosts(spec.hostname, ("127.0.1.1",), spec.extra_hosts, "127.0.0.1"),
    )
