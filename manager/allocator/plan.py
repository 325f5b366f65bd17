"""What the allocator decides: subnets for networks, addresses for nodes, services and tasks. No effects.

A plan says what is allocated, or the reason why it can't be. What was planned is held at once, so that each
step sees those before it. A write that finds its object changed is left out; the change's own event, which
the controller reads before it plans again, then corrects what is held.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from msgspec.structs import replace

from cluster.codec import carried
from cluster.errors import InvalidArgument, ShoalError, Unavailable
from cluster.objects import (
    ContainerAttachment,
    Endpoint,
    Network,
    NetworkAttachment,
    Node,
    Service,
    StoreObject,
    Task,
    TaskStatus,
    VirtualIP,
)
from cluster.seams import SECOND
from cluster.spec import EndpointSpec, NetworkAttachmentConfig, PortConfig
from cluster.states import TaskState
from manager.allocator import networks, ports
from manager.allocator.claims import Allocations
from manager.allocator.resting import REST
from manager.store import Transaction, View

T = TypeVar("T", bound=StoreObject)
Write = Callable[[Transaction], None]
Key = tuple[type[StoreObject], str]

ALLOCATED = "pending task scheduling"
WAITING = "waiting for the allocation of addresses and ports"
DNSRR = "dnsrr"


def to_allocate(task: Task) -> bool:
    """Whether the task waits for the allocator."""
    return task.status.state is TaskState.NEW and not task.desired_state.stops


@dataclass
class Plan:
    """A round of the allocator over one view. `blocked` holds, across rounds, why objects wait."""

    view: View
    state: Allocations
    blocked: dict[Key, str]
    now: int
    writes: list[Write] = field(default_factory=list)
    _new: dict[Key, StoreObject] = field(default_factory=dict)
    # Networks, with the services for which they have no address, and what is said of it: nothing becomes free
    # while a plan is made.
    _full: dict[tuple[str, str], str] = field(default_factory=dict)

    def allocate_networks(self, ids: Iterable[str]) -> None:
        """Number these networks."""
        cluster = self.view.cluster()
        for id in ids:
            network = self.view.get(Network, id)
            if cluster is None or network is None or network.subnets or not networks.has_addresses(network):
                continue
            try:
                found = networks.allocated(network, cluster, self.view.all(Node), self.state)
                self._allocate(network, found, _write_network)
            except ShoalError as error:
                self.blocked[(Network, id)] = str(error)

    def allocate_nodes(self, ids: Iterable[str]) -> None:
        """Give these nodes their address in the ingress network, and their containers theirs."""
        ingress = self._current(networks.ingress_network(self.view))
        for id in ids:
            node = self.view.get(Node, id)
            if node is None:
                continue
            try:
                attachments = {}
                if ingress is not None and ingress.subnets:
                    attachments[ingress.id] = self._address(ingress, node.attachments.get(ingress.id))
                if attachments != node.attachments:
                    self._allocate(node, replace(node, attachments=attachments), _write_node)
            except ShoalError as error:
                self.blocked[(Node, id)] = str(error)
            self._allocate_containers(id)

    def _allocate_containers(self, node_id: str) -> None:
        """The addresses of containers that belong to no service; who asked for them hears why not."""
        node = self._current(self.view.get(Node, node_id))
        waiting = [each for each in node.containers if not each.address and not each.error] if node else []
        for container in waiting:
            placed = self._placed(container)
            now = self._current(node)
            assert now is not None, "its containers were just read"
            containers = tuple(placed if each is container else each for each in now.containers)
            self._allocate(now, replace(now, containers=containers), _write_node)

    def _placed(self, container: ContainerAttachment) -> ContainerAttachment:
        network = self._current(self.view.get(Network, container.network_id))
        try:
            if network is None:
                raise Unavailable("the network was removed")
            if not container.wanted:
                return replace(container, address=self._address(network, None))
            return replace(container, address=self.state.wanted_address(network.id, container.wanted))
        except ShoalError as error:
            return replace(container, error=str(error))

    def allocate_services(self, ids: Iterable[str]) -> None:
        """Give these services their ports and virtual addresses."""
        for id in ids:
            service = self.view.get(Service, id)
            if service is None:
                continue
            try:
                endpoint = self._endpoint(service)
                if endpoint != service.endpoint:
                    self._allocate(service, replace(service, endpoint=endpoint), _write_service)
            except ShoalError as error:
                self.blocked[(Service, id)] = str(error)

    def allocate_tasks(self, ids: Iterable[str]) -> None:
        """Give these tasks their addresses, and let the scheduler have them."""
        for id in ids:
            task = self.view.get(Task, id)
            service = self._current(self.view.get(Service, task.service_id)) if task is not None else None
            if task is None or service is None or not to_allocate(task):
                continue
            try:
                self._allocate(task, self._allocated_task(task, service), _write_task)
            except ShoalError as error:
                self.blocked[(Task, id)] = reason = str(error)
                if task.status.error != reason:
                    self._say(task, reason)

    # --- endpoints and attachments --------------------------------------------------------------------

    def _endpoint(self, service: Service) -> Endpoint:
        spec = service.spec.endpoint_spec or EndpointSpec()
        numbered = ports.allocated(service, spec, self.state.ports, self.view)
        configs = service.spec.task_template.networks or service.spec.networks or ()
        targets = [network for network, _ in self._targets(configs, numbered, spec)]
        before = (
            {vip.network_id: vip.address for vip in service.endpoint.virtual_ips} if service.endpoint else {}
        )
        virtual_ips = []
        for network in targets:
            if not networks.has_addresses(network):
                continue
            address = "" if spec.mode == DNSRR else self._address(network, before.get(network.id))
            virtual_ips.append(VirtualIP(network_id=network.id, address=address))
        endpoint = Endpoint(spec=spec, ports=numbered, virtual_ips=tuple(virtual_ips))
        return carried(service.endpoint, endpoint) if service.endpoint else endpoint

    def _allocated_task(self, task: Task, service: Service) -> Task:
        reason = self.blocked.get((Service, service.id))
        if reason is not None:
            raise Unavailable(reason)
        endpoint = service.endpoint
        if endpoint is None:
            raise Unavailable(f"service {service.spec.name} has no ports and addresses yet")
        configs = task.spec.networks or service.spec.networks or ()
        before = {attachment.network_id: attachment for attachment in task.networks}
        attachments = []
        for network, config in self._targets(configs, endpoint.ports, endpoint.spec):
            held = before.get(network.id)
            given = held.addresses[0] if held is not None and held.addresses else None
            attachments.append(
                NetworkAttachment(
                    network_id=network.id,
                    addresses=(self._address(network, given, service.id),)
                    if networks.has_addresses(network)
                    else (),
                    aliases=tuple(config.aliases or ()),
                    driver_opts=config.driver_opts or {},
                )
            )
        return replace(
            task,
            networks=tuple(attachments),
            endpoint=endpoint,
            status=TaskStatus(state=TaskState.PENDING, timestamp=self.now, message=ALLOCATED),
        )

    def _targets(
        self,
        configs: Iterable[NetworkAttachmentConfig],
        numbered: Iterable[PortConfig],
        spec: EndpointSpec,
    ) -> list[tuple[Network, NetworkAttachmentConfig]]:
        """The networks that are meant, each once; first the ingress network when it publishes ports."""
        found: dict[str, tuple[Network, NetworkAttachmentConfig]] = {}
        if ports.ingress_ports(numbered) and spec.mode != DNSRR:
            ingress = self._current(networks.ingress_network(self.view))
            if ingress is None:
                raise InvalidArgument(
                    "ports can't be published in ingress mode: the ingress network was removed; create one "
                    "with: docker network create --driver overlay --ingress NAME"
                )
            found[ingress.id] = ingress, NetworkAttachmentConfig(target=ingress.id)
        for config in configs:
            network = self._current(networks.resolve(self.view, config.target))
            if network is None:
                raise InvalidArgument(f"network {config.target} not found")
            found.setdefault(network.id, (network, config))
        return list(found.values())

    def _address(self, network: Network, held: str | None, service_id: str = "") -> str:
        """The address that is held already, or the next free one; for a task of a service, or something else.
        Raises Unavailable."""
        if held:
            return held
        if not network.subnets:
            reason = self.blocked.get((Network, network.id), "it is being allocated")
            raise Unavailable(f"network {network.spec.name} has no subnet yet: {reason}")
        full = (network.id, service_id)
        address = self.state.next_address(network.id, service_id) if full not in self._full else None
        if address is not None:
            return address
        if full not in self._full:
            self._full[full] = self._exhausted(network)
        raise Unavailable(self._full[full])

    def _exhausted(self, network: Network) -> str:
        subnets = [subnet.subnet for subnet in network.subnets]
        size, resting = self.state.capacity(network.id), self.state.resting.within(subnets)
        return (
            f"network {network.spec.name} has no free address: all {size} of {', '.join(subnets)} are in use"
            + (f", or were until {REST // SECOND} s ago" if resting else "")
            + "; remove or scale down what is in it, or use a network with a larger subnet"
        )

    # --- results --------------------------------------------------------------------------------------

    def _current(self, obj: T | None) -> T | None:
        """The object as this plan leaves it."""
        return None if obj is None else self._new.get((type(obj), obj.id), obj)  # type: ignore[return-value]

    def _allocate(self, old: T, new: T, write: Callable[[T, T], Write]) -> None:
        key = (type(old), old.id)
        self.state.put(new)
        self._new[key] = new
        self.writes.append(write(old, new))

    def _say(self, task: Task, reason: str) -> None:
        def write(transaction: Transaction) -> None:
            stored = transaction.get(Task, task.id)
            if stored is not None and to_allocate(stored):
                status = replace(stored.status, timestamp=self.now, message=WAITING, error=reason)
                transaction.update(replace(stored, status=status))

        self.writes.append(write)


# What is written is decided again on the object as it then is: it may have changed since the plan.


def _write_network(old: Network, new: Network) -> Write:
    def write(transaction: Transaction) -> None:
        stored = transaction.get(Network, old.id)
        if stored is not None and not stored.subnets:
            transaction.update(replace(stored, subnets=new.subnets, subnets6=new.subnets6, vni=new.vni))

    return write


def _write_node(old: Node, new: Node) -> Write:
    def write(transaction: Transaction) -> None:
        stored = transaction.get(Node, old.id)
        if stored is not None:
            placed = {(each.container_id, each.network_id): each for each in new.containers}
            containers = tuple(
                each if each.address else placed.get((each.container_id, each.network_id), each)
                for each in stored.containers
            )
            transaction.update(replace(stored, attachments=new.attachments, containers=containers))

    return write


def _write_service(old: Service, new: Service) -> Write:
    def write(transaction: Transaction) -> None:
        stored = transaction.get(Service, old.id)
        if stored is not None and stored.spec == old.spec:
            transaction.update(replace(stored, endpoint=new.endpoint))

    return write


def _write_task(old: Task, new: Task) -> Write:
    def write(transaction: Transaction) -> None:
        stored = transaction.get(Task, old.id)
        if stored is not None and to_allocate(stored):
            transaction.update(
                replace(stored, networks=new.networks, endpoint=new.endpoint, status=new.status)
            )

    return write
