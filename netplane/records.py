"""What this node knows of the cluster's networks, and what follows from it. Pure: no I/O."""

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator, MutableMapping, Sized
from dataclasses import dataclass, field
from typing import TypeVar

from cluster.dataplane import DataplaneChanges, EndpointRecord, NetworkRecord, PeerRecord, ServiceRecord
from cluster.encryption import tunnel_address
from cluster.publish_at import Policy
from netplane.port_rules import PortKey, Published

K = TypeVar("K")
V = TypeVar("V", bound=Sized)


def bare(address: str) -> str:
    """An address without its prefix length."""
    return address.partition("/")[0]


ServiceKey = tuple[str, str]  # network id, service id


@dataclass
class Touched:
    """What a batch may have changed, so that carrying it out costs its own size."""

    networks: set[str] = field(default_factory=set)
    """Every network in which there is something."""
    whole: set[str] = field(default_factory=set)
    """Those of them to be gone through as a whole: they, or the nodes in them, changed."""
    services: set[ServiceKey] = field(default_factory=set)
    addresses: set[tuple[str, str]] = field(default_factory=set)
    """(network id, address) that may be elsewhere now, or nowhere."""
    keys: bool = False
    """Whether some node's keys are others."""

    def add(self, other: "Touched") -> None:
        """Take in what another batch touched."""
        self.networks |= other.networks
        self.whole |= other.whole
        self.services |= other.services
        self.addresses |= other.addresses
        self.keys = self.keys or other.keys

    def add_whole(self, networks: Iterable[str]) -> None:
        """Networks to be gone through as a whole."""
        self.whole.update(networks)
        self.networks |= self.whole

    def add_services(self, services: Iterable[ServiceKey]) -> None:
        """Services whose backends may be others."""
        for key in services:
            self.services.add(key)
            self.networks.add(key[0])


class ClusterRecords:
    """The records by their keys, with the indexes that readers need."""

    def __init__(self) -> None:
        self.here = ""
        """The id of this node."""
        self.networks: dict[str, NetworkRecord] = {}
        self.peers: dict[str, PeerRecord] = {}
        self._endpoints: defaultdict[str, dict[str, EndpointRecord]] = defaultdict(dict)
        self._services: defaultdict[str, dict[str, ServiceRecord]] = defaultdict(dict)
        self._members: defaultdict[ServiceKey, set[str]] = defaultdict(set)
        # Which tasks have an address, the latest last: a new one may have it before the old one is gone.
        self._at: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)

    def apply(self, changes: DataplaneChanges) -> Touched:
        """Take a batch in."""
        touched = Touched()
        if changes.full:
            touched.add_whole([*self.networks, *self._endpoints, *self._services])
            self.networks.clear()
            self.peers.clear()
            self._endpoints.clear()
            self._services.clear()
            self._members.clear()
            self._at.clear()
        for network in changes.networks:
            self.networks[network.id] = network
            touched.add_whole((network.id,))
        for peer in changes.peers:
            before = self.peers.get(peer.node_id)
            self.peers[peer.node_id] = peer
            touched.keys = touched.keys or before is None or before.keys != peer.keys
            if before is None or before.address != peer.address:
                touched.add_whole(self.networks)
            else:
                touched.add_whole(
                    network_id
                    for network_id in before.addresses.keys() | peer.addresses.keys()
                    if before.addresses.get(network_id) != peer.addresses.get(network_id)
                )
            if before is not None and before.silent != peer.silent:
                touched.add_services(
                    (network_id, endpoint.service_id)
                    for network_id, endpoints in self._endpoints.items()
                    for endpoint in endpoints.values()
                    if endpoint.node_id == peer.node_id
                )
        for endpoint in changes.endpoints:
            self._drop_endpoint(endpoint.network_id, endpoint.task_id, touched)
            self._endpoints[endpoint.network_id][endpoint.task_id] = endpoint
            self._members[endpoint.network_id, endpoint.service_id].add(endpoint.task_id)
            place = (endpoint.network_id, bare(endpoint.address))
            self._at[place][endpoint.task_id] = None
            touched.addresses.add(place)
            touched.add_services([(endpoint.network_id, endpoint.service_id)])
        for service in changes.services:
            self._services[service.network_id][service.service_id] = service
            touched.add_services([(service.network_id, service.service_id)])
        for network_id, task_id in changes.removed_endpoints:
            self._drop_endpoint(network_id, task_id, touched)
        for network_id, service_id in changes.removed_services:
            self._services[network_id].pop(service_id, None)
            _drop_empty(self._services, network_id)
            touched.add_services([(network_id, service_id)])
        for network_id in changes.removed_networks:
            self.networks.pop(network_id, None)
            touched.add_whole((network_id,))
        for node_id in changes.removed_peers:
            if self.peers.pop(node_id, None) is not None:
                touched.add_whole(self.networks)
                touched.keys = True
        return touched

    def _drop_endpoint(self, network_id: str, task_id: str, touched: Touched) -> None:
        endpoint = self._endpoints[network_id].pop(task_id, None)
        _drop_empty(self._endpoints, network_id)
        if endpoint is None:
            return
        self._members[network_id, endpoint.service_id].discard(task_id)
        _drop_empty(self._members, (network_id, endpoint.service_id))
        place = (network_id, bare(endpoint.address))
        self._at[place].pop(task_id, None)
        _drop_empty(self._at, place)
        touched.addresses.add(place)
        touched.add_services([(network_id, endpoint.service_id)])

    def services(self, network_id: str) -> Iterable[ServiceRecord]:
        """The services in a network."""
        return self._services.get(network_id, {}).values()

    def service(self, key: ServiceKey) -> ServiceRecord | None:
        """A service, if its network is known too."""
        return self._services.get(key[0], {}).get(key[1]) if key[0] in self.networks else None

    def services_of(self, tasks: Iterable[str]) -> Iterator[ServiceKey]:
        """The services that these tasks are of, in every network."""
        for task_id in tasks:
            for network_id, endpoints in self._endpoints.items():
                if task_id in endpoints:
                    yield network_id, endpoints[task_id].service_id

    def knows(self, task_id: str) -> bool:
        """True if the task is in any network."""
        return any(task_id in endpoints for endpoints in self._endpoints.values())

    def endpoints(self, network_id: str) -> Iterable[EndpointRecord]:
        """The tasks in a network, serving or not."""
        return self._endpoints.get(network_id, {}).values()

    def beginning(self, changes: DataplaneChanges) -> set[str]:
        """The tasks that a batch, not yet applied, makes serve."""
        return {
            new.task_id
            for new in changes.endpoints
            if new.serving and not ((old := self._endpoints[new.network_id].get(new.task_id)) and old.serving)
        }

    def serving(
        self,
        network_id: str,
        service_id: str,
        withdrawn: Iterable[str] = (),
        fresh: Iterable[str] = (),
        policy: Policy = Policy.ANY,
    ) -> tuple[str, ...]:
        """Addresses of a service's tasks that take new connections, in the order of their addresses.

        Those of `fresh` tasks, and on nodes that are silent, only if there are no others. `policy` may prefer
        those of this node.
        """
        endpoints = self._endpoints.get(network_id, {})
        members = self._members.get((network_id, service_id), set()).difference(withdrawn)
        members = {task for task in members if endpoints[task].serving}
        members = {task for task in members if not self._is_silent(endpoints[task].node_id)} or members
        if policy is Policy.LOCAL:
            members = {task for task in members if endpoints[task].node_id == self.here}
        members = members.difference(fresh) or members
        if policy is Policy.LOCAL_FIRST:
            members = {task for task in members if endpoints[task].node_id == self.here} or members
        found = {bare(endpoints[task].address) for task in members}
        return tuple(sorted(found, key=_packed))

    def _is_silent(self, node_id: str) -> bool:
        peer = self.peers.get(node_id)
        return peer is not None and peer.silent

    def virtual(
        self, key: ServiceKey, withdrawn: Iterable[str] = (), fresh: Iterable[str] = ()
    ) -> dict[str, tuple[str, ...]]:
        """A service's virtual address with its backends; none if it has no such address."""
        service = self.service(key)
        if service is None or not service.vip:
            return {}
        return {bare(service.vip): self.serving(*key, withdrawn, fresh)}

    def published(
        self, key: ServiceKey, withdrawn: Iterable[str] = (), fresh: Iterable[str] = ()
    ) -> dict[PortKey, Published]:
        """The ports that a service publishes on every node, with their backends."""
        network, service = self.networks.get(key[0]), self.service(key)
        if network is None or not network.ingress or service is None or not service.ports:
            return {}
        backends = {
            policy: self.serving(*key, withdrawn, fresh, policy)
            for policy in {port.policy for port in service.ports}
        }
        subnet6 = network.subnets6[0].subnet if network.subnets6 else ""
        return {
            (port.protocol, port.published): Published(
                port.protocol,
                port.published,
                port.target,
                backends[port.policy],
                port.at,
                subnet6,
                port.proxy,
            )
            for port in service.ports
        }

    def node_address(self, network_id: str, node_id: str) -> str:
        """A node's own address in a network ("a.b.c.d/prefix"), or ""."""
        peer = self.peers.get(node_id)
        return peer.addresses.get(network_id, "") if peer else ""

    def places(self, network_id: str, node_id: str) -> dict[str, str]:
        """Where the addresses of a network are that are not on `node_id`: address → its node's tunnel end."""
        found: dict[str, str] = {}
        if network_id not in self.networks:
            return found
        for peer in self.peers.values():
            own = peer.addresses.get(network_id)
            if own and peer.node_id != node_id:
                found[bare(own)] = self._end(network_id, peer)
        for endpoint in self.endpoints(network_id):
            host = self.peers.get(endpoint.node_id)
            if endpoint.node_id != node_id and host is not None and host.address:
                found[bare(endpoint.address)] = self._end(network_id, host)
        return found

    def place(self, network_id: str, address: str, node_id: str) -> str:
        """Where a task's address is, as `places` says it; "" if it is here or nowhere."""
        tasks = self._at.get((network_id, address), {})
        if network_id not in self.networks:
            return ""
        for task_id in reversed(tasks):
            endpoint = self._endpoints[network_id][task_id]
            host = self.peers.get(endpoint.node_id)
            if endpoint.node_id != node_id and host is not None and host.address:
                return self._end(network_id, host)
        return ""

    def _end(self, network_id: str, peer: PeerRecord) -> str:
        """Where a node's frames of a network go: its data-path address, or its end of encrypted tunnels."""
        return tunnel_address(peer.node_id) if self.networks[network_id].encrypted else peer.address

    def is_on(self, node_id: str, network_id: str, address: str) -> bool:
        """True if the address is that of a task on a node."""
        endpoints = self._endpoints.get(network_id, {})
        return any(endpoints[task].node_id == node_id for task in self._at.get((network_id, address), ()))


def _drop_empty(index: MutableMapping[K, V], key: K) -> None:
    if not index[key]:
        del index[key]


def _packed(address: str) -> bytes:
    return ipaddress.IPv4Address(address).packed
