"""What a trace tells, and what it looks at."""

import ipaddress
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from cluster.dataplane import EndpointRecord, ServiceRecord, address6_for
from netplane.dns.zone import Zone
from netplane.doctor import Dropping
from netplane.errors import InvalidNetwork
from netplane.links import Link
from netplane.model import LocalNetwork, SandboxRecord, Segment
from netplane.records import ClusterRecords, bare


class Step(msgspec.Struct, frozen=True, rename="pascal"):
    """One station. `good` False: the packet gets no further here; then `advice` says what to do. `checked`
    False: nothing speaks against it, but this node could not look."""

    stage: str  # source, name, balance, way, arrival, probe
    good: bool
    text: str
    advice: str = ""
    checked: bool = True


class Trace(msgspec.Struct, frozen=True, rename="pascal"):
    """The whole way."""

    source: str
    destination: str
    steps: tuple[Step, ...]
    arrives: bool
    summary: str
    advice: str = ""


class Target(msgspec.Struct, frozen=True):
    """Where to. `port` 0: any."""

    host: str
    port: int = 0

    @property
    def address(self) -> str:
        """The host, if it is an address in canonical form; else ""."""
        try:
            return str(ipaddress.ip_address(self.host))
        except ValueError:
            return ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host and self.port else self.host
        return f"{host}:{self.port}" if self.port else host


def parse_target(text: str) -> Target:
    """`NAME`, `NAME:PORT`, `ADDRESS`, `[IPv6]:PORT`. Raises InvalidNetwork."""
    host, port = text, ""
    if text.startswith("["):
        host, closing, port = text[1:].partition("]")
        if not closing or port[:1] not in ("", ":") or not Target(host).address:
            raise InvalidNetwork(
                f"invalid destination {text!r}: an IPv6 address with a port is [ADDRESS]:PORT"
            )
        asked, port = bool(port), port[1:]
    else:
        asked = text.count(":") == 1
        if asked:
            host, _, port = text.partition(":")
        elif ":" in text and not Target(text).address:
            raise InvalidNetwork(
                f"invalid destination {text!r}: an IPv6 address with a port is [ADDRESS]:PORT"
            )
    if not host or (asked and not port):
        raise InvalidNetwork(f"invalid destination {text!r}: write NAME, NAME:PORT, ADDRESS or ADDRESS:PORT")
    if asked and not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536):
        raise InvalidNetwork(f"invalid port {port!r} in {text!r}: it is a number from 1 to 65535")
    return Target(host, int(port or 0))


def listens(found: Collection[str], address: str) -> bool:
    """Whether one of these listeners takes connections to an address."""
    return address in found or ("::" if ":" in address else "0.0.0.0") in found


def within(address: str, subnet: str) -> bool:
    """Whether an address is of a subnet; False for what is neither."""
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(subnet, strict=False)
    except ValueError:
        return False


class Kernel(Protocol):
    """What is read from the kernel while tracing."""

    async def links(self) -> Mapping[str, Link]:
        """The host's links by name."""

    async def addresses(self) -> Collection[str]:
        """The host's own addresses."""

    async def mtu_of(self, address: str) -> int:
        """The MTU of the host's link that holds an address."""

    async def backends(self, netns: Path, address: str) -> Sequence[str] | None:
        """Where a sandbox's rules lead new connections to a service's address; None: they don't know it."""

    async def at_connect(self, network_id: str, address: str) -> Sequence[str] | None:
        """Where the programs at connect() lead TCP to a service's address; None: they don't."""

    async def published(self, protocol: str, port: int, *, ipv6: bool = False) -> Sequence[str] | None:
        """Where the host's rules lead connections to a published port; None: they don't know it."""

    async def tunnels(self, index: int) -> Mapping[str, str]:
        """What a VXLAN device holds: address in the network → its node's address."""

    async def listening(self, netns: Path | None, protocol: str, port: int) -> Collection[str] | None:
        """The addresses at which something listens on a port, with 0.0.0.0 where a socket at :: takes IPv4
        too; None: it can't be told. `netns` None: in the host's namespace."""

    async def connect(self, netns: Path | None, address: str, port: int) -> str:
        """Connect by TCP and close again: "" when it worked, else why not."""


@dataclass(frozen=True)
class Scene:
    """What this node knows."""

    node: str
    node_id: str
    tunnel_address: str
    records: ClusterRecords
    sandboxes: Mapping[str, SandboxRecord]
    segments: Mapping[str, Segment]  # by network id
    local: Mapping[str, LocalNetwork]
    zone_of: Callable[[str], Zone]
    withdrawn: Collection[str] = ()
    firewalls: Sequence[Dropping] = ()  # other people's, of this host
    device_names: Callable[[str], tuple[str, str]] = field(default=lambda network_id: ("", ""))

    def network_name(self, network_id: str) -> str:
        """A network's name; its id when nobody knows it."""
        record = self.records.networks.get(network_id) or self.local.get(network_id)
        return record.name if record is not None else network_id

    def names(self, network_ids: Sequence[str]) -> str:
        """Networks' names, for a sentence."""
        return ", ".join(self.network_name(each) for each in network_ids) or "none"

    def endpoint(self, network_id: str, address: str) -> EndpointRecord | None:
        """The task or container of the cluster's that has an address."""
        return next(
            (
                each
                for each in self.records.endpoints(network_id)
                if self.like(address, network_id, each.address) == address
            ),
            None,
        )

    def service_at(self, network_id: str, address: str) -> ServiceRecord | None:
        """The service that has a virtual address."""
        return next(
            (
                each
                for each in self.records.services(network_id)
                if each.vip and self.like(address, network_id, each.vip) == address
            ),
            None,
        )

    def like(self, example: str, network_id: str, address: str) -> str:
        """An IPv4 address of a network, or the IPv6 one that goes with it if `example` is one; "" if none."""
        if ":" not in example:
            return bare(address)
        record = self.records.networks.get(network_id)
        subnets = record.subnets6 if record is not None else ()
        return bare(address6_for(subnets[0].subnet, address)) if subnets else ""

    def services(self, name: str) -> list[tuple[str, ServiceRecord]]:
        """The services of a name or id, with the ids of the networks that they are in."""
        return [
            (network_id, service)
            for network_id in self.records.networks
            for service in self.records.services(network_id)
            if name in (service.name, service.service_id, *service.aliases)
        ]

    def title(self, record: SandboxRecord) -> str:
        """What a sandbox is called: a task's name, a container's, else its id."""
        for network_id in record.networks:
            for endpoint in self.records.endpoints(network_id):
                if record.spec.task_id and endpoint.task_id == record.spec.task_id:
                    return endpoint.task_name
        named = (name for each in record.spec.attachments for name in each.names)
        return next(named, record.spec.hostname or record.sandbox.id[:12])
