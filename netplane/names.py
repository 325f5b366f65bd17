"""Brings names and sandboxes together: each network's zone, kept until something in it changes."""

import dataclasses
import errno
import functools
import ipaddress
import logging
import socket
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from cluster.dataplane import EndpointRecord, PublishedPort
from netplane import netns
from netplane.dns import upstream
from netplane.dns.server import Sight
from netplane.dns.services import build_services
from netplane.dns.zone import Resident, Zone, by_service, containers_part, merge, prefix_of, service_part
from netplane.model import SandboxRecord, Segment, way_out, way_out6
from netplane.records import ClusterRecords, Touched, bare

log = logging.getLogger("shoal.netplane")


class Names:
    """The zones of every network that this node knows."""

    def __init__(
        self,
        records: ClusterRecords,
        sandboxes: Mapping[str, SandboxRecord],
        network_name: Callable[[str], str],
        withdrawn: Collection[str],
        bridges: Callable[[], Iterable[Segment]] = tuple,
    ) -> None:
        """`bridges`: those of this node's own networks."""
        self._records = records
        self._bridges = bridges
        self._warned: set[tuple[str, str]] = set()  # server, network
        self._sandboxes = sandboxes
        self._network_name = network_name
        self._withdrawn = withdrawn
        self._zones: dict[str, Zone] = {}
        self._parts: defaultdict[str, dict[str, Zone]] = defaultdict(
            dict
        )  # network id → service id → its part
        self.generation = 0
        """Rises whenever an answer may have become another one."""

    def forget(self, networks: Iterable[str], touched: Touched | None = None) -> None:
        """Networks changed: put their zones together anew when next asked for.

        Args: touched: what changed of the cluster's records; None: only sandboxes of this node did.
        """
        self.generation += 1
        for network_id in networks:
            self._zones.pop(network_id, None)
        if touched is None:
            return
        for network_id in touched.whole:
            self._parts.pop(network_id, None)
        # The ingress network's records hold the published ports of services in all networks.
        for service_id in {service_id for _, service_id in touched.services}:
            for network_id, parts in self._parts.items():
                if parts.pop(service_id, None) is not None:
                    self._zones.pop(network_id, None)

    def zone(self, network_id: str) -> Zone:
        """The zone of a network."""
        zone = self._zones.get(network_id)
        if zone is None:
            residents = [
                Resident(interface.address, _names_in(record, network_id), interface.address6)
                for record in self._sandboxes.values()
                for interface in record.interfaces
                if interface.network_id == network_id
            ]
            name, prefix6 = self._network_name(network_id), prefix_of(self._subnet6(network_id))
            tasks = by_service(self._records.endpoints(network_id))
            alone = containers_part(name, tasks.pop("", ()), residents, prefix6)
            parts = self._brought_up(network_id, name, prefix6, tasks)
            zone = self._zones[network_id] = merge((alone, *parts))
        return zone

    def _brought_up(
        self, network_id: str, name: str, prefix6: bytes, tasks: Mapping[str, list[EndpointRecord]]
    ) -> Collection[Zone]:
        """The parts of all services of a network; those that were forgotten are made anew."""
        services = {each.service_id: each for each in self._records.services(network_id)}
        parts = self._parts[network_id]
        missing = (services.keys() | tasks.keys()) - parts.keys()
        ports = self._ports(missing)
        for service_id in missing:
            service, endpoints = services.get(service_id), tasks.get(service_id, ())
            serving = self._records.serving(network_id, service_id, self._withdrawn)
            part = service_part(name, service, endpoints, serving, prefix6)
            if service is not None and service_id in ports:
                found = build_services(name, [service], endpoints, ports, self._takes)
                part = dataclasses.replace(part, services=found)
            parts[service_id] = part
        return parts.values()

    def _subnet6(self, network_id: str) -> str:
        record = self._records.networks.get(network_id)
        return record.subnets6[0].subnet if record is not None and record.subnets6 else ""

    def _ports(self, services: Collection[str]) -> dict[str, tuple[PublishedPort, ...]]:
        """The published ports of these services, as the ingress network's records have them."""
        return {
            service_id: found.ports
            for network in self._records.networks.values()
            if network.ingress
            for service_id in services
            if (found := self._records.service((network.id, service_id))) is not None and found.ports
        }

    def _takes(self, endpoint: EndpointRecord) -> bool:
        return endpoint.serving and endpoint.task_id not in self._withdrawn

    def sight(self, record: SandboxRecord) -> Sight:
        """What a sandbox's name server answers from. Names are not looked up in the ingress network."""
        return Sight(
            networks=served_networks(record),
            links=links_of(record),
            upstreams=servers_of(record),
            inside=any(_within(record, server) for server in record.upstreams),
            make_socket=functools.partial(self._socket_towards, record),
        )

    async def _socket_towards(
        self, record: SandboxRecord, server: str, family: int, kind: int
    ) -> socket.socket:
        """A socket in the host's namespace; in the sandbox's if only that reaches the server. Raises OSError
        for one in a network that the sandbox is not in: the host reaches all of them, its packets don't."""
        if not _within(record, server):
            if network_id := self._behind_a_wall(server):
                self._warn(record, server, network_id)
                raise OSError(errno.EHOSTUNREACH, "in a network that the container is not in")
            return await upstream.host_socket(server, family, kind)
        path = record.sandbox.netns
        if path is None:
            return await upstream.host_socket(server, family, kind)
        return await netns.inside(path, lambda: socket.socket(family, kind | socket.SOCK_NONBLOCK))

    def _behind_a_wall(self, server: str) -> str:
        """The network of this node whose other members alone reach a server, by id; "" if there is none.

        A network's gateway is the host itself, which every container may ask.
        """
        address = _address(server)
        if address is None or self._opened_to_all(address):
            return ""
        for network_id, subnet, gateway in self._subnets():
            if address in ipaddress.ip_network(subnet, strict=False):
                return network_id if not gateway or address != _address(gateway) else ""
        return ""

    def _subnets(self) -> Iterable[tuple[str, str, str]]:
        """(network id, subnet, the host's own address in it) of all networks of this node that have walls."""
        for segment in self._bridges():
            for subnet, gateway in segment.subnets:
                yield segment.network_id, str(subnet), gateway
            if segment.subnet6 is not None:
                yield segment.network_id, str(segment.subnet6), segment.gateway6
        for record in self._records.networks.values():
            if record.driver == "overlay":
                for each in (*record.subnets, *record.subnets6):
                    yield record.id, each.subnet, bare(each.gateway)

    def _opened_to_all(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        """Whether a container here publishes a name server at its own address, in the mode for that."""
        return any(
            (each.direct and address == _address(each.address))
            or (each.direct6 and address == _address(each.address6))
            for record in self._sandboxes.values()
            if any(port.target == upstream.PORT for port in record.sandbox.ports)
            for each in record.interfaces
        )

    def _warn(self, record: SandboxRecord, server: str, network_id: str) -> None:
        if (server, network_id) in self._warned:
            return
        self._warned.add((server, network_id))
        log.warning(
            "name server %s of container %s is not asked: it is in network %s, which the container is not in",
            server,
            record.sandbox.id[:12],
            self._network_name(network_id),
        )


def served_networks(record: SandboxRecord) -> tuple[str, ...]:
    """The networks that a sandbox's names come from."""
    return tuple(each.network_id for each in record.interfaces if not each.ingress)


def links_of(record: SandboxRecord) -> dict[bytes, bytes]:
    """The names that mean another container in this sandbox alone: alias → its name, both lower-case."""
    found: dict[bytes, bytes] = {}
    for attachment in record.spec.attachments:
        for link in attachment.links:
            name, _, alias = link.partition(":")
            name = name.lstrip("/")
            found[(alias or name).lower().encode()] = name.lower().encode()
    return found


def servers_of(record: SandboxRecord) -> tuple[str, ...]:
    """Whom a sandbox's name server asks: for one that has no way out, only servers in its own networks, or
    questions would carry out what its packets can't."""
    if way_out(record.interfaces) is not None or way_out6(record.interfaces) is not None:
        return record.upstreams
    return tuple(server for server in record.upstreams if _within(record, server))


def _within(record: SandboxRecord, server: str) -> bool:
    """Whether a server is in one of the sandbox's networks, and only from there to be reached."""
    address = _address(server)
    return address is not None and any(
        address in ipaddress.ip_network(cidr, strict=False)
        for each in record.interfaces
        for cidr in (each.cidr, each.cidr6, *each.neighbours)
        if cidr
    )


def _address(server: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None for whatever else the host's resolv.conf says: asking it will fail."""
    try:
        return ipaddress.ip_address(server.partition("%")[0])
    except ValueError:
        return None


def _names_in(record: SandboxRecord, network_id: str) -> tuple[str, ...]:
    spec = record.spec
    names: dict[str, None] = {}
    for attachment in spec.attachments:
        # A task's aliases are its service's, and come with the records.
        own_aliases = () if spec.service_id else attachment.aliases
        if attachment.network_id == network_id or len(spec.attachments) == 1:
            names.update(dict.fromkeys((*attachment.names, *own_aliases)))
    names.update(dict.fromkeys((spec.hostname, spec.id[:12])))
    names.pop("", None)
    return tuple(names)
