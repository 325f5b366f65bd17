"""One node's engine: its parts in one place, for the local API and the agent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.dataplane import NetworkRecord
from cluster.seams import SystemClock
from cluster.spec import GenericResource
from netplane.plane import NetPlane
from worker.container_logs import ContainerLogs
from worker.events import EngineEvents
from worker.images.store import ImageStore
from worker.node import Machine
from worker.runtime.oci import OCIRuntime
from worker.volumes.store import VolumeStore


@dataclass(frozen=True)
class Engine:
    """The parts; each is started and stopped by the daemon."""

    id: str
    data_root: Path
    machine: Machine
    images: ImageStore
    runtime: OCIRuntime
    network: NetPlane
    volumes: VolumeStore
    logs: ContainerLogs
    labels: dict[str, str]
    default_runtime: str
    debug: bool = False
    generic_resources: list[GenericResource] = field(default_factory=list)
    cluster_networks: Callable[[], Mapping[str, NetworkRecord]] = dict
    registry_config: dict[str, Any] = field(default_factory=dict)
    events: EngineEvents = field(default_factory=lambda: EngineEvents(SystemClock()))

    def log_path(self, container_id: str) -> Path:
        """Where the container's log is."""
        return self.runtime.log_path(container_id)

    def network_name(self, network_id: str) -> str:
        """A network's name, local or of the cluster; its id when neither knows it."""
        local = self.network.networks().get(network_id)
        if local is not None:
            return local.name
        record = self.cluster_networks().get(network_id)
        return record.name if record is not None else network_id

    def network_id(self, name: str) -> str:
        """The id of a network, by name or id; what was given when none is known by it."""
        for network in self.network.networks().values():
            if name in (network.id, network.name):
                return network.id
        for record in self.cluster_networks().values():
            if name in (record.id, record.name):
                return record.id
        return name
