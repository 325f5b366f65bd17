"""Where new connections are led: service addresses and published ports with their backends. Pure: no I/O.

It follows the records; each change costs its own size, not that of what is known.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from netplane.port_rules import PortKey, Published
from netplane.records import ClusterRecords, ServiceKey, Touched
from netplane.sandbox_rules import arrange

Vips = dict[str, tuple[str, ...]]
Ports = dict[PortKey, Published]


@dataclass
class Change:
    """What of it is new: service addresses by network, and ports, each before and after."""

    vips: dict[str, tuple[Vips, Vips]] = field(default_factory=dict)
    ports: tuple[Ports, Ports] = field(default_factory=lambda: ({}, {}))


@dataclass
class Lost:
    """Addresses that got new connections and get none any more."""

    addresses: set[str] = field(default_factory=set)
    published: set[str] = field(default_factory=set)
    """Those of them that published ports led to."""
    published_udp: set[str] = field(default_factory=set)


class Balanced:
    """See the module."""

    def __init__(self, records: ClusterRecords, withdrawn: Collection[str], fresh: Collection[str]) -> None:
        """Args: withdrawn, fresh: tasks that get no new connections; fresh ones do if there are no others."""
        self._records = records
        self._withdrawn = withdrawn
        self._fresh = fresh
        self._vips: dict[ServiceKey, Vips] = {}
        self._ports: dict[ServiceKey, Ports] = {}
        self._owners: dict[PortKey, ServiceKey] = {}
        self._uses: Counter[str] = Counter()
        self._lost = Lost()
        self.vips: dict[str, Vips] = {}
        """Service addresses by network, with their backends by slot."""
        self.ports: Ports = {}

    def update(self, touched: Touched) -> Change:
        """Follow the records."""
        services = set(touched.services)
        if touched.whole:
            services |= {
                key for known in (self._vips, self._ports) for key in known if key[0] in touched.whole
            }
            services |= {
                (network_id, service.service_id)
                for network_id in touched.whole
                for service in self._records.services(network_id)
            }
        return Change(self._update_vips(services), self._update_ports(services))

    def take_lost(self) -> Lost:
        """What was lost since this was last asked, and not found again."""
        lost, self._lost = self._lost, Lost()
        return Lost(
            *(
                {address for address in each if not self._uses[address]}
                for each in (lost.addresses, lost.published, lost.published_udp)
            )
        )

    def leads_to(self, address: str) -> bool:
        """True if the address gets new connections."""
        return self._uses[address] > 0

    def _update_vips(self, services: Iterable[ServiceKey]) -> dict[str, tuple[Vips, Vips]]:
        changes: dict[str, tuple[Vips, Vips]] = {}
        found: dict[ServiceKey, Vips] = {}
        for key in services:  # first all that go: an address may pass from one to another
            before = self._vips.pop(key, {})
            after = {
                vip: arrange(before.get(vip, ()), backends)
                for vip, backends in self._records.virtual(key, self._withdrawn, self._fresh).items()
            }
            if after:
                found[key] = after
            if before == after:
                continue
            was, _ = changes.setdefault(key[0], ({}, {}))
            for vip, backends in before.items():
                was[vip] = self.vips[key[0]].pop(vip)
                self._unused(backends)
        for key, after in found.items():
            self._vips[key] = after
            known = self.vips.setdefault(key[0], {})
            for vip, backends in after.items():
                if vip not in known:
                    changes.setdefault(key[0], ({}, {}))[1][vip] = known[vip] = backends
                    self._uses.update(backends)
        for network_id in changes:
            if not self.vips.get(network_id):
                self.vips.pop(network_id, None)
        return changes

    def _update_ports(self, services: Iterable[ServiceKey]) -> tuple[Ports, Ports]:
        before: Ports = {}
        found: dict[ServiceKey, Ports] = {}
        for key in services:
            ports = self._records.published(key, self._withdrawn, self._fresh)
            known = self._ports.pop(key, {})
            if ports:
                found[key] = ports
            for port in known:
                if self._owners.get(port) == key and known[port] != ports.get(port):
                    del self._owners[port]
                    before[port] = self.ports.pop(port)
                    self._unused(before[port].backends, before[port])
        after: Ports = {}
        for key, ports in found.items():
            self._ports[key] = ports
            for port, published in ports.items():
                if self._owners.get(port) == key:
                    continue
                if port in self._owners:  # who had it gives it up in a later batch
                    before[port] = self.ports[port]
                    self._unused(before[port].backends, before[port])
                self._owners[port] = key
                after[port] = self.ports[port] = published
                self._uses.update(published.backends)
        return before, after

    def _unused(self, addresses: Iterable[str], published: Published | None = None) -> None:
        for address in addresses:
            self._uses[address] -= 1
            if self._uses[address]:
                continue
            del self._uses[address]
            self._lost.addresses.add(address)
            if published is not None:
                self._lost.published.add(address)
                if published.protocol == "udp":
                    self._lost.published_udp.add(address)
