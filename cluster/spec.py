"""What users ask for: specs, in the Docker Engine API's own shape (reference 1.50).

Durations are integer nanoseconds, sizes bytes, CPUs billionths of a core, as on the wire. A field's default
is Go's zero value, so that an omitted field decodes as dockerd would read it; `cluster.defaults` fills in
what SwarmKit fills in. Unknown fields are ignored, as dockerd ignores them.
"""

import msgspec

from cluster.naming import engine_name
from cluster.states import Availability, Role


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=engine_name):
    """Base of everything spoken in Engine JSON."""


Labels = dict[str, str]


class DriverConfig(Spec, frozen=True):
    """A named driver with its options (logs, volumes)."""

    name: str = ""
    options: dict[str, str] | None = None


class BindOptions(Spec, frozen=True):
    """Options of a bind mount."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeOptions(Spec, frozen=True):
    """Options of a volume mount."""

    no_copy: bool = False
    labels: Labels | None = None
    driver_config: DriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(Spec, frozen=True):
    """Options of a tmpfs mount; size in bytes, mode as file permission bits."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class ImageOptions(Spec, frozen=True):
    """Options of an image mount."""

    subpath: str = ""


class Mount(Spec, frozen=True):
    """A mount into a container."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: ImageOptions | None = None


class HealthConfig(Spec, frozen=True):
    """A health check: `["CMD", …]`, `["CMD-SHELL", …]`, `["NONE"]`, or empty to inherit the image's."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


class DNSConfig(Spec, frozen=True):
    """Resolver settings of a container."""

    nameservers: list[str] | None = None
    search: list[str] | None = None
    options: list[str] | None = None


class FileTarget(Spec, frozen=True):
    """Where a secret or config appears in the container."""

    name: str = ""
    uid: str = "0"
    gid: str = "0"
    mode: int = 0


class SecretReference(Spec, frozen=True):
    """A secret that a container uses."""

    file: FileTarget | None = None
    secret_id: str = ""
    secret_name: str = ""


class ConfigReference(Spec, frozen=True):
    """A config that a container uses; `runtime` when it is not a file."""

    file: FileTarget | None = None
    runtime: dict[str, str] | None = None
    config_id: str = ""
    config_name: str = ""


class Ulimit(Spec, frozen=True):
    """One resource limit (setrlimit)."""

    name: str = ""
    soft: int = 0
    hard: int = 0


class CredentialSpec(Spec, frozen=True):
    """Windows credential spec; carried, not used."""

    config: str = ""
    file: str = ""
    registry: str = ""


class SELinuxContext(Spec, frozen=True):
    """SELinux labels of the container."""

    disable: bool = False
    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


class SeccompOptions(Spec, frozen=True):
    """Seccomp: `default`, `unconfined` or `custom` with a base64 profile."""

    mode: str = ""
    profile: str | None = None


class AppArmorOptions(Spec, frozen=True):
    """AppArmor: `default` or `disabled`."""

    mode: str = ""


class Privileges(Spec, frozen=True):
    """Security options of the container."""

    credential_spec: CredentialSpec | None = None
    selinux_context: SELinuxContext | None = msgspec.field(default=None, name="SELinuxContext")
    seccomp: SeccompOptions | None = None
    app_armor: AppArmorOptions | None = None
    no_new_privileges: bool = False


class ContainerSpec(Spec, frozen=True):
    """What runs in a task."""

    image: str = ""
    labels: Labels | None = None
    command: list[str] | None = None
    args: list[str] | None = None
    hostname: str = ""
    env: list[str] | None = None
    dir: str = ""
    user: str = ""
    groups: list[str] | None = None
    privileges: Privileges | None = None
    tty: bool = False
    open_stdin: bool = False
    read_only: bool = False
    mounts: list[Mount] | None = None
    stop_signal: str = ""
    stop_grace_period: int | None = None
    healthcheck: HealthConfig | None = None
    hosts: list[str] | None = None
    dns_config: DNSConfig | None = None
    secrets: list[SecretReference] | None = None
    configs: list[ConfigReference] | None = None
    oom_score_adj: int = 0
    isolation: str = ""
    init: bool | None = None
    sysctls: dict[str, str] | None = None
    capability_add: list[str] | None = None
    capability_drop: list[str] | None = None
    ulimits: list[Ulimit] | None = None


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


class NodeSpec(Spec, frozen=True):
    """What an operator wants of a node."""

    name: str = ""
    labels: Labels | None = None
    role: Role = Role.WORKER
    availability: Availability = Availability.ACTIVE


class IPAMConfig(Spec, frozen=True):
    """One subnet of a network, in CIDR; the rest by the allocator when empty."""

    subnet: str = ""
    ip_range: str = msgspec.field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = msgspec.field(default=None, name="AuxiliaryAddresses")


class IPAM(Spec, frozen=True):
    """Address management of a network."""

    driver: str = ""
    config: list[IPAMConfig] | None = None
    options: dict[str, str] | None = None


class NetworkReference(Spec, frozen=True):
    """The config-only network that another takes its settings from."""

    network: str = ""


class NetworkSpec(Spec, frozen=True):
    """A network as the user wants it (POST /networks/create)."""

    name: str = ""
    labels: Labels | None = None
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: NetworkReference | None = None
    ipam: IPAM | None = None
    enable_ipv4: bool | None = msgspec.field(default=None, name="EnableIPv4")
    enable_ipv6: bool = False
    options: dict[str, str] | None = None


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
    """Raft settings that the Engine API shows."""

    snapshot_interval: int = 10_000
    keep_old_snapshots: int | None = None
    log_entries_for_slow_followers: int = 500
    election_tick: int = 10
    heartbeat_tick: int = 1


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
