"""The cluster's objects: identity, version, timestamps, spec (what the user wants), status (what is).

Frozen: a change is a new object (`msgspec.structs.replace`). Timestamps are nanoseconds since the epoch.
`version` is the Raft index of the object's last write; a write names the version it read.
"""

import ipaddress
from typing import ClassVar

import msgspec

from cluster.encryption import is_encrypted
from cluster.spec import (
    ClusterSpec,
    ConfigSpec,
    DriverConfig,
    EndpointSpec,
    GenericResource,
    NetworkSpec,
    NodeSpec,
    Platform,
    PortConfig,
    Resources,
    SecretSpec,
    ServiceSpec,
    TaskSpec,
)
from cluster.spec.base import UNKNOWN_FIELDS
from cluster.states import NodeState, Role, TaskState, UpdateState


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, repr_omit_defaults=True):
    """Base of stored and sent data that has no Engine name of its own.

    `unknown_fields` is the msgpack of the fields that a newer Shoal has stored in this struct.
    """

    unknown_fields: bytes = msgspec.field(default=b"", name=UNKNOWN_FIELDS)


class StoreObject(Record, frozen=True):
    """What every stored object carries. Versions are Raft indexes; times are of the clocks of the managers
    that wrote, so the order of two objects is that of their `created_version`."""

    kind: ClassVar[str]
    id: str
    version: int = 0
    created_version: int = 0
    created_at: int = 0
    updated_at: int = 0


# --- node ---------------------------------------------------------------------------------------------


class EngineDescription(Record, frozen=True):
    """The node daemon: its version and labels (`engine.labels.*` in constraints)."""

    version: str = ""
    labels: dict[str, str] = {}
    plugins: tuple[tuple[str, str], ...] = ()  # (type, name), for example ("Network", "overlay")


class NodeEncryption(Record, frozen=True):
    """How a node can encrypt the traffic of networks, and how far it is with it.

    `keys`: its public WireGuard key of each epoch that it receives on. `behind`: the nodes to which it still
    sends with an older epoch than its newest.
    """

    method: str = ""  # kernel, userspace; empty: it can't (also: an older version)
    trouble: str = ""  # why it can't, or does not at present
    keys: dict[int, str] = {}
    behind: tuple[str, ...] = ()

    @property
    def works(self) -> bool:
        """Whether encrypted networks can be on the node."""
        return bool(self.method) and not self.trouble


class NodeDescription(Record, frozen=True):
    """What a node says of itself."""

    hostname: str = ""
    platform: Platform = Platform()
    resources: Resources = Resources()
    engine: EngineDescription = EngineDescription()
    csi: tuple[str, ...] = ()
    encryption: NodeEncryption = NodeEncryption()


class NodeStatus(Record, frozen=True):
    """What the managers believe of a node. `address` is the one it is reached at."""

    state: NodeState = NodeState.UNKNOWN
    message: str = ""
    address: str = ""


class ManagerStatus(Record, frozen=True):
    """A manager's Raft address. Leadership and reachability are read from Raft, not stored."""

    address: str = ""  # "ip:port"


class NodeTLSInfo(Record, frozen=True):
    """Whose certificate the node holds, in DER, and what it trusts: PEM, the root in force first."""

    trust_root: str = ""
    issuer_subject: bytes = b""
    issuer_public_key: bytes = b""


class ContainerAttachment(Record, frozen=True):
    """The place of a container that belongs to no service in an attachable network, on the node that runs it.

    `address` ("a.b.c.d/prefix") is empty until it is allocated; `error` says why it can't be. `wanted` is the
    address that the user asked for.
    """

    container_id: str
    network_id: str
    name: str = ""
    aliases: tuple[str, ...] = ()
    wanted: str = ""
    address: str = ""
    error: str = ""


class Node(StoreObject, frozen=True):
    """A machine in the cluster. `role` is what its certificate says; `spec.role` what it should be."""

    kind: ClassVar[str] = "node"
    spec: NodeSpec = NodeSpec()
    description: NodeDescription = NodeDescription()
    status: NodeStatus = NodeStatus()
    role: Role = Role.WORKER
    manager_status: ManagerStatus | None = None
    data_path_address: str = ""  # where VXLAN frames for this node go
    attachments: dict[str, str] = {}  # network id → this node's own address in it (the ingress address)
    tls: NodeTLSInfo = NodeTLSInfo()
    containers: tuple[ContainerAttachment, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its IP addresses as far as the managers know them: where others reach it, and VXLAN frames go."""
        return tuple(sorted(filter(_is_ip, {self.status.address, self.data_path_address})))


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# --- service ------------------------------------------------------------------------------------------


class VirtualIP(Record, frozen=True):
    """A service's address in one network, as "a.b.c.d/prefix"; empty in dnsrr mode."""

    network_id: str
    address: str = ""


class Endpoint(Record, frozen=True):
    """How a service is reached, as allocated."""

    spec: EndpointSpec = EndpointSpec()
    ports: tuple[PortConfig, ...] = ()
    virtual_ips: tuple[VirtualIP, ...] = ()


class UpdateStatus(Record, frozen=True):
    """Where an update stands. What was created after `started_version` may be the update's doing."""

    state: UpdateState
    started_version: int = 0
    started_at: int = 0
    completed_at: int = 0
    message: str = ""


class JobStatus(Record, frozen=True):
    """A job's iteration; rises with ForceUpdate."""

    job_iteration: int = 0
    last_execution: int = 0


class Service(StoreObject, frozen=True):
    """A service. `spec_version` is the Raft index at which the spec last changed."""

    kind: ClassVar[str] = "service"
    spec: ServiceSpec = ServiceSpec()
    previous_spec: ServiceSpec | None = None
    spec_version: int = 0
    previous_spec_version: int = 0
    endpoint: Endpoint | None = None  # None until allocated
    update_status: UpdateStatus | None = None
    job_status: JobStatus | None = None
    registry_auth: str = ""  # X-Registry-Auth given with the spec, base64url JSON; never shown


# --- task ---------------------------------------------------------------------------------------------


class ContainerStatus(Record, frozen=True):
    """The container of a task."""

    container_id: str = ""
    pid: int = 0
    exit_code: int = 0
    addresses: dict[str, tuple[str, ...]] = {}
    """Network id → addresses with prefix, of networks whose addresses the nodes give."""


class TaskStatus(Record, frozen=True):
    """What is known of a task. `message` says what happens; `error` why it could not."""

    state: TaskState = TaskState.NEW
    timestamp: int = 0
    message: str = ""
    error: str = ""
    container: ContainerStatus | None = None
    ports: tuple[PortConfig, ...] = ()  # host-mode ports as bound
    healthy: bool = True  # False while a health check fails: keeps the task out of the balancer
    applied_by: str = ""  # node id of the manager or agent that wrote it


class NetworkAttachment(Record, frozen=True):
    """A task's place in one network; addresses as "a.b.c.d/prefix"."""

    network_id: str
    addresses: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    driver_opts: dict[str, str] = {}


class RestartHistory(Record, frozen=True):
    """How often a slot was restarted under its present spec; the replacement carries it on.

    `times` (ns since the epoch) are kept only as far as the policy's window needs them; `streak` counts
    the latest runs that ended soon after they began.
    """

    count: int = 0
    streak: int = 0
    times: tuple[int, ...] = ()


class Task(StoreObject, frozen=True):
    """One run of a service's container on a node; never restarted, only replaced.

    `slot` numbers replicas, and a job's completions, from 1; a global service's tasks have slot 0 and are
    told apart by node.
    """

    kind: ClassVar[str] = "task"
    service_id: str = ""
    service_name: str = ""
    service_labels: dict[str, str] = {}
    slot: int = 0
    node_id: str = ""
    spec: TaskSpec = TaskSpec()
    spec_version: int = 0
    status: TaskStatus = TaskStatus()
    desired_state: TaskState = TaskState.NEW
    networks: tuple[NetworkAttachment, ...] = ()
    endpoint: Endpoint | None = None  # the service's endpoint when the task was made
    job_iteration: int | None = None
    generic_resources: tuple[GenericResource, ...] = ()
    log_driver: DriverConfig | None = None  # the cluster's for tasks whose spec names none, when it was made
    registry_auth: str = ""
    running_at: int = 0  # leader's clock when it was first known to run; 0: not yet
    not_before: int = 0  # a replacement's desired state rises from ready to running no sooner (restart delay)
    restarts: RestartHistory = RestartHistory()
    created_because: str = ""  # the orchestrator's and the scheduler's words, for those who ask
    placed_because: str = ""
    stopped_because: str = ""

    @property
    def shown_slot(self) -> int | None:
        """The slot's number as clients know it; None without one. A job's begin with 0, as SwarmKit's do:
        the docker CLI counts on it."""
        if not self.slot:
            return None
        return self.slot if self.job_iteration is None else self.slot - 1

    @property
    def name(self) -> str:
        """`service.slot.id`, or `service.node.id` for a global service."""
        slot = self.shown_slot
        return f"{self.service_name}.{self.node_id if slot is None else slot}.{self.id}"


# --- network ------------------------------------------------------------------------------------------


class Subnet(Record, frozen=True):
    """An allocated subnet, all in CIDR or plain address form."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    reserved: dict[str, str] = {}


class Network(StoreObject, frozen=True):
    """A cluster-wide network. `subnets` (IPv4), `subnets6` and `vni` are empty until allocated.

    IPv6 addresses follow from the IPv4 ones (`cluster.dataplane.address6_for`): nobody hands them out.
    """

    kind: ClassVar[str] = "network"
    spec: NetworkSpec = NetworkSpec()
    driver: str = "overlay"
    subnets: tuple[Subnet, ...] = ()
    subnets6: tuple[Subnet, ...] = ()
    vni: int = 0
    predefined: bool = False  # bridge, host, none: node-local networks that services may name

    @property
    def encrypted(self) -> bool:
        """Whether its traffic between nodes must be encrypted."""
        return self.driver == "overlay" and is_encrypted(self.spec.options)


# --- secret, config, cluster --------------------------------------------------------------------------


class Secret(StoreObject, frozen=True):
    """A secret."""

    kind: ClassVar[str] = "secret"
    spec: SecretSpec = SecretSpec()


class Config(StoreObject, frozen=True):
    """A config."""

    kind: ClassVar[str] = "config"
    spec: ConfigSpec = ConfigSpec()


class JoinTokens(Record, frozen=True):
    """The current join tokens."""

    worker: str = ""
    manager: str = ""


class RootRotation(Record, frozen=True):
    """The root that is to be, all PEM. `cross_signed`: its key, vouched for by the root in force.

    It signs already; it is trusted alone when all nodes have certificates of its own.
    """

    certificate: bytes = b""
    key: bytes = b""
    cross_signed: bytes = b""


class RootCA(Record, frozen=True):
    """The cluster's certificate authority: PEM certificate and key, and the certificate's SHA-256.

    Without a key a CA outside the cluster signs. `forced`: the spec's ForceRotate that was last heeded.
    """

    certificate: bytes = b""
    key: bytes = b""
    digest: str = ""
    join_tokens: JoinTokens = JoinTokens()
    rotation: RootRotation | None = None
    forced: int = 0


class KeyEpochs(Record, frozen=True):
    """The epochs of the keys that encrypted networks use: all from `oldest` to `newest` are in force.

    0: there was no encrypted network yet. `removed`: how many nodes had been removed from the cluster when
    the newest began.
    """

    newest: int = 0
    oldest: int = 0
    since: int = 0  # when the newest began, by the leader's clock
    because: str = ""
    removed: int = 0
    asked: bool = False  # somebody wants a new epoch as soon as may be

    @property
    def in_force(self) -> tuple[int, ...]:
        """The epochs, oldest first."""
        return tuple(range(self.oldest, self.newest + 1)) if self.newest else ()


class Cluster(StoreObject, frozen=True):
    """Settings and secrets of the cluster; exactly one exists, named `default`."""

    kind: ClassVar[str] = "cluster"
    spec: ClusterSpec = ClusterSpec()
    root_ca: RootCA = RootCA()
    default_address_pool: tuple[str, ...] = ("10.0.0.0/8",)
    subnet_size: int = 24
    data_path_port: int = 4789
    removed_nodes: tuple[str, ...] = ()  # node ids whose certificates are no longer honoured
    unlock_key: str = ""  # with autolock: what locks the managers' files at rest
    generation: int = 0  # how many times a new cluster was forced, by the state; Raft counts, too
    key_epochs: KeyEpochs = KeyEpochs()


AnyObject = Node | Service | Task | Network | Secret | Config | Cluster
