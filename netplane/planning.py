"""From what a sandbox should be to its interfaces and its files."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from cluster.dataplane import mac_for
from netplane import resolv
from netplane.builder import FIRST_INDEX, port_name
from netplane.errors import InvalidNetwork
from netplane.local_networks import LocalNetworks
from netplane.model import DNS, Attachment, HostPort, Interface, Mode, Sandbox, SandboxSpec, Segment
from netplane.records import bare


def plan(
    spec: SandboxSpec, segments: Sequence[Segment], local: LocalNetworks, undo: contextlib.AsyncExitStack
) -> tuple[Interface, ...]:
    """The interfaces of a sandbox on these segments; `undo` gives addresses of local pools back."""
    if len({segment.network_id for segment in segments}) < len(segments):
        raise InvalidNetwork("a sandbox can be in a network only once")
    if spec.host_ports and not segments:
        raise InvalidNetwork("host ports need a network")
    # The ingress network is the way out of a task that is on it: its replies must return through it.
    order = sorted(zip(spec.attachments, segments, strict=True), key=lambda pair: not pair[1].ingress)
    return tuple(
        Interface(
            network_id=segment.network_id,
            device=f"eth{number}",
            index=FIRST_INDEX + number,
            port=port_name(spec.id, number),
            mtu=segment.mtu,
            address=address,
            prefix=segment.subnet.prefixlen,
            mac=mac_for(address),
            gateway="" if segment.internal else segment.gateway,
            ingress=segment.ingress,
        )
        for number, (attachment, segment) in enumerate(order)
        for address in [_address(attachment, segment, local, undo)]
    )


def _address(
    attachment: Attachment, segment: Segment, local: LocalNetworks, undo: contextlib.AsyncExitStack
) -> str:
    if local.segment(segment.network_id) is not None:
        pool = local.pool(segment.network_id)
        address = pool.allocate(attachment.address)
        undo.callback(pool.release, address)
        return address
    if not attachment.address:
        raise InvalidNetwork(f"network {attachment.network_id} needs an address from the managers")
    return bare(attachment.address)


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
    gateway = next((each.gateway for each in interfaces if each.gateway), "")
    return Sandbox(
        id=spec.id,
        netns=path,
        addresses={each.network_id: each.cidr for each in interfaces},
        macs={each.network_id: each.mac for each in interfaces},
        gateways={each.network_id: each.gateway for each in interfaces},
        resolv_conf=resolv.resolv_conf(spec.dns, host_dns, embedded=embedded),
        hosts=resolv.hosts(spec.hostname, [each.address for each in interfaces], spec.extra_hosts, gateway),
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
