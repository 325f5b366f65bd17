"""The names of one network. Pure.

A zone is put together from parts, one for each service and one for all containers of none: a service's change
costs its own part, and the putting together.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from cluster.dataplane import EndpointRecord, ServiceRecord
from netplane.records import bare

Targets = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Zone:
    """Names (lower-case) with their packed addresses, and addresses with their names.

    `services`: names of service records with their ports and hosts (netplane.dns.services).
    """

    names: dict[bytes, tuple[bytes, ...]]
    pointers: dict[str, str]
    names6: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    services: dict[bytes, Targets] = field(default_factory=dict)


EMPTY = Zone({}, {})


@dataclass(frozen=True)
class Resident:
    """A sandbox of this node in the network: what it is called there."""

    address: str
    names: tuple[str, ...]
    address6: str = ""


class _Names:
    """Names while they are gathered, each with the addresses that it means."""

    def __init__(self) -> None:
        self._found: dict[str, list[bytes]] = {}

    def add(self, name: str, addresses: Iterable[bytes]) -> None:
        """A name means these addresses, too."""
        if name:
            listed = self._found.setdefault(name.lower(), [])
            listed.extend(address for address in addresses if address not in listed)

    def full(self, network: str) -> dict[bytes, tuple[bytes, ...]]:
        """All names, each also with `.network` appended."""
        suffix = b"." + network.lower().encode()
        plain = {name.encode(): tuple(listed) for name, listed in self._found.items()}
        return {**plain, **{name + suffix: listed for name, listed in plain.items()}}


def service_part(
    network: str,
    service: ServiceRecord | None,
    endpoints: Iterable[EndpointRecord],
    serving: Iterable[str],
    prefix6: bytes = b"",
) -> Zone:
    """A service's part of the zone of a network called `network`; None: it is gone, and its tasks stop.

    Args: endpoints: its tasks; serving: the addresses of those that serve; prefix6: see `prefix_of`.

    The service, its aliases and its tasks' aliases → its virtual address, or all serving tasks in dnsrr mode;
    `tasks.NAME` → all serving tasks; a serving task's name → its address.
    """
    names = _Names()
    pointers: dict[str, str] = {}
    tasks = tuple(socket.inet_aton(address) for address in serving)
    aliases: set[str] = set()
    for endpoint in endpoints:
        address = bare(endpoint.address)
        packed = socket.inet_aton(address)
        names.add(endpoint.task_name, (packed,) if packed in tasks else ())
        pointers[address] = f"{endpoint.task_name}.{network}"
        aliases.update(endpoint.aliases)
    if service is not None:
        vip = bare(service.vip)
        target = (socket.inet_aton(vip),) if vip else tasks
        for name in {service.name, *service.aliases, *aliases}:
            names.add(name, target)
        for name in {service.name, *service.aliases}:
            names.add(f"tasks.{name}", tasks)
        if vip:
            pointers[vip] = f"{service.name}.{network}"
    return _with_ipv6(names.full(network), pointers, prefix6)


def containers_part(
    network: str,
    endpoints: Iterable[EndpointRecord],
    residents: Iterable[Resident],
    prefix6: bytes = b"",
) -> Zone:
    """The part of the containers of no service, on any node, and of all sandboxes of this node."""
    names, names6 = _Names(), _Names()
    pointers: dict[str, str] = {}
    for endpoint in endpoints:
        address = bare(endpoint.address)
        for name in (endpoint.task_name, *endpoint.aliases):
            names.add(name, (socket.inet_aton(address),))
        pointers[address] = f"{endpoint.task_name}.{network}"
    pointers6: dict[str, str] = {}
    for resident in residents:
        own6 = "" if prefix6 else resident.address6
        for name in resident.names:
            names.add(name, (socket.inet_aton(resident.address),) if resident.address else ())
            if own6:
                names6.add(name, (socket.inet_pton(socket.AF_INET6, own6),))
        if resident.names:
            called = f"{resident.names[0]}.{network}"
            if resident.address:
                pointers.setdefault(resident.address, called)
            if own6:
                pointers6[own6] = called
    part = _with_ipv6(names.full(network), pointers, prefix6)
    part.names6.update(names6.full(network))
    part.pointers.update(pointers6)
    return part


def prefix_of(subnet6: str) -> bytes:
    """What stands before the IPv4 address in an IPv6 address of a cluster network; b"" without a subnet."""
    return ipaddress.IPv6Network(subnet6).network_address.packed[:12] if subnet6 else b""


def _with_ipv6(names: dict[bytes, tuple[bytes, ...]], pointers: dict[str, str], prefix6: bytes) -> Zone:
    """With `prefix6` every name and address has the IPv6 one that goes with it, too."""
    if not prefix6:
        return Zone(names, pointers)
    names6 = {name: tuple(prefix6 + each for each in listed) for name, listed in names.items()}
    for address, name in list(pointers.items()):
        pointers[socket.inet_ntop(socket.AF_INET6, prefix6 + socket.inet_aton(address))] = name
    return Zone(names, pointers, names6)


def merge(parts: Iterable[Zone]) -> Zone:
    """One zone of all parts. A name that several have means all their addresses; of an address's names the
    last one holds."""
    zone = Zone({}, {})
    for part in parts:
        _join(zone.names, part.names)
        _join(zone.names6, part.names6)
        zone.pointers.update(part.pointers)
        zone.services.update(part.services)
    return zone


def _join(whole: dict[bytes, tuple[bytes, ...]], part: Mapping[bytes, tuple[bytes, ...]]) -> None:
    if whole.keys().isdisjoint(part):
        whole.update(part)
        return
    for name, listed in part.items():
        before = whole.get(name, ())
        whole[name] = (*before, *(address for address in listed if address not in before))


def build_zone(
    network: str,
    services: Iterable[ServiceRecord],
    endpoints: Iterable[EndpointRecord],
    residents: Iterable[Resident],
    serving: Callable[[str], tuple[str, ...]],
    subnet6: str = "",
) -> Zone:
    """The whole zone of a network called `network`. `serving` gives the addresses of a service's tasks that
    serve."""
    prefix6 = prefix_of(subnet6)
    known = {service.service_id: service for service in services}
    tasks = by_service(endpoints)
    parts = [containers_part(network, tasks.pop("", ()), residents, prefix6)]
    for service_id in known.keys() | tasks.keys():
        parts.append(
            service_part(
                network, known.get(service_id), tasks.get(service_id, ()), serving(service_id), prefix6
            )
        )
    return merge(parts)


def by_service(endpoints: Iterable[EndpointRecord]) -> dict[str, list[EndpointRecord]]:
    """Endpoints by service; those of none under ""."""
    found: dict[str, list[EndpointRecord]] = {}
    for endpoint in endpoints:
        found.setdefault(endpoint.service_id, []).append(endpoint)
    return found
