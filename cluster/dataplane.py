"""What every node must know of the cluster's networks: the records that managers send and netplane applies.

They hold addresses, not tasks: the network plane knows nothing of scheduling. Each record has a key; the
dispatcher sends only those that changed.
"""

import ipaddress
from enum import StrEnum

from cluster.encryption import is_encrypted
from cluster.objects import Record, Subnet
from cluster.publish_at import Policy


class Protocol(StrEnum):
    """Transport protocols that can be published."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


class NetworkRecord(Record, frozen=True):
    """A network that the node takes part in. Key: `id`."""

    id: str
    name: str
    driver: str  # overlay, bridge, macvlan
    subnets: tuple[Subnet, ...] = ()  # IPv4
    subnets6: tuple[Subnet, ...] = ()  # empty: the network has no IPv6
    vni: int = 0
    mtu: int = 0  # 0: derived from the underlay
    internal: bool = False
    ingress: bool = False
    attachable: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    config_from: str = ""  # whose settings each node takes: of its own network of that name
    key_epochs: tuple[int, ...] = ()  # of an encrypted network: the epochs in force, oldest first

    @property
    def encrypted(self) -> bool:
        """Whether its traffic between nodes must be encrypted."""
        return self.driver == "overlay" and is_encrypted(self.options)


class PeerRecord(Record, frozen=True):
    """Another node (or this one). Key: `node_id`."""

    node_id: str
    address: str  # data-path address, the VXLAN tunnel's end
    addresses: dict[str, str] = {}  # network id → that node's own address in the network ("a.b.c.d/prefix")
    keys: dict[int, str] = {}  # epoch → public WireGuard key, where it has encrypted networks
    silent: bool = False  # not heard of lately: its tasks get new connections only if there are no others


class EndpointRecord(Record, frozen=True):
    """A task's place in a network. Key: (`network_id`, `task_id`)."""

    network_id: str
    task_id: str
    task_name: str
    service_id: str
    node_id: str
    address: str  # "a.b.c.d/prefix"
    aliases: tuple[str, ...] = ()  # names that resolve to the service, from the task's attachment
    serving: bool = True  # False: reachable by address, but gets no new connection and no DNS answer


class PublishedPort(Record, frozen=True):
    """A port published on every node."""

    protocol: Protocol
    published: int
    target: int
    at: tuple[str, ...] = ()  # addresses, subnets, interfaces; empty: every address (cluster.publish_at)
    name: str = ""  # what its service calls it
    policy: Policy = Policy.ANY  # whom a node leads what comes to it
    proxy: str = ""  # the version of the PROXY protocol by which the task is told of its clients


class ServiceRecord(Record, frozen=True):
    """A service in a network. Key: (`network_id`, `service_id`)."""

    network_id: str
    service_id: str
    name: str
    aliases: tuple[str, ...] = ()
    vip: str = ""  # "a.b.c.d/prefix"; empty: dnsrr
    ports: tuple[PublishedPort, ...] = ()  # only in the ingress network's record


AnyDataplaneRecord = NetworkRecord | PeerRecord | EndpointRecord | ServiceRecord


class DataplaneChanges(Record, frozen=True):
    """A batch to be applied as one. `full` replaces all that the node knew.

    Removals are keys: network id, node id, (network id, task id), (network id, service id).
    """

    full: bool = False
    networks: tuple[NetworkRecord, ...] = ()
    peers: tuple[PeerRecord, ...] = ()
    endpoints: tuple[EndpointRecord, ...] = ()
    services: tuple[ServiceRecord, ...] = ()
    removed_networks: tuple[str, ...] = ()
    removed_peers: tuple[str, ...] = ()
    removed_endpoints: tuple[tuple[str, str], ...] = ()
    removed_services: tuple[tuple[str, str], ...] = ()

    @property
    def empty(self) -> bool:
        """True when there is nothing to apply."""
        return not self.full and not any(
            (
                self.networks,
                self.peers,
                self.endpoints,
                self.services,
                self.removed_networks,
                self.removed_peers,
                self.removed_endpoints,
                self.removed_services,
            )
        )


def mac_for(address: str) -> str:
    """The MAC of an IPv4 address in an overlay: 02:42 and the four bytes, so that no one must be asked."""
    octets = address.partition("/")[0].split(".")
    return "02:42:" + ":".join(f"{int(octet):02x}" for octet in octets)


def address6_for(subnet6: str, address: str) -> str:
    """The IPv6 address ("x::y/prefix") that goes with an IPv4 address of the same network: the subnet's
    prefix, and the IPv4 address as the last 32 bits, so that one allocation and one record tell both.

    Args: subnet6: a subnet of at most 96 bits of prefix; address: "a.b.c.d", with or without its prefix.
    """
    network = ipaddress.IPv6Network(subnet6)
    number = int(network.network_address) | int(ipaddress.IPv4Address(address.partition("/")[0]))
    return f"{ipaddress.IPv6Address(number)}/{network.prefixlen}"
