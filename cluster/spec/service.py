"""Services: mode, updates, endpoint."""

import msgspec

from cluster.spec.base import Labels, Spec
from cluster.spec.task import NetworkAttachmentConfig, TaskSpec


class ReplicatedMode(Spec, frozen=True):
    """A fixed number of tasks; None means 1."""

    replicas: int | None = None


class GlobalMode(Spec, frozen=True):
    """One task on each eligible node."""


class ReplicatedJobMode(Spec, frozen=True):
    """Run to completion a number of times."""

    max_concurrent: int | None = None
    total_completions: int | None = None


class GlobalJobMode(Spec, frozen=True):
    """Run to completion once on each node."""


class ServiceMode(Spec, frozen=True):
    """Exactly one of these; none means replicated."""

    replicated: ReplicatedMode | None = None
    global_: GlobalMode | None = msgspec.field(default=None, name="Global")
    replicated_job: ReplicatedJobMode | None = None
    global_job: GlobalJobMode | None = None


class UpdateConfig(Spec, frozen=True):
    """How an update proceeds. Parallelism 0 is all at once; durations in nanoseconds."""

    parallelism: int = 0
    delay: int = 0
    failure_action: str = ""
    monitor: int | None = None
    max_failure_ratio: float = 0.0
    order: str = ""


class PortConfig(Spec, frozen=True):
    """A published port. `published_port` 0 asks for one from 30000-32767 (ingress mode)."""

    name: str = ""
    protocol: str = "tcp"
    target_port: int = 0
    published_port: int = 0
    publish_mode: str = "ingress"


class EndpointSpec(Spec, frozen=True):
    """How a service is reached: `vip` (default) or `dnsrr`."""

    mode: str = ""
    ports: list[PortConfig] | None = None


class ServiceSpec(Spec, frozen=True):
    """A service as the user wants it."""

    name: str = ""
    labels: Labels | None = None
    task_template: TaskSpec = TaskSpec()
    mode: ServiceMode = ServiceMode()
    update_config: UpdateConfig | None = None
    rollback_config: UpdateConfig | None = None
    networks: list[NetworkAttachmentConfig] | None = None
    endpoint_spec: EndpointSpec | None = None
