"""Nodes, secrets, configs, and the cluster itself."""

import msgspec

from cluster.spec.base import DriverConfig, Labels, Spec
from cluster.states import Availability, Role


class NodeSpec(Spec, frozen=True):
    """What an operator wants of a node."""

    name: str = ""
    labels: Labels | None = None
    role: Role = Role.WORKER
    availability: Availability = Availability.ACTIVE


class SecretSpec(Spec, frozen=True):
    """A secret; `data` is base64 (at most 500 KiB decoded)."""

    name: str = ""
    labels: Labels | None = None
    data: str = ""
    templating: DriverConfig | None = None
    driver: DriverConfig | None = None


class ConfigSpec(Spec, frozen=True):
    """A config; `data` is base64 (at most 1000 KiB decoded)."""

    name: str = ""
    labels: Labels | None = None
    data: str = ""
    templating: DriverConfig | None = None


class OrchestrationConfig(Spec, frozen=True):
    """How many ended tasks a slot keeps as history."""

    task_history_retention_limit: int | None = None


class RaftConfig(Spec, frozen=True):
    """Raft settings that the Engine API shows; 0 for the default (`cluster.defaults.raft_config`)."""

    snapshot_interval: int = 0
    keep_old_snapshots: int | None = None
    log_entries_for_slow_followers: int = 0
    election_tick: int = 0
    heartbeat_tick: int = 0


class DispatcherConfig(Spec, frozen=True):
    """Agents' heartbeat period in nanoseconds; 0 lets the managers choose."""

    heartbeat_period: int = 0


class ExternalCA(Spec, frozen=True):
    """A certificate authority outside the cluster."""

    protocol: str = ""
    url: str = ""
    options: dict[str, str] | None = None
    ca_cert: str = msgspec.field(default="", name="CACert")


class CAConfig(Spec, frozen=True):
    """Lifetime of node certificates in nanoseconds, and the CA's own material."""

    node_cert_expiry: int = 0
    external_cas: list[ExternalCA] | None = None
    signing_ca_cert: str = ""
    signing_ca_key: str = ""
    force_rotate: int = 0


class EncryptionConfig(Spec, frozen=True):
    """Autolock."""

    auto_lock_managers: bool = False


class TaskDefaults(Spec, frozen=True):
    """Defaults for tasks."""

    log_driver: DriverConfig | None = None


class ClusterSpec(Spec, frozen=True):
    """Cluster settings. Engine name: SwarmSpec."""

    name: str = "default"
    labels: Labels | None = None
    orchestration: OrchestrationConfig | None = None
    raft: RaftConfig | None = None
    dispatcher: DispatcherConfig | None = None
    ca_config: CAConfig | None = None
    encryption_config: EncryptionConfig | None = None
    task_defaults: TaskDefaults | None = None
