"""How a task runs and where: resources, restarts, placement."""

from cluster.spec.base import DriverConfig, Spec
from cluster.spec.container import ContainerSpec


class NamedResource(Spec, frozen=True):
    """A generic resource with a name, such as one GPU."""

    kind: str = ""
    value: str = ""


class DiscreteResource(Spec, frozen=True):
    """A generic resource that is counted."""

    kind: str = ""
    value: int = 0


class GenericResource(Spec, frozen=True):
    """Exactly one of the two."""

    named_resource_spec: NamedResource | None = None
    discrete_resource_spec: DiscreteResource | None = None


class Limits(Spec, frozen=True):
    """Upper bounds of a container."""

    nano_cpus: int = 0
    memory_bytes: int = 0
    pids: int = 0


class Resources(Spec, frozen=True):
    """Amounts set aside, or offered by a node."""

    nano_cpus: int = 0
    memory_bytes: int = 0
    generic_resources: list[GenericResource] | None = None


class ResourceRequirements(Spec, frozen=True):
    """Limits and reservations of a task."""

    limits: Limits | None = None
    reservations: Resources | None = None
    swap_bytes: int | None = None
    memory_swappiness: int | None = None


class RestartPolicy(Spec, frozen=True):
    """When and how often a task is replaced; `delay` and `window` in nanoseconds."""

    condition: str = ""
    delay: int | None = None
    max_attempts: int | None = None
    window: int | None = None


class SpreadOver(Spec, frozen=True):
    """Spread over the values of a label."""

    spread_descriptor: str = ""


class PlacementPreference(Spec, frozen=True):
    """A ranking preference."""

    spread: SpreadOver | None = None


class Platform(Spec, frozen=True):
    """CPU architecture and operating system; an empty part matches all."""

    architecture: str = ""
    os: str = ""


class Placement(Spec, frozen=True):
    """Where tasks may run."""

    constraints: list[str] | None = None
    preferences: list[PlacementPreference] | None = None
    max_replicas: int = 0
    platforms: list[Platform] | None = None


class NetworkAttachmentConfig(Spec, frozen=True):
    """A network that tasks join, by id or name."""

    target: str = ""
    aliases: list[str] | None = None
    driver_opts: dict[str, str] | None = None


class TaskSpec(Spec, frozen=True):
    """How a task runs. Engine name: TaskTemplate."""

    container_spec: ContainerSpec | None = None
    resources: ResourceRequirements | None = None
    restart_policy: RestartPolicy | None = None
    placement: Placement | None = None
    force_update: int = 0
    runtime: str = ""
    networks: list[NetworkAttachmentConfig] | None = None
    log_driver: DriverConfig | None = None
