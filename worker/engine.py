"""One node's engine: its parts in one place, for the local API and the agent."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netplane.plane import NetPlane

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
    labels: dict[str, str]
    default_runtime: str
    debug: bool = False
    registry_config: dict[str, Any] = field(default_factory=dict)

    def log_path(self, container_id: str) -> Path:
        """Where the container's log is."""
        return self.runtime.log_path(container_id)
