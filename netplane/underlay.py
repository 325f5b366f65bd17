"""Whether an overlay goes with the links that this host has already.

A bridge with a subnet that the host has on another link takes that link's traffic, also the nodes' own.
"""

import functools
import ipaddress
import socket
from collections.abc import Callable, Collection, Sequence

from cluster.dataplane import NetworkRecord
from cluster.validate_ipam import MTU_OPTION
from netplane import links

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Connected = Sequence[tuple[str, IPNetwork]]


class Underlay:
    """The host's links, as they are now; looked at when first asked."""

    def __init__(self, nodes: Collection[str], own: Callable[[str], bool]) -> None:
        """Args:
        nodes: where nodes of the cluster, this one too, get their frames.
        own: whether a link of this name is an overlay's.
        """
        self._nodes = nodes
        self._own = own

    def objection(self, record: NetworkRecord, bridge: str, most: int) -> str:
        """Why an overlay can't be made here, and what to do; empty when it can, or is there already.

        Args: most: the largest packet, in bytes, that gets to another node whole.
        """
        if _exists(bridge):
            return ""  # of an earlier run: its containers go on
        if record.mtu > most:
            return (
                f"network {record.name} has an MTU of {record.mtu} ({MTU_OPTION}), and between the nodes "
                f"{most} at most get through on this one: create the network with {most} or less, or "
                "without the option, or raise the MTU of the link between the nodes"
            )
        return overlap(record, self._nodes, self._connected)

    @functools.cached_property
    def _connected(self) -> Connected:
        found = [*links.connected_subnets(4), *links.connected_subnets(6)]
        return [(link, subnet) for link, subnet in found if link and not self._own(link)]


def overlap(record: NetworkRecord, nodes: Collection[str], connected: Connected) -> str:
    """Which of the nodes' addresses, or of this host's routes, the network would take; empty for none."""
    remedy = "create the network with another --subnet"
    for own in (*record.subnets, *record.subnets6):
        subnet = ipaddress.ip_network(own.subnet)
        for link, taken in connected:
            if taken.version == subnet.version and taken.overlaps(subnet):
                return (
                    f"network {record.name} ({subnet}) can't be on this node: it overlaps {taken}, which the "
                    f"node has on its link {link}; {remedy}, or take that from the node"
                )
        for node in nodes:
            if ipaddress.ip_address(node) in subnet:
                return (
                    f"network {record.name} ({subnet}) can't be on this node: {node} in it is a node's own "
                    f"address; {remedy}"
                )
    return ""


def _exists(link: str) -> bool:
    try:
        return bool(socket.if_nametoindex(link))
    except OSError:
        return False
