"""What the scheduler knows of each node, kept up to date change by change."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping

from cluster.objects import Network, Node, Task
from cluster.seams import SECOND
from cluster.spec import GenericResource, PortConfig, Resources
from cluster.states import TaskState

FAILURES_WATCHED = 300 * SECOND  # how long a failure counts against a node
FAULTY = 5  # so many failures of one service de-prioritise the node for it

HostPort = tuple[str, int]
ServiceVersion = tuple[str, int]
NO_RESOURCES = Resources()


def reservations(task: Task) -> Resources:
    """What the task sets aside on its node."""
    resources = task.spec.resources
    return (resources.reservations if resources else None) or NO_RESOURCES


def host_ports(task: Task) -> frozenset[HostPort]:
    """The fixed ports that the task occupies on its node: (protocol, port)."""
    ports: Iterable[PortConfig] = task.endpoint.ports if task.endpoint else ()
    return frozenset(
        (port.protocol, port.published_port)
        for port in ports
        if port.publish_mode == "host" and port.published_port
    )


def generic_amounts(resources: Iterable[GenericResource]) -> Counter[str]:
    """How much of each kind: a named resource counts as one."""
    amounts: Counter[str] = Counter()
    for resource in resources:
        if resource.named_resource_spec is not None:
            amounts[resource.named_resource_spec.kind] += 1
        elif resource.discrete_resource_spec is not None:
            amounts[resource.discrete_resource_spec.kind] += resource.discrete_resource_spec.value
    return amounts


def generic_names(resources: Iterable[GenericResource], kind: str) -> list[str]:
    """The names of a kind's named resources."""
    named = (resource.named_resource_spec for resource in resources)
    return [resource.value for resource in named if resource is not None and resource.kind == kind]


class NodeInfo:
    """A node, the tasks that hold something on it, and what is left.

    A task holds its reservations and ports until it has ended; it counts as running only while it should.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.tasks: dict[str, Task] = {}
        self.active = 0
        self.active_by_service: Counter[str] = Counter()
        self.reserved_cpus = 0
        self.reserved_memory = 0
        self.ports: Counter[HostPort] = Counter()
        self.generic: Counter[str] = Counter()
        self._failures: dict[ServiceVersion, deque[int]] = {}

    @property
    def free_cpus(self) -> int:
        """Billionths of a core that are not reserved."""
        return self.node.description.resources.nano_cpus - self.reserved_cpus

    @property
    def free_memory(self) -> int:
        """Bytes that are not reserved."""
        return self.node.description.resources.memory_bytes - self.reserved_memory

    def free_generic(self, kind: str) -> int:
        """How many of a generic resource are not taken."""
        offered = generic_amounts(self.node.description.resources.generic_resources or ())
        return offered[kind] - self.generic[kind]

    def free_names(self, kind: str) -> list[str]:
        """Named generic resources of a kind that no task has."""
        taken = {name for task in self.tasks.values() for name in generic_names(task.generic_resources, kind)}
        offered = generic_names(self.node.description.resources.generic_resources or (), kind)
        return [name for name in offered if name not in taken]

    def put(self, task: Task) -> None:
        """The task is on this node, in this form."""
        self.drop(task.id)
        self.tasks[task.id] = task
        self._count(task, 1)

    def drop(self, task_id: str) -> bool:
        """The task holds nothing here any more; False when it did not."""
        task = self.tasks.pop(task_id, None)
        if task is None:
            return False
        self._count(task, -1)
        return True

    def _count(self, task: Task, sign: int) -> None:
        reserved = reservations(task)
        self.reserved_cpus += sign * reserved.nano_cpus
        self.reserved_memory += sign * reserved.memory_bytes
        for port in host_ports(task):
            self.ports[port] += sign
        for kind, amount in generic_amounts(reserved.generic_resources or ()).items():
            self.generic[kind] += sign * amount
        if not task.desired_state.stops:
            self.active += sign
            self.active_by_service[task.service_id] += sign

    def failed(self, service: ServiceVersion, now: int) -> None:
        """A task of this service failed here now (monotonic ns)."""
        failures = self._failures.setdefault(service, deque(maxlen=FAULTY * 4))
        failures.append(now)

    def recent_failures(self, service: ServiceVersion, now: int) -> int:
        """How many tasks of this service failed here in the last five minutes."""
        return sum(now - at < FAILURES_WATCHED for at in self._failures.get(service, ()))

    def forget_old_failures(self, now: int) -> None:
        """Keep no failure that counts no more."""
        for service, failures in list(self._failures.items()):
            if now - failures[-1] >= FAILURES_WATCHED:
                del self._failures[service]


class NodeTable:
    """All nodes. Fed with every change of nodes, tasks and networks, in order."""

    def __init__(
        self, nodes: Iterable[Node] = (), tasks: Iterable[Task] = (), networks: Iterable[Network] = ()
    ) -> None:
        self._nodes: dict[str, NodeInfo] = {}
        self._node_of_task: dict[str, str] = {}
        self._drivers: dict[str, str] = {}
        self.encrypted: set[str] = set()
        """The networks whose nodes must be able to encrypt, by id."""
        for network in networks:
            self.put_network(network)
        for node in nodes:
            self.put_node(node)
        for task in tasks:
            self.put_task(task)

    def __iter__(self) -> Iterator[NodeInfo]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, node_id: str) -> NodeInfo | None:
        """What is known of a node."""
        return self._nodes.get(node_id)

    @property
    def drivers(self) -> Mapping[str, str]:
        """Network id → driver, of the networks whose driver a node must have."""
        return self._drivers

    def put_node(self, node: Node) -> None:
        """A node is new, or changed."""
        info = self._nodes.get(node.id)
        if info is None:
            self._nodes[node.id] = NodeInfo(node)
        else:
            info.node = node

    def drop_node(self, node_id: str) -> None:
        """A node was removed."""
        self._nodes.pop(node_id, None)

    def put_network(self, network: Network) -> None:
        """A network is new, or changed."""
        if not network.predefined:
            self._drivers[network.id] = network.driver
        if network.encrypted:
            self.encrypted.add(network.id)

    def drop_network(self, network_id: str) -> None:
        """A network was removed."""
        self._drivers.pop(network_id, None)
        self.encrypted.discard(network_id)

    def put_task(self, task: Task) -> bool:
        """A task is new, or changed. True when that freed something on a node."""
        if not task.node_id or task.status.state.terminal or task.status.state < TaskState.ASSIGNED:
            return self.drop_task(task.id)
        info = self._nodes.get(task.node_id)
        if info is None:
            return self.drop_task(task.id)
        if self._node_of_task.get(task.id, task.node_id) != task.node_id:
            self.drop_task(task.id)
        before = info.active
        info.put(task)
        self._node_of_task[task.id] = task.node_id
        return info.active < before

    def drop_task(self, task_id: str) -> bool:
        """A task ended or was removed. True when it held something."""
        info = self._nodes.get(self._node_of_task.pop(task_id, ""))
        return info is not None and info.drop(task_id)

    def task_failed(self, task: Task, now: int) -> None:
        """A task failed or was rejected on its node now (monotonic ns)."""
        info = self._nodes.get(task.node_id)
        if info is not None:
            info.forget_old_failures(now)
            info.failed((task.service_id, task.spec_version), now)
