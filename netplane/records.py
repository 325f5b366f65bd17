"""What this node knows of the cluster's networks, and what follows from it. Pure: no I/O."""

import ipaddress
from collections import defaultdict
from collections.abc import Iterable

from cluster.dataplane import DataplaneChanges, EndpointRecord, NetworkRecord, PeerRecord, ServiceRecord
from netplane.host_rules import PortKey, Published


def bare(address: str) -> str:
    """An address without its prefix length."""
    return address.partition("/")[0]


class ClusterRecords:
    """The records by their keys, with the indexes that readers need."""

    def __init__(self) -> None:
        self.networks: dict[str, NetworkRecord] = {}
        self.peers: dict[str, PeerRecord] = {}
        self._endpoints: defaultdict[str, dict[str, EndpointRecord]] = defaultdict(dict)
        self._services: defaultdict[str, dict[str, ServiceRecord]] = defaultdict(dict)
        self._members: defaultdict[tuple[str, str], set[str]] = defaultdict(set)

    def apply(self, changes: DataplaneChanges) -> set[str]:
        """Take a batch in; returns the ids of the networks that it touches (that were or are)."""
        touched: set[str] = set()
        if changes.full:
            touched.update(self.networks, self._endpoints, self._services)
            self.networks.clear()
            self.peers.clear()
            self._endpoints.clear()
            self._services.clear()
            self._members.clear()
        for network in changes.networks:
            self.networks[network.id] = network
            touched.add(network.id)
        for peer in changes.peers:
            before = self.peers.get(peer.node_id)
            self.peers[peer.node_id] = peer
            if before is None or before.address != peer.address:
                touched.update(self.networks)
            else:
                touched.update(
                    network_id
                    for network_id in before.addresses.keys() | peer.addresses.keys()
                    if before.addresses.get(network_id) != peer.addresses.get(network_id)
                )
        for endpoint in changes.endpoints:
            self._drop_endpoint(endpoint.network_id, endpoint.task_id)
            self._endpoints[endpoint.network_id][endpoint.task_id] = endpoint
            self._members[endpoint.network_id, endpoint.service_id].add(endpoint.task_id)
            touched.add(endpoint.network_id)
        for service in changes.services:
            self._services[service.network_id][service.service_id] = service
            touched.add(service.network_id)
        for network_id, task_id in changes.removed_endpoints:
            self._drop_endpoint(network_id, task_id)
            touched.add(network_id)
        for network_id, service_id in changes.removed_services:
            self._services[network_id].pop(service_id, None)
            touched.add(network_id)
        for network_id in changes.removed_networks:
            self.networks.pop(network_id, None)
            touched.add(network_id)
        for node_id in changes.removed_peers:
            if self.peers.pop(node_id, None) is not None:
                touched.update(self.networks)
        return touched

    def _drop_endpoint(self, network_id: str, task_id: str) -> None:
        endpoint = self._endpoints[network_id].pop(task_id, None)
        if endpoint is not None:
            self._members[network_id, endpoint.service_id].discard(task_id)

    def services(self, network_id: str) -> Iterable[ServiceRecord]:
        """The services in a network."""
        return self._services.get(network_id, {}).values()

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
        self, network_id: str, service_id: str, withdrawn: Iterable[str] = (), fresh: Iterable[str] = ()
    ) -> tuple[str, ...]:
        """Addresses of a service's tasks that take new connections, in the order of their addresses.

        Those of `fresh` tasks only if there are no others.
        """
        endpoints = self._endpoints.get(network_id, {})
        members = self._members.get((network_id, service_id), set()).difference(withdrawn)
        members = {task for task in members if endpoints[task].serving}
        found = {bare(endpoints[task].address) for task in members.difference(fresh) or members}
        return tuple(sorted(found, key=_packed))

    def vips(
        self, network_id: str, withdrawn: Iterable[str] = (), fresh: Iterable[str] = ()
    ) -> dict[str, tuple[str, ...]]:
        """Every virtual address in a network with its backends."""
        if network_id not in self.networks:
            return {}
        return {
            bare(service.vip): self.serving(network_id, service.service_id, withdrawn, fresh)
            for service in self.services(network_id)
            if service.vip
        }

    def published(self, withdrawn: Iterable[str] = (), fresh: Iterable[str] = ()) -> dict[PortKey, Published]:
        """Every port that is published on every node, with its backends."""
        found: dict[PortKey, Published] = {}
        for network in self.networks.values():
            if not network.ingress:
                continue
            for service in self.services(network.id):
                if not service.ports:
                    continue
                backends = self.serving(network.id, service.service_id, withdrawn, fresh)
                for port in service.ports:
                    found[port.protocol, port.published] = Published(
                        port.protocol, port.published, port.target, backends, port.at
                    )
        return found

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
                found[bare(own)] = peer.address
        for endpoint in self.endpoints(network_id):
            host = self.peers.get(endpoint.node_id)
            if endpoint.node_id != node_id and host is not None and host.address:
                found[bare(endpoint.address)] = host.address
        return found


def _packed(address: str) -> bytes:
    return ipaddress.IPv4Address(address).packed
