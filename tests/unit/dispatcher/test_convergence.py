"""Whatever happens in the store, a node that applies each message knows exactly what it should."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.objects import (
    ContainerAttachment,
    Endpoint,
    Network,
    NetworkAttachment,
    Node,
    NodeStatus,
    Secret,
    Service,
    StoreObject,
    Task,
    TaskStatus,
    VirtualIP,
)
from cluster.spec import (
    ContainerSpec,
    NetworkAttachmentConfig,
    NetworkSpec,
    PortConfig,
    SecretReference,
    SecretSpec,
    ServiceSpec,
    TaskSpec,
)
from cluster.states import NodeState, TaskState
from manager.dispatcher.assignments import Told, decided, needs, tasks_of_node
from manager.dispatcher.dataplane import DataplaneIndex, Delta, peers, records
from manager.store import Event, Transaction, View
from tests.fakes.agent import Knowledge

NODES = ("n1", "n2", "n3")
NETWORKS = ("ingress", "net1", "net2")
SECRETS = ("s1", "s2")


class Random:
    """Random changes of a small cluster."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.view = View.empty()

    def change(self) -> tuple[Event, ...]:
        """Commit one to three changes; returns the events."""
        tx = Transaction(self.view)
        for _ in range(self.rng.randrange(1, 4)):
            self.rng.choice([self.node, self.network, self.secret, self.service, self.task, self.task])(tx)
        self.view, events = tx.commit(self.view.index + 1, self.view.index)
        return events

    def put(self, tx: Transaction, obj: StoreObject, deleting: float = 0.2) -> None:
        """Create, update or delete."""
        stored = tx.get(type(obj), obj.id)
        if stored is None:
            if self.view.get(type(obj), obj.id) is None:
                tx.create(obj)
        elif self.rng.random() < deleting:
            tx.delete(type(obj), obj.id)
        else:
            tx.update(replace(obj, version=stored.version))

    def node(self, tx: Transaction) -> None:
        rng = self.rng
        node_id = rng.choice(NODES)
        state = rng.choice([NodeState.READY, NodeState.READY, NodeState.DOWN])
        address = rng.choice(["", f"10.0.0.{node_id[1]}", f"10.0.1.{node_id[1]}"])
        attachments = {"ingress": f"10.255.0.{node_id[1]}/16"} if rng.random() < 0.5 else {}
        node = Node(
            id=node_id,
            status=NodeStatus(state=state),
            data_path_address=address,
            attachments=attachments,
            containers=tuple(
                ContainerAttachment(
                    container_id=f"{node_id}-c{number}",
                    network_id=rng.choice(NETWORKS[1:]),
                    address=f"10.1.0.{rng.randrange(9)}/24",
                )
                for number in range(rng.randrange(3))
            ),
        )
        self.put(tx, node)

    def network(self, tx: Transaction) -> None:
        network_id = self.rng.choice(NETWORKS)
        spec = NetworkSpec(name=network_id, ingress=network_id == "ingress")
        self.put(tx, Network(id=network_id, spec=spec, vni=self.rng.randrange(4096, 4100)))

    def secret(self, tx: Transaction) -> None:
        secret_id = self.rng.choice(SECRETS)
        labels = {"x": str(self.rng.randrange(3))}
        self.put(tx, Secret(id=secret_id, spec=SecretSpec(name=secret_id, labels=labels)))

    def service(self, tx: Transaction) -> None:
        rng = self.rng
        service_id = rng.choice(["web", "db"])
        attached = [
            NetworkAttachmentConfig(target=id, aliases=rng.sample(["a", "b"], rng.randrange(3)))
            for id in rng.sample(NETWORKS[1:], rng.randrange(3))
        ]
        vips = tuple(
            VirtualIP(network_id=id, address=f"10.1.0.{rng.randrange(9)}/24")
            for id in rng.sample(NETWORKS, rng.randrange(3))
        )
        ports = (PortConfig(target_port=80, published_port=8080 + rng.randrange(2)),)
        endpoint = rng.choice([None, Endpoint(virtual_ips=vips, ports=ports)])
        spec = ServiceSpec(name=service_id, task_template=TaskSpec(networks=attached))
        self.put(tx, Service(id=service_id, spec=spec, endpoint=endpoint))

    def task(self, tx: Transaction) -> None:
        rng = self.rng
        task_id = f"t{rng.randrange(8)}"
        states = [
            TaskState.PENDING,
            TaskState.ASSIGNED,
            TaskState.RUNNING,
            TaskState.RUNNING,
            TaskState.FAILED,
        ]
        references = [SecretReference(secret_id=id) for id in rng.sample(SECRETS, rng.randrange(3))]
        task = Task(
            id=task_id,
            service_id=rng.choice(["web", "db"]),
            service_name="x",
            slot=1,
            node_id=rng.choice(["", *NODES]),
            spec=TaskSpec(container_spec=ContainerSpec(secrets=references)),
            status=TaskStatus(state=rng.choice(states), healthy=rng.random() < 0.8),
            desired_state=rng.choice([TaskState.RUNNING, TaskState.SHUTDOWN]),
            networks=tuple(
                NetworkAttachment(network_id=id, addresses=(f"10.1.0.{rng.randrange(9)}/24",))
                for id in rng.sample(NETWORKS, rng.randrange(3))
            ),
        )
        self.put(tx, task)


def expect(view: View, node_id: str, knows: Knowledge) -> None:
    """The node knows what a look at the store alone says it should."""
    tasks = tasks_of_node(view, node_id, {})
    ingress = frozenset(network.id for network in view.all(Network) if network.spec.ingress)
    used = needs(tasks, ingress)
    node = view.get(Node, node_id)
    used.networks.update(each.network_id for each in (node.containers if node else ()))
    assert {id: decided(task) for id, task in knows.tasks.items()} == {
        id: decided(task) for id, task in tasks.items()
    }
    assert knows.secrets == {id for id in used.secrets if view.get(Secret, id)}
    assert knows.peers == peers(view)
    known = {id: records(view, id) for id in used.networks}
    assert knows.networks == {id: found.network for id, found in known.items() if found.network}
    assert knows.endpoints == {
        (id, task_id): record for id, found in known.items() for task_id, record in found.endpoints.items()
    }
    assert knows.services == {
        (id, service_id): record
        for id, found in known.items()
        for service_id, record in found.services.items()
    }


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), rounds=st.integers(1, 25))
def test_a_session_knows_what_the_store_says(seed: int, rounds: int) -> None:
    world = Random(seed)
    for _ in range(world.rng.randrange(5)):
        world.change()
    index = DataplaneIndex(world.view)
    told = {node_id: Told(node_id) for node_id in NODES}
    knows = {node_id: Knowledge() for node_id in NODES}
    touched = {node_id: Delta() for node_id in NODES}
    for _ in range(rounds):
        delta = _apply(world, index)
        for node_id in NODES:
            mine = touched[node_id]
            mine.networks |= delta.networks
            mine.peers |= delta.peers
            mine.endpoints |= delta.endpoints
            mine.services |= delta.services
            if world.rng.random() < 0.3:
                continue  # a congested session hears of it later
            message = told[node_id].next(world.view, index, {}, mine, tasks_touched=True)
            touched[node_id] = Delta()
            if message is not None:
                knows[node_id].apply(message)
            expect(world.view, node_id, knows[node_id])


def _apply(world: Random, index: DataplaneIndex) -> Delta:
    events = world.change()
    return index.apply(world.view, events)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_index_is_what_a_computation_from_scratch_gives(seed: int) -> None:
    world = Random(seed)
    index = DataplaneIndex(world.view)
    for _ in range(40):
        _apply(world, index)
        fresh = DataplaneIndex(world.view)
        assert index.networks == fresh.networks
        assert index.peers == fresh.peers
        for network_id in NETWORKS:
            found = records(world.view, network_id)
            known = index.networks.get(network_id)
            assert (known.endpoints if known else {}) == found.endpoints
            assert (known.services if known else {}) == found.services
