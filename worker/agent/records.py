"""The network records that this node knows, to be saved, and applied again after a restart."""

from cluster.dataplane import (
    DataplaneChanges,
    EndpointRecord,
    NetworkRecord,
    PeerRecord,
    ServiceRecord,
)


class DataplaneRecords:
    """All records by key."""

    def __init__(self) -> None:
        self.networks: dict[str, NetworkRecord] = {}
        self.peers: dict[str, PeerRecord] = {}
        self.endpoints: dict[tuple[str, str], EndpointRecord] = {}
        self.services: dict[tuple[str, str], ServiceRecord] = {}

    def apply(self, changes: DataplaneChanges) -> None:
        """Take in a batch."""
        if changes.full:
            for table in (self.networks, self.peers, self.endpoints, self.services):
                table.clear()
        self.networks.update((record.id, record) for record in changes.networks)
        self.peers.update((record.node_id, record) for record in changes.peers)
        self.endpoints.update(((record.network_id, record.task_id), record) for record in changes.endpoints)
        self.services.update(((record.network_id, record.service_id), record) for record in changes.services)
        for network_id in changes.removed_networks:
            self.networks.pop(network_id, None)
        for node_id in changes.removed_peers:
            self.peers.pop(node_id, None)
        for endpoint in changes.removed_endpoints:
            self.endpoints.pop(endpoint, None)
        for service in changes.removed_services:
            self.services.pop(service, None)

    def full(self) -> DataplaneChanges:
        """Everything, as one batch."""
        return DataplaneChanges(
            full=True,
            networks=tuple(self.networks.values()),
            peers=tuple(self.peers.values()),
            endpoints=tuple(self.endpoints.values()),
            services=tuple(self.services.values()),
        )
