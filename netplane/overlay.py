"""Cluster networks on this node: a bridge and a VXLAN device each, told where every address is.

Nothing is learned or flooded: the forwarding table says behind which node a MAC is, permanent neighbours on
the VXLAN device answer ARP and neighbour solicitations for addresses elsewhere, and an unknown frame goes
nowhere. On an ordinary overlay every node's bridge holds the network's gateway (same address, same MAC); on
the ingress network every node has an address of its own.
"""

import hashlib
import ipaddress
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from msgspec.structs import replace

from cluster import encryption
from cluster.dataplane import NetworkRecord, address6_for, mac_for
from cluster.validate_ipam import MIN_MTU6
from netplane import links, sysctl
from netplane.errors import NetworkError
from netplane.model import Segment
from netplane.netlink import route
from netplane.netlink.wire import NetlinkSocket
from netplane.records import ClusterRecords, Touched, bare
from netplane.underlay import Underlay

log = logging.getLogger("shoal.netplane")

BRIDGE_PREFIX = "sho"
VXLAN_PREFIX = "shx"
_ENOENT, _ENODEV = 2, 19


@dataclass(frozen=True)
class Tunnel:
    """Where this node's VXLAN frames come from: its id, data-path address and UDP port."""

    node_id: str
    address: str
    port: int
    mtu: int  # of the link that carries them
    overhead: int = links.VXLAN_OVERHEAD

    def within_wireguard(self) -> "Tunnel":
        """The same, for encrypted networks."""
        address, mtu = encryption.tunnel_address(self.node_id), self.mtu - encryption.OVERHEAD
        return Tunnel(self.node_id, address, self.port, mtu, encryption.VXLAN_OVERHEAD)


@dataclass
class _Overlay:
    segment: Segment
    record: NetworkRecord
    tunnel: Tunnel
    vxlan: int
    places: dict[str, str] = field(default_factory=dict)
    neighbours: set[str] = field(default_factory=set)  # on the bridge: addresses the host itself talks to


def device_names(network_id: str) -> tuple[str, str]:
    """Bridge and VXLAN device of a network."""
    digest = hashlib.blake2b(network_id.encode(), digest_size=5).hexdigest()
    return BRIDGE_PREFIX + digest, VXLAN_PREFIX + digest


def _is_own(link: str) -> bool:
    """Whether a link is an overlay's, by its name."""
    return link.startswith((BRIDGE_PREFIX, VXLAN_PREFIX)) and len(link) == 13


def _clash(one: NetworkRecord, other: NetworkRecord) -> bool:
    """Whether two networks can't be on one node at the same time."""
    return one.vni == other.vni or any(
        ipaddress.ip_network(a.subnet).overlaps(ipaddress.ip_network(b.subnet))
        for mine, others in ((one.subnets, other.subnets), (one.subnets6, other.subnets6))
        for a in mine
        for b in others
    )


def _subnets(record: NetworkRecord) -> tuple[tuple[ipaddress.IPv4Network, str], ...]:
    return tuple((ipaddress.IPv4Network(each.subnet), bare(each.gateway)) for each in record.subnets)


def _both(segment: Segment, address: str) -> tuple[str, ...]:
    """An address in the network, and the IPv6 address that goes with it."""
    return (address, bare(address6_for(str(segment.subnet6), address))) if segment.subnet6 else (address,)


def _neighbours(segment: Segment, link: int, address: str) -> list[bytes]:
    return [route.neighbour(link, each, mac_for(address)) for each in _both(segment, address)]


def _no_neighbours(segment: Segment, link: int, address: str) -> list[bytes]:
    return [route.delete_neighbour(link, each) for each in _both(segment, address)]


def _without_ipv6(record: NetworkRecord, mtu: int) -> str:
    """Why the network can't have IPv6 on this node, though it has it; empty when it can."""
    if not record.subnets6:
        return ""
    if not sysctl.has_ipv6():
        return f"network {record.name} has IPv6, which the kernel of this node lacks or has switched off"
    if mtu < MIN_MTU6:
        return f"network {record.name} has IPv6, which needs an MTU of {MIN_MTU6}: on this node it is {mtu}"
    return ""


class Overlays:
    """The overlay devices. Its methods touch the kernel: run them in a thread, one at a time."""

    def __init__(self, host: NetlinkSocket) -> None:
        self._host = host
        self._overlays: dict[str, _Overlay] = {}
        self._objections: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        """Networks that the kernel refused when that was last tried: id → its reason."""

    def segments(self) -> Iterable[Segment]:
        """The bridges."""
        return [overlay.segment for overlay in self._overlays.values()]

    def segment(self, network_id: str) -> Segment | None:
        """The bridge of a network, once there is one."""
        overlay = self._overlays.get(network_id)
        return overlay.segment if overlay else None

    def objection(self, network_id: str) -> str:
        """Why a network could not be made here when that was last tried; empty if it could."""
        return self._objections.get(network_id) or self.refused.get(network_id, "")

    def apply(self, tunnel: Tunnel, records: ClusterRecords, touched: Touched, in_use: Iterable[str]) -> None:
        """Bring the devices of the touched networks in line; a network in use stays until it is not.

        One that the kernel refuses keeps none of the others back: it is in `refused` then.
        """
        keep = set(in_use)
        whole = sorted(touched.whole)
        before = {each: self.refused.pop(each) for each in whole if each in self.refused}
        nodes = {tunnel.address, *(peer.address for peer in records.peers.values())}
        underlay = Underlay(nodes - {""}, _is_own)
        for network_id in whole:
            record = records.networks.get(network_id)
            if record is not None:
                ready = bool(record.subnets and record.vni and (record.key_epochs or not record.encrypted))
                if record.driver == "overlay" and ready:
                    with self._alone(record, before):
                        self._ensure(tunnel, record, records, underlay)
                else:  # another node-local driver's, or not allocated yet: then it comes again
                    log.debug("network %s needs no overlay here", record.name)
                continue
            self._objections.pop(network_id, None)
            if (network_id in self._overlays or network_id in before) and network_id not in keep:
                self._remove(network_id)
        moved: defaultdict[str, set[str] | None] = defaultdict(set, dict.fromkeys(whole))
        for network_id, address in touched.addresses:
            if (addresses := moved[network_id]) is not None:
                addresses.add(address)
        for network_id, addresses in moved.items():
            if network_id in self._overlays and network_id in records.networks:
                with self._alone(records.networks[network_id], before):
                    self._place(self._overlays[network_id], tunnel, records, addresses)

    @contextmanager
    def _alone(self, record: NetworkRecord, before: Mapping[str, str]) -> Iterator[None]:
        """What fails is this network's affair. `before`: why networks failed the last time, told already."""
        try:
            yield
        except (NetworkError, OSError) as error:
            reason = f"network {record.name} can't be made on this node: {error}"
            if reason not in (before.get(record.id), self.refused.get(record.id)):
                log.error("%s; it is tried again", reason)
            self.refused.setdefault(record.id, reason)

    def prune(self, records: ClusterRecords, in_use: Iterable[str]) -> None:
        """Remove devices of networks that are neither known nor in use, also those of an earlier run."""
        keep = set(records.networks) | set(in_use)
        for network_id in list(self._overlays):
            if network_id not in keep:
                self._remove(network_id)
        wanted = {name for network_id in keep for name in device_names(network_id)}
        stale = [name for name in links.list_links() if _is_own(name) and name not in wanted]
        if stale:
            links.delete_links(stale)

    def encrypted(self) -> set[int]:
        """The VXLAN identifiers of the encrypted networks that are here."""
        return {overlay.record.vni for overlay in self._overlays.values() if overlay.record.encrypted}

    def _ensure(
        self, tunnel: Tunnel, record: NetworkRecord, records: ClusterRecords, underlay: Underlay
    ) -> None:
        record = replace(record, key_epochs=())  # the tunnels' affair
        if record.encrypted:
            tunnel = tunnel.within_wireguard()
        subnet = ipaddress.IPv4Network(record.subnets[0].subnet)
        if record.ingress:
            address = records.node_address(record.id, tunnel.node_id)
        elif record.subnets[0].gateway:
            address = f"{bare(record.subnets[0].gateway)}/{subnet.prefixlen}"
        else:
            address = ""
        more = () if record.ingress else _subnets(record)[1:]
        present = self._overlays.get(record.id)
        if (
            present is not None
            and (present.record, present.tunnel) == (record, tunnel)
            and present.segment.gateway == bare(address)
        ):
            return
        for other in list(self._overlays.values()):
            if other.record.id not in records.networks and _clash(other.record, record):
                self._retire(other)
        bridge, vxlan = device_names(record.id)
        if present is None and (
            objection := underlay.objection(record, bridge, tunnel.mtu - tunnel.overhead)
        ):
            if objection != self._objections.get(record.id):
                log.warning(objection)
            self._objections[record.id] = objection
            return
        self._objections.pop(record.id, None)
        mtu = record.mtu or tunnel.mtu - tunnel.overhead
        without_ipv6 = _without_ipv6(record, mtu)
        if without_ipv6:
            log.warning(without_ipv6)
        subnet6, address6 = None, ""
        if record.subnets6 and not without_ipv6:
            subnet6 = ipaddress.IPv6Network(record.subnets6[0].subnet)
            if not record.ingress:
                address6 = f"{bare(record.subnets6[0].gateway)}/{subnet6.prefixlen}"
            elif address:
                address6 = address6_for(str(subnet6), address)
        mac = mac_for(address) if address else mac_for(str(subnet.network_address))
        others = [f"{gateway}/{other.prefixlen}" for other, gateway in more if gateway]
        index = links.ensure_bridge(bridge, mac=mac, mtu=mtu, address=address, address6=address6, more=others)
        vxlan_index = links.ensure_vxlan(
            vxlan,
            bridge=index,
            vni=record.vni,
            local=tunnel.address,
            port=tunnel.port,
            mtu=mtu,
            ipv6=subnet6 is not None,
        )
        segment = Segment(
            network_id=record.id,
            bridge=bridge,
            index=index,
            mtu=mtu,
            subnet=subnet,
            gateway=bare(address),
            internal=record.internal,
            ingress=record.ingress,
            more=more,
            subnet6=subnet6,
            gateway6=bare(address6),
            without_ipv6=without_ipv6,
        )
        if present is not None and present.vxlan == vxlan_index:
            overlay = _Overlay(segment, record, tunnel, vxlan_index, present.places, present.neighbours)
        else:
            overlay = _Overlay(segment, record, tunnel, vxlan_index, links.tunnel_entries(vxlan_index))
        self._overlays[record.id] = overlay

    def _place(
        self, overlay: _Overlay, tunnel: Tunnel, records: ClusterRecords, only: set[str] | None
    ) -> None:
        """Say where addresses are: all, or `only` some."""
        network_id, index = overlay.record.id, overlay.segment.index
        if only is None:
            wanted, before = records.places(network_id, tunnel.node_id), dict(overlay.places)
            reached = set(overlay.neighbours)
        else:
            found = {each: records.place(network_id, each, tunnel.node_id) for each in only}
            wanted = {address: node for address, node in found.items() if node}
            before = {address: overlay.places[address] for address in only if address in overlay.places}
            reached = overlay.neighbours & only
        messages: list[bytes] = []
        removals: list[bytes] = []
        for address, node in wanted.items():
            if before.get(address) != node:
                messages.append(route.tunnel_entry(overlay.vxlan, mac_for(address), node))
                messages += _neighbours(overlay.segment, overlay.vxlan, address)
        for address, node in before.items():
            if address not in wanted:
                removals.append(route.delete_tunnel_entry(overlay.vxlan, mac_for(address), node))
                removals += _no_neighbours(overlay.segment, overlay.vxlan, address)
        neighbours = set(wanted) if overlay.segment.ingress else set()
        for each in neighbours - reached:
            messages += _neighbours(overlay.segment, index, each)
        for each in reached - neighbours:
            # A task that is here now has its neighbour entry from its own sandbox.
            if not records.is_on(tunnel.node_id, network_id, each):
                removals += _no_neighbours(overlay.segment, index, each)
        if removals:
            self._host.execute(removals, "forgetting addresses", ignore=(_ENOENT, _ENODEV))
        if messages:
            self._host.execute(messages, f"placing addresses of network {overlay.record.name}")
        for address in before.keys() - wanted.keys():
            del overlay.places[address]
        overlay.places.update(wanted)
        overlay.neighbours.difference_update(reached - neighbours)
        overlay.neighbours.update(neighbours)

    @staticmethod
    def _retire(overlay: _Overlay) -> None:
        """Take tunnel and gateway from a removed network whose last sandboxes are just being stopped: the
        cluster has given its identifier or its addresses to another network."""
        bridge, vxlan = device_names(overlay.record.id)
        links.delete_links([vxlan])
        links.clear_addresses(bridge)

    def _remove(self, network_id: str) -> None:
        self._overlays.pop(network_id, None)
        bridge, vxlan = device_names(network_id)
        links.delete_links([vxlan, bridge])
        log.info("network %s removed from this node", network_id)
