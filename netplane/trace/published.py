"""Connections to this node's own addresses: published ports, of the routing mesh or of one container."""

import ipaddress
from collections.abc import Iterator

from cluster.dataplane import PublishedPort, ServiceRecord
from cluster.publish_at import is_interface
from netplane.model import HostPort, SandboxRecord
from netplane.trace import firewalls
from netplane.trace.model import Target, listens
from netplane.trace.progress import Walk
from netplane.trace.source import Source
from netplane.trace.way import Way

_MOST = 8


async def to_this_node(walk: Walk, sender: Source, address: str) -> Target | None:
    """Walk to a published port of this node. `address`: one of it, or "" if the target is a service by its
    published port or the container's. Returns where a probe should connect to."""
    scene, port = walk.scene, walk.target.port
    host, here = walk.target.host, address or "127.0.0.1"
    if here not in await walk.kernel.addresses():
        _elsewhere(walk, here)
        return None
    for service_network, service, published in _mesh_ports(walk):
        own = walk.target.address or host in (service.name, service.service_id)
        if own and published.protocol == walk.protocol and port in _numbers(walk, published):
            await _mesh(walk, sender, service_network, service, published, here)
            return Target(here, published.published)
    elsewhere: dict[str, str] = {}
    for record, mapped in _host_ports(walk):
        named = host in (scene.title(record), record.sandbox.id[:12], record.spec.hostname)
        if (walk.target.address or named) and mapped.protocol == walk.protocol and port == mapped.published:
            if mapped.host_ip in ("", "::" if ":" in here else "0.0.0.0", here) or named:
                walk.good(
                    "balance",
                    f"port {port}/{mapped.protocol} of {mapped.host_ip or 'all addresses'} leads to "
                    f"{scene.title(record)}, port {mapped.target}",
                )
                address = _leads_to(record, here)
                if not address:
                    walk.bad(
                        "balance",
                        f"{scene.title(record)} has no {'IPv6' if ':' in here else 'IPv4'} address, and its "
                        f"port is not open at {here}",
                        "connect by the other kind of address, or put it into a network that has both",
                    )
                    return None
                if not sender.is_host and not firewalls.forwards(walk, "way", address):
                    return None
                await Way(walk, Source("this node")).to(address, mapped.target)
                return Target(here, mapped.published)
            elsewhere[mapped.host_ip] = scene.title(record)  # the same port may be another's here
    own_programs = await walk.kernel.listening(None, walk.protocol, port) if port else ()
    if walk.target.address and own_programs and listens(own_programs, here):
        if not sender.is_host and not firewalls.lets_in(walk, here, f"port {port}/{walk.protocol}"):
            return None
        walk.good("arrival", f"no port of Shoal's: a program of this node itself listens on port {port}")
        return Target(here, port)
    if elsewhere:
        places = ", ".join(elsewhere)
        walk.bad(
            "balance",
            f"port {port} is published for {', '.join(dict.fromkeys(elsewhere.values()))} at {places} only, "
            f"not at {here}",
            f"connect to {places}, or publish it at all addresses",
        )
        return None
    known = sorted({f"{each.published}/{each.protocol}" for _, _, each in _mesh_ports(walk)})
    known += sorted({f"{each.published}/{each.protocol} (this node only)" for _, each in _host_ports(walk)})
    walk.bad(
        "balance",
        f"{walk.target} is no published port"
        + (f"; there are {', '.join(known)}" if known else "; there are none"),
        "publish it: `docker service update --publish-add PUBLISHED:TARGET SERVICE`, or name the right one",
    )
    return None


def _leads_to(record: SandboxRecord, here: str) -> str:
    """The address of a sandbox that connections to one of the host's are led to; "" if none."""
    six = ":" in here
    return next(
        (found for each in record.interfaces if (found := each.address6 if six else each.address)), ""
    )


def _numbers(walk: Walk, published: PublishedPort) -> tuple[int, ...]:
    """By a service's name both its numbers are understood; by an address the published one counts."""
    if walk.target.address:
        return (published.published,)
    return (published.published, published.target, 0)


def _elsewhere(walk: Walk, address: str) -> None:
    peer = next((each for each in walk.scene.records.peers.values() if each.address == address), None)
    if peer is not None:
        walk.bad(
            "balance",
            f"{address} is node {peer.node_id}, not this one",
            "run `shoal network trace` on that node: every node has its own rules for published ports",
        )
    else:
        walk.bad(
            "way",
            f"{address} is no address of this node, and containers' addresses can't be reached from outside",
            "connect to a published port of a node",
        )


def _mesh_ports(walk: Walk) -> Iterator[tuple[str, ServiceRecord, PublishedPort]]:
    records = walk.scene.records
    for network in records.networks.values():
        if network.ingress:
            for service in records.services(network.id):
                for port in service.ports:
                    yield network.id, service, port


def _host_ports(walk: Walk) -> Iterator[tuple[SandboxRecord, HostPort]]:
    for record in walk.scene.sandboxes.values():
        for port in record.sandbox.ports:
            if record.interfaces:
                yield record, port


async def _mesh(
    walk: Walk, sender: Source, network_id: str, service: ServiceRecord, port: PublishedPort, here: str
) -> None:
    scene = walk.scene
    title = f"port {port.published}/{port.protocol} of every node leads to service {service.name}"
    if port.at and walk.target.address and not any(_at(place, here) for place in port.at):
        walk.bad(
            "balance",
            f"{title}, but only at {', '.join(port.at)} (label shoal.publish), and not at {here}",
            "connect to one of those addresses, or change the label",
        )
        return
    wanted = scene.records.serving(network_id, service.service_id, scene.withdrawn)
    if not wanted:
        walk.bad(
            "balance",
            f"{title}, of which no task takes connections: they are refused",
            f"see why with `shoal service explain {service.name}`",
        )
        return
    wanted = tuple(filter(None, (scene.like(here, network_id, each) for each in wanted)))
    if not wanted:
        walk.bad(
            "balance",
            f"{title}, but by IPv4 only: network {scene.network_name(network_id)} has no IPv6",
            "connect to an IPv4 address of the node, or make the ingress network anew with --ipv6",
        )
        return
    family = "ip6" if ":" in here else "ip"
    held = await walk.kernel.published(port.protocol, port.published, ipv6=":" in here)
    if held is None:
        walk.bad(
            "balance",
            f"{title}, but this node's rules don't know it",
            f"somebody flushed them (see `nft list table {family} shoal`): shoald writes them again when it "
            "notices",
        )
        return
    if not held:
        walk.bad(
            "balance",
            f"{title}, but this node leads to none of its tasks, as they are elsewhere: refused",
            "connect to a node that has one, or change the label shoal.publish.policy to local-first",
        )
        return
    if extra := sorted(set(held) - set(wanted)):
        walk.bad(
            "balance",
            f"{title}; the kernel still sends connections to {', '.join(extra)}, which serve no more",
            "the next change corrects it; if it stays, see the log of shoald on this node",
        )
    if not sender.is_host and not firewalls.forwards(walk, "balance", here):
        return
    walk.good("balance", f"{title}, here to {', '.join(held)}, port {port.target} (so the kernel has it)")
    way = Way(walk, Source("this node"))
    for each in held[:_MOST]:
        await way.to(each, port.target)


def _at(place: str, address: str) -> bool:
    if is_interface(place):
        return True  # which interface a client comes by can't be told from here
    return ipaddress.ip_address(address) in ipaddress.ip_network(place, strict=False)
