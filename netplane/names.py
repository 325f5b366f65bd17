"""Brings names and sandboxes together: each network's zone, kept until something in it changes."""

import dataclasses
import functools
import ipaddress
import socket
from collections.abc import Callable, Collection, Iterable, Mapping

from cluster.dataplane import EndpointRecord, PublishedPort
from netplane import netns
from netplane.dns import upstream
from netplane.dns.server import Sight
from netplane.dns.services import build_services
from netplane.dns.zone import Resident, Zone, build_zone
from netplane.model import SandboxRecord, way_out, way_out6
from netplane.records import ClusterRecords


class Names:
    """The zones of every network that this node knows."""

    def __init__(
        self,
        records: ClusterRecords,
        sandboxes: Mapping[str, SandboxRecord],
        network_name: Callable[[str], str],
        withdrawn: Collection[str],
    ) -> None:
        self._records = records
        self._sandboxes = sandboxes
        self._network_name = network_name
        self._withdrawn = withdrawn
        self._zones: dict[str, Zone] = {}
        self._ingress: set[str] = set()
        self.generation = 0
        """Rises whenever an answer may have become another one."""

    def forget(self, networks: Iterable[str]) -> None:
        """Networks changed: build their zones anew when next asked for."""
        self.generation += 1
        for network_id in networks:
            self._zones.pop(network_id, None)
            record = self._records.networks.get(network_id)
            if network_id in self._ingress or (record is not None and record.ingress):
                self._zones.clear()  # it has the published ports of services in all networks

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
            name = self._network_name(network_id)
            services, endpoints = self._records.services(network_id), self._records.endpoints(network_id)
            zone = build_zone(
                name,
                services,
                endpoints,
                residents,
                lambda service_id: self._records.serving(network_id, service_id, self._withdrawn),
                self._subnet6(network_id),
            )
            found = build_services(name, services, endpoints, self._ports(), self._takes)
            zone = self._zones[network_id] = dataclasses.replace(zone, services=found)
        return zone

    def _subnet6(self, network_id: str) -> str:
        record = self._records.networks.get(network_id)
        return record.subnets6[0].subnet if record is not None and record.subnets6 else ""

    def _ports(self) -> dict[str, tuple[PublishedPort, ...]]:
        """The published ports of every service that has any: the ingress network's records hold them."""
        self._ingress = {network.id for network in self._records.networks.values() if network.ingress}
        return {
            service.service_id: service.ports
            for network_id in self._ingress
            for service in self._records.services(network_id)
            if service.ports
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
            make_socket=functools.partial(_socket_towards, record),
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
    address = ipaddress.ip_address(server.partition("%")[0])
    return any(
        address in ipaddress.ip_network(cidr, strict=False)
        for each in record.interfaces
        for cidr in (each.cidr, each.cidr6, *each.neighbours)
        if cidr
    )


async def _socket_towards(record: SandboxRecord, server: str, family: int, kind: int) -> socket.socket:
    """A socket in the host's namespace; in the sandbox's if only that reaches the server."""
    path = record.sandbox.netns
    if path is None or not _within(record, server):
        return await upstream.host_socket(server, family, kind)
    return await netns.inside(path, lambda: socket.socket(family, kind | socket.SOCK_NONBLOCK))


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
