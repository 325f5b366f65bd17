"""The names of one network. Pure."""

import functools
import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cluster.dataplane import EndpointRecord, ServiceRecord
from netplane.records import bare


@dataclass(frozen=True)
class Zone:
    """Names (lower-case) with their packed addresses, and addresses with their names.

    `services`: names of service records with their ports and hosts (netplane.dns.services).
    """

    names: dict[bytes, tuple[bytes, ...]]
    pointers: dict[str, str]
    names6: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    services: dict[bytes, tuple[tuple[int, str], ...]] = field(default_factory=dict)


EMPTY = Zone({}, {})


@dataclass(frozen=True)
class Resident:
    """A sandbox of this node in the network: what it is called there."""

    address: str
    names: tuple[str, ...]
    address6: str = ""


def build_zone(
    network: str,
    services: Iterable[ServiceRecord],
    endpoints: Iterable[EndpointRecord],
    residents: Iterable[Resident],
    serving: Callable[[str], tuple[str, ...]],
    subnet6: str = "",
) -> Zone:
    """The zone of a network called `network`. `serving` gives the addresses of a service's serving tasks.
    With `subnet6` every name and address has the IPv6 one that goes with it, too.

    A service, its aliases and its tasks' aliases → its virtual address, or all serving tasks in dnsrr mode;
    `tasks.NAME` → all serving tasks; a serving task's name → its address. Each also with `.network` appended.
    """
    serving = functools.cache(serving)
    found: dict[str, list[str]] = {}
    pointers: dict[str, str] = {}

    def add(name: str, addresses: Iterable[str]) -> None:
        if name:
            listed = found.setdefault(name.lower(), [])
            listed.extend(address for address in addresses if address not in listed)

    aliases: dict[str, set[str]] = {}
    for endpoint in endpoints:
        address = bare(endpoint.address)
        takes = not endpoint.service_id or address in serving(endpoint.service_id)
        add(endpoint.task_name, (address,) if takes else ())
        pointers[address] = f"{endpoint.task_name}.{network}"
        if endpoint.aliases and not endpoint.service_id:  # a container's own
            for alias in endpoint.aliases:
                add(alias, (address,))
        elif endpoint.aliases:
            aliases.setdefault(endpoint.service_id, set()).update(endpoint.aliases)
    for service in services:
        tasks = serving(service.service_id)
        target = (bare(service.vip),) if service.vip else tasks
        for name in {service.name, *service.aliases, *aliases.get(service.service_id, ())}:
            add(name, target)
        for name in {service.name, *service.aliases}:
            add(f"tasks.{name}", tasks)
        if service.vip:
            pointers[bare(service.vip)] = f"{service.name}.{network}"
    prefix6 = ipaddress.IPv6Network(subnet6).network_address.packed[:12] if subnet6 else b""
    found6: dict[str, list[bytes]] = {}
    for resident in residents:
        for name in resident.names:
            add(name, (resident.address,) if resident.address else ())
            if resident.address6 and not prefix6:
                packed6 = socket.inet_pton(socket.AF_INET6, resident.address6)
                found6.setdefault(name.lower(), []).append(packed6)
        if resident.names:
            own = (resident.address, "" if prefix6 else resident.address6)
            for address in filter(None, own):
                pointers.setdefault(address, f"{resident.names[0]}.{network}")
    names: dict[bytes, tuple[bytes, ...]] = {}
    for name, listed in found.items():
        packed = tuple(socket.inet_aton(address) for address in listed)
        names.setdefault(name.encode(), packed)
        names[f"{name}.{network.lower()}".encode()] = packed
        if prefix6:
            found6[name] = [prefix6 + each for each in packed]
    names6 = {
        full.encode(): tuple(listed)
        for name, listed in found6.items()
        for full in (name, f"{name}.{network.lower()}")
    }
    if prefix6:
        for address, name in list(pointers.items()):
            pointers[socket.inet_ntop(socket.AF_INET6, prefix6 + socket.inet_aton(address))] = name
    return Zone(names, pointers, names6)
