"""What nodes must know of networks, computed from the store: from scratch, and change by change.

`records` is the definition; `DataplaneIndex` keeps the same incrementally, so that one task's change costs
its own size.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from typing import TypeVar

from msgspec.structs import replace

from cluster.dataplane import (
    EndpointRecord,
    NetworkRecord,
    PeerRecord,
    Protocol,
    PublishedPort,
    ServiceRecord,
)
from cluster.objects import Cluster, Network, Node, Service, Task
from cluster.publish_at import places, policy, proxy_protocol
from cluster.states import NodeState, TaskState
from cluster.validate_ipam import MTU_OPTION
from manager.store import Event, View

R = TypeVar("R")


@dataclass
class NetworkRecords:
    """All that is known of one network: its record, endpoints by task, services by id."""

    network: NetworkRecord | None = None
    endpoints: dict[str, EndpointRecord] = field(default_factory=dict)
    services: dict[str, ServiceRecord] = field(default_factory=dict)


def network_record(network: Network, epochs: tuple[int, ...] = ()) -> NetworkRecord:
    """A network as its nodes need it. `epochs`: those of the keys that are in force, for encrypted ones."""
    options = network.spec.options or {}
    mtu = options.get(MTU_OPTION, "")
    return NetworkRecord(
        id=network.id,
        name=network.spec.name,
        driver=network.driver,
        subnets=network.subnets,
        subnets6=network.subnets6,
        vni=network.vni,
        mtu=int(mtu) if mtu.isdecimal() and len(mtu) <= 5 else 0,
        internal=network.spec.internal,
        ingress=network.spec.ingress,
        attachable=network.spec.attachable,
        options=options,
        labels=network.spec.labels or {},
        key_epochs=epochs if network.encrypted else (),
        config_from=network.spec.config_from.network if network.spec.config_from is not None else "",
    )


def peer_record(node: Node) -> PeerRecord | None:
    """A node as the others need it; None while it has no address."""
    address = node.data_path_address or node.status.address
    keys = node.description.encryption.keys
    return PeerRecord(node.id, address, node.attachments, keys=keys) if address else None


def serving(task: Task, node: Node | None, *, admitted: bool = False) -> bool:
    """Whether a task may get new connections: it runs, is healthy, should go on, and its node is there.

    `admitted`: it runs, though that is not written yet (manager.dispatcher.admissions).
    """
    return (
        (admitted or (task.status.state == TaskState.RUNNING and task.status.healthy))
        and not task.desired_state.stops
        and node is not None
        and node.status.state != NodeState.DOWN
    )


def endpoint_records(view: View, task: Task, *, admitted: bool = False) -> dict[str, EndpointRecord]:
    """A task's endpoints by network id; none before it is assigned or after it has stopped."""
    if not task.node_id or not TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING:
        return {}
    may_serve = serving(task, view.get(Node, task.node_id), admitted=admitted)
    of_node = task.status.container.addresses if task.status.container is not None else {}
    return {
        attachment.network_id: EndpointRecord(
            network_id=attachment.network_id,
            task_id=task.id,
            task_name=task.name,
            service_id=task.service_id,
            node_id=task.node_id,
            address=held[0],
            aliases=attachment.aliases,
            serving=may_serve,
        )
        for attachment in task.networks
        if (held := attachment.addresses or _of_node(of_node.get(attachment.network_id, ())))
    }


def _of_node(addresses: Iterable[str]) -> tuple[str, ...]:
    """The IPv4 addresses among those that a node says it gave: its word goes to all others."""
    return tuple(each for each in addresses if _is_ipv4(each))


def _is_ipv4(text: str) -> bool:
    try:
        IPv4Interface(text)
    except ValueError:
        return False
    return True


def container_records(node: Node) -> dict[tuple[str, str], EndpointRecord]:
    """The endpoints of a node's containers that belong to no service, by network and container id."""
    return {
        (each.network_id, each.container_id): EndpointRecord(
            network_id=each.network_id,
            task_id=each.container_id,
            task_name=each.name,
            service_id="",
            node_id=node.id,
            address=each.address,
            aliases=each.aliases,
        )
        for each in node.containers
        if each.address
    }


def service_records(view: View, service: Service) -> dict[str, ServiceRecord]:
    """A service's records by network id: where it has a VIP, and where its spec attaches it (dnsrr)."""
    endpoint = service.endpoint
    vips = {vip.network_id: vip.address for vip in endpoint.virtual_ips} if endpoint else {}
    aliases: dict[str, tuple[str, ...]] = {}
    for attachment in service.spec.task_template.networks or service.spec.networks or ():
        network = view.get(Network, attachment.target) or view.by_name(Network, attachment.target)
        if network is not None and not network.predefined:
            aliases[network.id] = tuple(attachment.aliases or ())
    ports = tuple(
        PublishedPort(
            protocol=Protocol(port.protocol or "tcp"),
            published=port.published_port,
            target=port.target_port,
            at=places(service.spec.labels, port.protocol or "tcp", port.published_port),
            name=port.name,
            policy=policy(service.spec.labels, port.protocol or "tcp", port.published_port),
            proxy=proxy_protocol(service.spec.labels, port.protocol or "tcp", port.published_port),
        )
        for port in (endpoint.ports if endpoint else ())
        if port.publish_mode != "host" and port.published_port
    )
    found = {}
    for network_id in {**vips, **aliases}:
        ingress = (network := view.get(Network, network_id)) is not None and network.spec.ingress
        found[network_id] = ServiceRecord(
            network_id=network_id,
            service_id=service.id,
            name=service.spec.name,
            aliases=aliases.get(network_id, ()),
            vip=vips.get(network_id, ""),
            ports=ports if ingress else (),
        )
    return found


def records(view: View, network_id: str) -> NetworkRecords:
    """All records of one network, computed from scratch."""
    network = view.get(Network, network_id)
    found = NetworkRecords(network_record(network, epochs(view)) if network is not None else None)
    for task in view.tasks_using(network_id):
        endpoint = endpoint_records(view, task).get(network_id)
        if endpoint is not None:
            found.endpoints[task.id] = endpoint
    for node in view.all(Node):
        for (where, container_id), place in container_records(node).items():
            if where == network_id:
                found.endpoints[container_id] = place
    for service in view.all(Service):
        record = service_records(view, service).get(network_id)
        if record is not None:
            found.services[service.id] = record
    return found


def epochs(view: View) -> tuple[int, ...]:
    """The epochs of keys that are in force."""
    cluster = view.cluster()
    return cluster.key_epochs.in_force if cluster is not None else ()


def peers(view: View) -> dict[str, PeerRecord]:
    """All nodes that have an address."""
    return {node.id: record for node in view.all(Node) if (record := peer_record(node)) is not None}


def ingress_networks(view: View) -> frozenset[str]:
    """The networks that every node takes part in."""
    return frozenset(network.id for network in view.all(Network) if network.spec.ingress)


@dataclass
class Delta:
    """Keys whose record changed, appeared or went."""

    networks: set[str] = field(default_factory=set)
    peers: set[str] = field(default_factory=set)
    endpoints: set[tuple[str, str]] = field(default_factory=set)  # (network, task)
    services: set[tuple[str, str]] = field(default_factory=set)  # (network, service)
    withdrawn: set[str] = field(default_factory=set)  # tasks with an endpoint that served and no longer does

    @property
    def empty(self) -> bool:
        """True when nothing changed."""
        return not (self.networks or self.peers or self.endpoints or self.services)


class DataplaneIndex:
    """The records of all networks, kept up to date with the store's events."""

    def __init__(self, view: View, admitted: Iterable[str] = (), silent: Iterable[str] = ()) -> None:
        """Args: admitted: tasks that serve though the store does not say yet that they run.

        silent: nodes that are to be avoided (manager.dispatcher.liveness).
        """
        self.admitted = set(admitted)
        self.silent: set[str] = set()
        self.networks: dict[str, NetworkRecords] = {}
        self.peers = peers(view)
        self.ingress = ingress_networks(view)
        self._of_task: dict[str, dict[str, EndpointRecord]] = {}
        self._of_service: dict[str, dict[str, ServiceRecord]] = {}
        self._of_node: dict[str, dict[tuple[str, str], EndpointRecord]] = {}
        delta = Delta()
        for network in view.all(Network):
            self._network(view, network.id, delta)
        for service in view.all(Service):
            self._service(view, service.id, delta)
        for task in view.all(Task):
            self._task(view, task.id, delta)
        for node in view.all(Node):
            self._containers(node, node.id, delta)
        for node_id in silent:
            self.hear(view, node_id, silent=True)

    def endpoint(self, key: tuple[str, str]) -> EndpointRecord | None:
        """The record of (network, task), if there is one."""
        network = self.networks.get(key[0])
        return network.endpoints.get(key[1]) if network else None

    def service(self, key: tuple[str, str]) -> ServiceRecord | None:
        """The record of (network, service), if there is one."""
        network = self.networks.get(key[0])
        return network.services.get(key[1]) if network else None

    def served(self, task_id: str) -> bool:
        """Whether some balancer sends the task new connections."""
        return any(record.serving for record in self._of_task.get(task_id, {}).values())

    def networks_of(self, task_id: str) -> Iterator[str]:
        """The networks in which the task has an endpoint."""
        return iter(self._of_task.get(task_id, {}))

    def admit(self, view: View, task_id: str, *, serves: bool = True) -> Delta:
        """The task serves though the store does not say yet that it runs; or it does so no more."""
        delta = Delta()
        (self.admitted.add if serves else self.admitted.discard)(task_id)
        self._task(view, task_id, delta)
        return delta

    def hear(self, view: View, node_id: str, *, silent: bool) -> Delta:
        """The node is silent, or heard of again."""
        delta = Delta()
        (self.silent.add if silent else self.silent.discard)(node_id)
        self._node(view, node_id, delta)
        return delta

    def apply(self, view: View, events: Iterable[Event]) -> Delta:
        """Take in commits; `view` is the state after them. Returns what changed."""
        delta = Delta()
        tasks: dict[str, None] = {}
        services: dict[str, None] = {}
        for event in events:
            match event.object:
                case Task() as task:
                    tasks[task.id] = None
                case Service() as service:
                    services[service.id] = None
                case Node() as node:
                    self._node(view, node.id, delta)
                    if _state(event.old) != _state(event.new):
                        tasks.update((task.id, None) for task in view.tasks_on_node(node.id))
                case Network() as network:
                    self._network(view, network.id, delta)
                    self.ingress = ingress_networks(view)
                    # What a service's spec calls this network may only now mean something.
                    services.update((service.id, None) for service in view.services_using(network.id))
                    named = view.services_using(network.spec.name)
                    services.update((service.id, None) for service in named)
                    with_vip = self.networks[network.id].services if network.id in self.networks else {}
                    services.update((service_id, None) for service_id in with_vip)
                case Cluster():
                    for known in [*self.networks.values()]:
                        if known.network is not None and known.network.encrypted:
                            self._network(view, known.network.id, delta)
        for service_id in services:
            self._service(view, service_id, delta)
        for task_id in tasks:
            self._task(view, task_id, delta)
        return delta

    def _network(self, view: View, network_id: str, delta: Delta) -> None:
        network = view.get(Network, network_id)
        record = network_record(network, epochs(view)) if network is not None else None
        known = self.networks.get(network_id)
        if record is None and known is None:
            return
        known = self.networks.setdefault(network_id, NetworkRecords())
        if known.network != record:
            known.network = record
            delta.networks.add(network_id)
        self._forget_if_empty(network_id)

    def _containers(self, node: Node | None, node_id: str, delta: Delta) -> None:
        now = container_records(node) if node is not None else {}
        before = self._of_node.get(node_id, {})
        if now == before:
            return
        for key in {**before, **now}:
            if before.get(key) == now.get(key):
                continue
            network_id, container_id = key
            delta.endpoints.add(key)
            known = self.networks.setdefault(network_id, NetworkRecords())
            if key in now:
                known.endpoints[container_id] = now[key]
            else:
                known.endpoints.pop(container_id, None)
                self._forget_if_empty(network_id)
        if now:
            self._of_node[node_id] = now
        else:
            del self._of_node[node_id]

    def _node(self, view: View, node_id: str, delta: Delta) -> None:
        node = view.get(Node, node_id)
        self._containers(node, node_id, delta)
        record = peer_record(node) if node is not None else None
        if node is None or node.status.state == NodeState.DOWN:
            self.silent.discard(node_id)  # nothing on it serves
        elif record is not None and node_id in self.silent:
            record = replace(record, silent=True)
        if self.peers.get(node_id) == record:
            return
        delta.peers.add(node_id)
        if record is None:
            del self.peers[node_id]
        else:
            self.peers[node_id] = record

    def _service(self, view: View, service_id: str, delta: Delta) -> None:
        service = view.get(Service, service_id)
        now = service_records(view, service) if service is not None else {}
        before = self._of_service.get(service_id, {})
        for network_id in _changed(before, now):
            delta.services.add((network_id, service_id))
            known = self.networks.setdefault(network_id, NetworkRecords())
            if network_id in now:
                known.services[service_id] = now[network_id]
            else:
                known.services.pop(service_id, None)
                self._forget_if_empty(network_id)
        _keep(self._of_service, service_id, now)

    def _task(self, view: View, task_id: str, delta: Delta) -> None:
        task = view.get(Task, task_id)
        if task is None or task.status.state >= TaskState.RUNNING:
            self.admitted.discard(task_id)
        now = endpoint_records(view, task, admitted=task_id in self.admitted) if task is not None else {}
        before = self._of_task.get(task_id, {})
        for network_id in _changed(before, now):
            delta.endpoints.add((network_id, task_id))
            known = self.networks.setdefault(network_id, NetworkRecords())
            if network_id in now:
                known.endpoints[task_id] = now[network_id]
            else:
                known.endpoints.pop(task_id, None)
                self._forget_if_empty(network_id)
            if network_id in before and before[network_id].serving and network_id in now:
                delta.withdrawn.add(task_id)
        _keep(self._of_task, task_id, now)

    def _forget_if_empty(self, network_id: str) -> None:
        known = self.networks[network_id]
        if known.network is None and not known.endpoints and not known.services:
            del self.networks[network_id]


def _changed(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    return [key for key in {**before, **now} if before.get(key) != now.get(key)]


def _keep(index: dict[str, dict[str, R]], key: str, value: dict[str, R]) -> None:
    if value:
        index[key] = value
    else:
        index.pop(key, None)


def _state(node: object) -> NodeState | None:
    return node.status.state if isinstance(node, Node) else None
