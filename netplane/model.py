"""What the agent asks of the network plane, and what it gets back."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from cluster.dataplane import Protocol
from cluster.spec import NetworkSpec


class Mode(StrEnum):
    """Which namespace a sandbox is."""

    NONE = "none"  # its own, with nothing but loopback
    HOST = "host"  # the host's
    PRIVATE = "private"  # its own, attached to networks


class HostPort(msgspec.Struct, frozen=True):
    """A host port that leads to a sandbox. `published` 0: any free one; with `direct`, none: the port is open
    at the sandbox's own address. Empty `host_ip`: all addresses, or
    the first of this node that fits one of the places in `at` (cluster.publish_at)."""

    protocol: Protocol
    published: int
    target: int
    host_ip: str = ""
    at: tuple[str, ...] = ()
    direct: bool = False


class Attachment(msgspec.Struct, frozen=True):
    """A place in a network.

    `network_id` is a cluster network's id, a local network's id, or "bridge". `address` is "a.b.c.d/prefix";
    empty on a local network: the node allocates. `aliases` and `names` resolve to this sandbox alone. `links`
    are "container:alias": inside this sandbox, the alias means that container. `mac` is "" for the usual one.
    Of several networks the one of the highest `priority` leads out, of equals the first.
    """

    network_id: str
    address: str = ""
    aliases: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    address6: str = ""
    link_local: tuple[str, ...] = ()  # more IPv4 addresses of this end
    mac: str = ""
    links: tuple[str, ...] = ()
    priority: int = 0
    device: str = ""  # the interface's name inside; "" for the usual one
    sysctls: tuple[tuple[str, str], ...] = ()  # of the interface, IFNAME for its name: net.ipv4.conf.IFNAME.…


class DNS(msgspec.Struct, frozen=True):
    """A container's own resolver settings; empty ones come from the host."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class SandboxSpec(msgspec.Struct, frozen=True):
    """A sandbox as wanted. `extra_hosts` are "name:address"; the address may be "host-gateway"."""

    id: str
    hostname: str = ""
    mode: Mode = Mode.PRIVATE
    attachments: tuple[Attachment, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    dns: DNS = DNS()
    task_id: str = ""
    service_id: str = ""
    extra_hosts: tuple[str, ...] = ()


class Sandbox(msgspec.Struct, frozen=True):
    """A sandbox as it is. `resolv_conf` and `hosts` are contents, to be mounted at their usual places."""

    id: str
    netns: Path | None  # None: the host's
    addresses: dict[str, str] = {}  # network id → "a.b.c.d/prefix"
    addresses6: dict[str, str] = {}  # network id → IPv6 address with prefix, where it has one
    macs: dict[str, str] = {}  # network id → MAC
    gateways: dict[str, str] = {}  # network id → the address that leads out, "" if none does
    gateways6: dict[str, str] = {}
    resolv_conf: str = ""
    hosts: str = ""
    ports: tuple[HostPort, ...] = ()  # as bound


class LocalNetwork(msgspec.Struct, frozen=True):
    """A network of this node alone: predefined (bridge, host, none), made by a user, or this node's part of a
    swarm-scoped network whose addresses are the nodes' (`spec.scope` is "swarm")."""

    id: str
    name: str
    driver: str  # a name of netplane.drivers; null also for what only holds settings for others
    created_at: int
    spec: NetworkSpec  # as asked for, completed from the network that its settings are taken from
    subnet: str = ""
    gateway: str = ""
    subnet6: str = ""  # "" without IPv6
    gateway6: str = ""
    bridge: str = ""  # the Linux device
    mtu: int = 1500
    predefined: bool = False
    parent: str = ""  # the device under macvlan and ipvlan links

    @property
    def internal(self) -> bool:
        """True if nothing leads out."""
        return self.spec.internal


@dataclass(frozen=True)
class Child:
    """What sandboxes get where they are no ports of a bridge: a link of their own on top of the parent.

    `kind`, `mode` and `flags` are the kernel's (macvlan, ipvlan). `routed`: the parent's node routes to them,
    so that they need no gateway. `mac` is the parent's where the kind shares it, else "".
    """

    kind: str
    mode: int
    flags: int = 0
    routed: bool = False
    mac: str = ""


@dataclass(frozen=True)
class Segment:
    """What sandboxes of a network attach to on this node: a bridge, of a local network or of an overlay, or
    with `child` another device."""

    network_id: str
    bridge: str
    index: int
    mtu: int
    subnet: ipaddress.IPv4Network | None  # None: no IPv4
    gateway: str  # the bridge's own address in the network, or the router's; "" if there is none
    internal: bool = False
    ingress: bool = False
    resolves_names: bool = True  # False on the default bridge, which uses the host's resolvers
    subnet6: ipaddress.IPv6Network | None = None
    gateway6: str = ""
    masquerade: bool = True  # containers are seen outside by the host's address
    isolated: bool = False  # containers don't reach each other
    host_address: str = ""  # where ports are published that name no address
    interface_prefix: str = "eth"
    more: tuple[tuple[ipaddress.IPv4Network, str], ...] = ()  # further subnets, with their gateways
    child: Child | None = None
    gateway_mode: str = "nat"  # netplane.gateway_modes
    gateway_mode6: str = "nat"
    trusted: tuple[str, ...] = ()  # links of the host from which published ports are reached directly
    without_ipv6: str = ""  # why this node can't have the network's IPv6; a sentence

    @property
    def subnets(self) -> tuple[tuple[ipaddress.IPv4Network, str], ...]:
        """All IPv4 subnets, each with the bridge's own address in it."""
        return ((self.subnet, self.gateway), *self.more) if self.subnet is not None else self.more


class Interface(msgspec.Struct, frozen=True):
    """One link of a sandbox: `device` inside; of a veth, `port` on the bridge. `kind` is that of a link on
    another device (model.Child), which has no port. Without IPv4 `address` is "", and `prefix` 0."""

    network_id: str
    device: str
    index: int
    port: str
    mtu: int
    address: str
    prefix: int
    mac: str
    gateway: str = ""  # leads out of the network; "" if nothing does
    ingress: bool = False
    address6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    link_local: tuple[str, ...] = ()
    priority: int = 0
    sysctls: tuple[tuple[str, str], ...] = ()  # below /proc/sys
    neighbours: tuple[str, ...] = ()  # further subnets that are on this link
    kind: str = ""
    routed: bool = False  # everything is reached by the link itself, without a gateway
    direct: bool = False  # published ports are reached at `address` itself (gateway mode routed)
    direct6: bool = False  # and at `address6`
    trusted: bool = False  # they are from some links of the host (Segment.trusted)

    @property
    def cidr(self) -> str:
        """The address with its prefix length; "" without one."""
        return f"{self.address}/{self.prefix}" if self.address else ""

    @property
    def cidr6(self) -> str:
        """The IPv6 address with its prefix length; "" without one."""
        return f"{self.address6}/{self.prefix6}" if self.address6 else ""


def way_out(interfaces: Sequence[Interface]) -> Interface | None:
    """The interface of the default route: the ingress network's, else that of the highest priority, else the
    first that leads anywhere."""
    ways = [each for each in interfaces if each.gateway or (each.routed and each.address)]
    return min(ways, key=lambda each: (not each.ingress, -each.priority), default=None)


def way_out6(interfaces: Sequence[Interface]) -> Interface | None:
    """The interface of the IPv6 default route."""
    ways = [each for each in interfaces if each.gateway6 or (each.routed and each.address6)]
    return min(ways, key=lambda each: (not each.ingress, -each.priority), default=None)


class SandboxRecord(msgspec.Struct, frozen=True):
    """What is kept of a sandbox across restarts of the daemon."""

    spec: SandboxSpec
    sandbox: Sandbox
    interfaces: tuple[Interface, ...] = ()
    dns_port: int = 0  # where its name server listens; 0 if it has none
    upstreams: tuple[str, ...] = ()  # whom that asks for names it does not know

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks it is in, in the order of its interfaces."""
        return tuple(interface.network_id for interface in self.interfaces)
