"""What nodes are told of encrypted networks: epochs and keys, and nothing at all where they can't encrypt."""

from msgspec.structs import replace

from cluster.dataplane import DataplaneChanges
from cluster.objects import (
    Cluster,
    KeyEpochs,
    Network,
    NetworkAttachment,
    Node,
    NodeDescription,
    NodeEncryption,
    NodeStatus,
    Subnet,
    Task,
    TaskStatus,
)
from cluster.spec import NetworkSpec
from cluster.states import NodeState, TaskState
from manager.dispatcher.assignments import Told
from manager.dispatcher.dataplane import DataplaneIndex, Delta
from manager.scheduler import filters
from manager.scheduler.decide import confirm, decide
from manager.scheduler.nodes import NodeTable
from manager.store import Transaction, View

CLUSTER = Cluster(id="c", key_epochs=KeyEpochs(newest=3, oldest=3))
NETWORKS = [
    Network(
        id=name,
        spec=NetworkSpec(name=name, options=options),
        subnets=(Subnet(subnet=f"10.0.{i}.0/24", gateway=f"10.0.{i}.1"),),
        vni=4096 + i,
    )
    for i, (name, options) in enumerate({"plain": {}, "vault": {"encrypted": ""}}.items())
]


def node(id: str, method: str) -> Node:
    said = NodeEncryption(
        method=method, keys={3: f"key-of-{id}"} if method else {}, trouble="" if method else "no"
    )
    return Node(
        id=id,
        description=NodeDescription(encryption=said),
        status=NodeStatus(state=NodeState.READY, address="192.0.2.1"),
    )


def task(id: str, on: str) -> Task:
    places = tuple(
        NetworkAttachment(network_id=network.id, addresses=(f"10.0.{i}.9/24",))
        for i, network in enumerate(NETWORKS)
    )
    return Task(id=id, node_id=on, networks=places, status=TaskStatus(state=TaskState.ASSIGNED))


def view() -> View:
    tx = Transaction(View.empty())
    for each in (
        CLUSTER,
        *NETWORKS,
        node("able", "kernel"),
        node("old", ""),
        task("t1", "able"),
        task("t2", "old"),
    ):
        tx.create(each)  # type: ignore[arg-type]
    return tx.commit(1, 0)[0]


def told(index: DataplaneIndex, state: View, told: Told, touched: Delta) -> DataplaneChanges:
    message = told.next(state, index, {}, touched, tasks_touched=True)
    assert message is not None
    return message.dataplane


def test_epochs_and_keys_reach_who_can_encrypt() -> None:
    state = view()
    index = DataplaneIndex(state)
    able, old = Told("able"), Told("old")
    changes = told(index, state, able, Delta())
    assert {network.id: network.key_epochs for network in changes.networks} == {"plain": (), "vault": (3,)}
    assert {peer.node_id: peer.keys for peer in changes.peers} == {"able": {3: "key-of-able"}, "old": {}}
    # An older version would make a plain network of it.
    assert [network.id for network in told(index, state, old, Delta()).networks] == ["plain"]

    tx = Transaction(state)
    cluster = tx.cluster()
    assert cluster is not None
    tx.update(replace(cluster, key_epochs=KeyEpochs(newest=4, oldest=3)))
    state, events = tx.commit(2, 1)
    touched = index.apply(state, events)
    assert touched.networks == {"vault"}
    (record,) = told(index, state, able, touched).networks
    assert record.key_epochs == (3, 4)


def test_tasks_go_only_where_networks_can_be_encrypted() -> None:
    state = view()
    table = NodeTable(state.all(Node), (), state.all(Network))
    needs = filters.Requirements.of(task("t3", ""), table.drivers, table.encrypted)
    refusals = {info.node.id: filters.refusal(info, needs) for info in table}
    assert refusals == {"able": None, "old": filters.ENCRYPTION}
    said = "no suitable node (encrypted networks not possible on 1 node: no)"
    assert confirm(table, replace(task("t3", "old"), networks=task("t3", "").networks)).explanation == said
    lacking = NodeTable((node("old", ""), node("older", "")), (), state.all(Network))
    words = "encrypted networks not possible on 2 nodes: no"
    assert decide(lacking, [task("t3", "")], 0).explanation == f"no suitable node ({words})"
    several = filters.explain({filters.ENCRYPTION: 3, filters.READY: 1}, ("b " * 99, "a c", "z"))
    assert several == (
        "no suitable node (encrypted networks not possible on 3 nodes: "
        f"a c, and {' '.join('b' * 79)} …; "
        "1 node not available for new tasks)"
    )
