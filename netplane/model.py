"""What the agent asks of the network plane, and what it gets back."""

import ipaddress
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
    """A host port that leads to a sandbox. `published` 0: any free one. Empty `host_ip`: all addresses."""

    protocol: Protocol
    published: int
    target: int
    host_ip: str = ""


class Attachment(msgspec.Struct, frozen=True):
    """A place in a network.

    `network_id` is a cluster network's id, a local network's id, or "bridge". `address` is "a.b.c.d/prefix";
    empty on a local network: the node allocates. `aliases` and `names` resolve to this sandbox alone.
    """

    network_id: str
    address: str = ""
    aliases: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


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
    macs: dict[str, str] = {}  # network id → MAC
    gateways: dict[str, str] = {}  # network id → the address that leads out, "" if none does
    resolv_conf: str = ""
    hosts: str = ""
    ports: tuple[HostPort, ...] = ()  # as bound


class LocalNetwork(msgspec.Struct, frozen=True):
    """A network of this node alone: predefined (bridge, host, none) or made by a user."""

    id: str
    name: str
    driver: str  # bridge, host, null
    created_at: int
    spec: NetworkSpec
    subnet: str = ""
    gateway: str = ""
    bridge: str = ""  # the Linux device
    mtu: int = 1500
    predefined: bool = False

    @property
    def internal(self) -> bool:
        """True if nothing leads out."""
        return self.spec.internal


@dataclass(frozen=True)
class Segment:
    """A bridge of this node that sandboxes attach to, whether of a local network or of an overlay."""

    network_id: str
    bridge: str
    index: int
    mtu: int
    subnet: ipaddress.IPv4Network
    gateway: str  # the bridge's own address in the network; "" if it has none
    internal: bool = False
    ingress: bool = False
    resolves_names: bool = True  # False on the default bridge, which uses the host's resolvers


class Interface(msgspec.Struct, frozen=True):
    """One veth of a sandbox: `device` inside, `port` on the bridge."""

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

    @property
    def cidr(self) -> str:
        """The address with its prefix length."""
        return f"{self.address}/{self.prefix}"


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
