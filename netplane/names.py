"""Brings names and sandboxes together: each network's zone, kept until something in it changes."""

import functools
import ipaddress
import socket
from collections.abc import Callable, Collection, Iterable, Mapping

from netplane import netns
from netplane.builder import Handles
from netplane.dns import upstream
from netplane.dns.server import View
from netplane.dns.zone import Resident, Zone, build_zone
from netplane.model import SandboxRecord
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

    def forget(self, networks: Iterable[str]) -> None:
        """Networks changed: build their zones anew when next asked for."""
        for network_id in networks:
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
            zone = self._zones[network_id] = build_zone(
                self._network_name(network_id),
                self._records.services(network_id),
                self._records.endpoints(network_id),
                residents,
                lambda service_id: self._records.serving(network_id, service_id, self._withdrawn),
            )
        return zone

    def view(self, record: SandboxRecord, handles: Handles) -> View:
        """What a sandbox's name server answers from. Names are not looked up in the ingress network."""
        if handles.dns_udp is None or handles.dns_tcp is None:
            raise ValueError(f"sandbox {record.sandbox.id} has no name server")
        return View(
            udp=handles.dns_udp,
            tcp=handles.dns_tcp,
            networks=served_networks(record),
            links=links_of(record),
            upstreams=record.upstreams,
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


async def _socket_towards(record: SandboxRecord, server: str, family: int, kind: int) -> socket.socket:
    """A socket in the host's namespace; in the sandbox's if only that reaches the server."""
    path = record.sandbox.netns
    address = ipaddress.ip_address(server)
    within = any(address in ipaddress.ip_network(each.cidr, strict=False) for each in record.interfaces)
    if path is None or not within:
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
