"""Where tasks go, filter by filter and rank by rank, and what always holds."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.objects import Task
from cluster.seams import SECOND
from cluster.spec import DiscreteResource, GenericResource, NamedResource, Platform
from cluster.states import Availability, NodeState, TaskState
from manager.scheduler import Decision, NodeTable, confirm, decide
from tests.unit.scheduler.cluster_of import CORE, GIB, node, task


def where(decision: Decision) -> Counter[str]:
    return Counter(placement.node_id for placement in decision.placements)


def many(count: int, **settings: object) -> list[Task]:
    return [task(f"t{number:03}", **settings) for number in range(count)]


def test_tasks_spread_over_the_nodes() -> None:
    table = NodeTable([node("a"), node("b"), node("c")])
    assert where(decide(table, many(7), 0)) == {"a": 3, "b": 2, "c": 2}


def test_fewest_of_this_service_comes_before_fewest_in_all() -> None:
    table = NodeTable(
        [node("a"), node("b")],
        [
            task("x", "s", node_id="a", state=TaskState.RUNNING),
            *(task(f"y{i}", "other", node_id="b", state=TaskState.RUNNING) for i in range(5)),
        ],
    )
    assert where(decide(table, many(1), 0)) == {"b": 1}
    assert where(decide(table, many(1, service="third"), 0)) == {"a": 1}


def test_a_task_that_should_stop_weighs_no_more_but_holds_until_it_ended() -> None:
    stopping = task(
        "x", node_id="a", state=TaskState.RUNNING, desired=TaskState.SHUTDOWN, cpus=4, host_port=80
    )
    assert where(decide(NodeTable([node("a"), node("b")], [stopping]), many(1), 0)) == {"a": 1}
    table = NodeTable([node("a")], [stopping])
    assert where(decide(table, many(1), 0)) == {"a": 1}
    assert (
        decide(table, many(1, cpus=1), 0).explanation == "no suitable node (insufficient resources on 1 node)"
    )
    assert (
        decide(table, many(1, host_port=80), 0).explanation
        == "no suitable node (host-mode port already in use on 1 node)"
    )
    table.drop_task("x")
    assert where(decide(table, many(1, cpus=1, host_port=80), 0)) == {"a": 1}


def test_each_refusal_is_counted_and_said() -> None:
    table = NodeTable(
        [
            node("a", labels={"disk": "hdd"}),
            node("b", labels={"disk": "hdd"}),
            node("c"),
            node("d", labels={"disk": "ssd"}, cpus=1),
            node("e", state=NodeState.DOWN),
            node("f", availability=Availability.DRAIN),
        ]
    )
    decision = decide(table, many(1, cpus=2, constraints=["node.labels.disk==ssd"]), 0)
    assert decision.explanation == (
        "no suitable node (scheduling constraints not satisfied on 3 nodes; "
        "2 nodes not available for new tasks; insufficient resources on 1 node)"
    )
    assert [one.id for one in decision.unplaced] == ["t000"]


def test_nodes_that_fill_up_on_the_way_are_counted_too() -> None:
    table = NodeTable([node("a", cpus=2), node("b", cpus=1), node("c", state=NodeState.DOWN)])
    decision = decide(table, many(5, cpus=1), 0)
    assert where(decision) == {"a": 2, "b": 1}
    assert len(decision.unplaced) == 2
    assert decision.explanation == (
        "no suitable node (insufficient resources on 2 nodes; 1 node not available for new tasks)"
    )


def test_no_nodes_at_all() -> None:
    assert decide(NodeTable(), many(1), 0).explanation == "no suitable node"


@pytest.mark.parametrize(
    ("asked", "offered", "fits"),
    [("amd64", "x86_64", True), ("arm64", "aarch64", True), ("arm64", "x86_64", False), ("", "x86_64", True)],
)
def test_platform_aliases(asked: str, offered: str, fits: bool) -> None:
    table = NodeTable([node("a", architecture=offered)])
    decision = decide(table, many(1, platforms=[Platform(architecture=asked, os="linux")]), 0)
    assert bool(decision.placements) is fits
    if not fits:
        assert decision.explanation == "no suitable node (unsupported platform on 1 node)"


def test_host_ports_are_taken_once_per_node() -> None:
    decision = decide(NodeTable([node("a"), node("b")]), many(3, host_port=8080), 0)
    assert where(decision) == {"a": 1, "b": 1}
    assert decision.explanation == "no suitable node (host-mode port already in use on 2 nodes)"


def test_max_replicas_per_node() -> None:
    table = NodeTable([node("a"), node("b")], [task("x", node_id="a", state=TaskState.RUNNING)])
    decision = decide(table, many(4, max_replicas=2), 0)
    assert where(decision) == {"a": 1, "b": 2}
    assert decision.explanation == "no suitable node (max replicas per node limit exceed)"


def test_preferences_spread_over_label_values_first() -> None:
    table = NodeTable(
        [
            node("a1", labels={"dc": "a"}),
            node("a2", labels={"dc": "a"}),
            node("a3", labels={"dc": "a"}),
            node("b1", labels={"dc": "b"}),
            node("none"),
        ]
    )
    placed = where(decide(table, many(12, spread=("node.labels.dc",)), 0))
    assert placed == {"a1": 2, "a2": 1, "a3": 1, "b1": 4, "none": 4}


def test_nested_preferences() -> None:
    table = NodeTable(
        [
            node("a1", labels={"dc": "a", "rack": "1"}),
            node("a2", labels={"dc": "a", "rack": "2"}),
            node("a3", labels={"dc": "a", "rack": "2"}),
            node("b1", labels={"dc": "b", "rack": "1"}),
        ]
    )
    placed = where(decide(table, many(8, spread=("node.labels.dc", "node.labels.rack")), 0))
    assert placed == {"a1": 2, "a2": 1, "a3": 1, "b1": 4}


def test_a_branch_without_room_leaves_its_share_to_the_others() -> None:
    table = NodeTable([node("a", labels={"dc": "a"}, cpus=1), node("b", labels={"dc": "b"}, cpus=8)])
    assert where(decide(table, many(6, cpus=1, spread=("node.labels.dc",)), 0)) == {"a": 1, "b": 5}


def test_a_full_node_still_weighs_in_its_branch() -> None:
    table = NodeTable(
        [
            node("a1", labels={"dc": "a"}, availability=Availability.PAUSE),
            node("a2", labels={"dc": "a"}),
            node("b", labels={"dc": "b"}),
        ],
        [task(f"x{i}", node_id="a1", state=TaskState.RUNNING) for i in range(3)],
    )
    assert where(decide(table, many(4, spread=("node.labels.dc",)), 0)) == {"a2": 1, "b": 3}


def test_a_node_where_the_service_keeps_failing_comes_last_for_five_minutes() -> None:
    table = NodeTable([node("a"), node("b")])
    for number in range(5):
        table.task_failed(task(f"x{number}", node_id="a"), number * SECOND)
    assert where(decide(table, many(4), 10 * SECOND)) == {"b": 4}
    assert where(decide(table, many(4, service="other"), 10 * SECOND)) == {"a": 2, "b": 2}
    assert where(decide(table, many(4), 301 * SECOND)) == {"a": 2, "b": 2}


def test_generic_resources_are_given_by_name() -> None:
    gpus = [
        GenericResource(named_resource_spec=NamedResource(kind="gpu", value=name))
        for name in ("g1", "g2", "g3")
    ]
    counted = GenericResource(discrete_resource_spec=DiscreteResource(kind="slots", value=5))
    wanted = [
        GenericResource(discrete_resource_spec=DiscreteResource(kind="gpu", value=1)),
        GenericResource(discrete_resource_spec=DiscreteResource(kind="slots", value=2)),
    ]
    table = NodeTable([node("a", generic=[*gpus, counted])])
    decision = decide(table, many(3, generic=wanted), 0)
    assert [
        placement.generic_resources[0].named_resource_spec.value for placement in decision.placements
    ] == ["g1", "g2"]
    assert decision.placements[0].generic_resources[1] == wanted[1]
    assert decision.explanation == "no suitable node (insufficient resources on 1 node)"


def test_a_preassigned_task_is_only_filtered() -> None:
    table = NodeTable([node("a"), node("b", state=NodeState.DOWN)])
    assert where(confirm(table, task("t", node_id="a"))) == {"a": 1}
    assert confirm(table, task("t", node_id="b")).explanation == (
        "no suitable node (1 node not available for new tasks)"
    )
    assert "removed" in confirm(table, task("t", node_id="gone")).explanation


def test_an_unreadable_constraint_is_an_explanation() -> None:
    decision = decide(NodeTable([node("a")]), many(1, constraints=["nonsense"]), 0)
    assert "nonsense" in decision.explanation


nodes = st.lists(
    st.builds(
        lambda cpus, gib, dc, ready: (cpus, gib, dc, ready),
        st.integers(0, 8),
        st.integers(0, 8),
        st.sampled_from(["a", "b", ""]),
        st.sampled_from([True, True, True, False]),
    ),
    max_size=8,
).map(
    lambda shapes: [
        node(
            f"n{number}",
            cpus=cpus,
            memory=gib * GIB,
            labels={"dc": dc} if dc else None,
            state=NodeState.READY if ready else NodeState.DOWN,
        )
        for number, (cpus, gib, dc, ready) in enumerate(shapes)
    ]
)
groups = st.lists(
    st.fixed_dictionaries(
        {
            "count": st.integers(1, 12),
            "service": st.sampled_from(["s1", "s2", "s3"]),
            "cpus": st.integers(0, 3),
            "memory": st.integers(0, 3).map(lambda gib: gib * GIB),
            "max_replicas": st.integers(0, 3),
            "host_port": st.sampled_from([0, 0, 80, 81]),
            "spread": st.sampled_from([(), ("node.labels.dc",)]),
        }
    ),
    max_size=6,
)


@settings(deadline=None)
@given(nodes, groups)
def test_limits_are_never_exceeded_and_every_task_is_accounted_for(
    all_nodes: list[object], asked: list[dict[str, object]]
) -> None:
    table = NodeTable(all_nodes)
    for number, wanted in enumerate(asked):
        wanted = dict(wanted)
        group = [task(f"g{number}t{i}", **wanted) for i in range(wanted.pop("count"))]
        decision = decide(table, group, 0)
        assert decision == decide(table, group, 0)
        placed = [placement.task.id for placement in decision.placements]
        assert placed + [one.id for one in decision.unplaced] == [one.id for one in group]
        assert bool(decision.unplaced) is bool(decision.explanation)
        if decision.unplaced:
            assert sum(decision.refusals.values()) == len(table)
        for placement in decision.placements:
            table.put_task(
                task(placement.task.id, node_id=placement.node_id, state=TaskState.ASSIGNED, **wanted)
            )
        for info in table:
            on_node = list(info.tasks.values())
            resources = [one.spec.resources.reservations for one in on_node]
            assert sum(one.nano_cpus for one in resources) <= info.node.description.resources.nano_cpus
            assert sum(one.memory_bytes for one in resources) <= info.node.description.resources.memory_bytes
            ports = [port.published_port for one in on_node for port in one.endpoint.ports]
            assert len(ports) == len(set(ports))
            if not on_node:
                continue
            assert info.node.status.state is NodeState.READY
            for placement in decision.placements:
                limit = placement.task.spec.placement.max_replicas
                if limit and placement.node_id == info.node.id:
                    assert info.active_by_service[placement.task.service_id] <= limit


@settings(deadline=None)
@given(st.integers(1, 10), st.integers(0, 40), st.randoms(use_true_random=False))
def test_a_service_is_spread_within_one(node_count: int, task_count: int, random: object) -> None:
    names = [f"n{number}" for number in range(node_count)]
    random.shuffle(names)
    table = NodeTable([node(name, cpus=CORE) for name in names])
    placed = where(decide(table, many(task_count), 0))
    counts = [placed[name] for name in names]
    assert sum(counts) == task_count
    assert max(counts) - min(counts) <= 1


@settings(deadline=None)
@given(
    nodes, st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from(TaskState)), max_size=40)
)
def test_the_table_after_many_changes_equals_one_made_anew(
    all_nodes: list[object], changes: list[tuple[int, int, TaskState]]
) -> None:
    table = NodeTable(all_nodes)
    latest = {}
    for number, on, state in changes:
        current = task(f"t{number}", node_id=f"n{on}", state=state, cpus=1, host_port=80 + number)
        if state is TaskState.REMOVE:
            latest.pop(current.id, None)
            table.drop_task(current.id)
        else:
            latest[current.id] = current
            table.put_task(current)
    anew = NodeTable(all_nodes, latest.values())
    for info in table:
        other = anew.get(info.node.id)
        assert info.tasks == other.tasks
        assert (info.free_cpus, info.active) == (other.free_cpus, other.active)
        assert +info.ports == +other.ports
        assert +info.active_by_service == +other.active_by_service


def test_a_generic_resource_that_is_asked_for_by_name() -> None:
    def gpu(name: str) -> GenericResource:
        return GenericResource(named_resource_spec=NamedResource(kind="gpu", value=name))

    two = node("a", generic=[gpu("one"), gpu("two")])
    table = NodeTable([node("b", generic=[gpu("one")]), two])
    asked = [task("t1", generic=[gpu("two")]), task("t2", generic=[gpu("two")])]
    decision = decide(table, asked, 0)
    (placement,) = decision.placements
    assert (placement.node_id, placement.generic_resources) == ("a", (gpu("two"),))
    assert decision.explanation == "no suitable node (insufficient resources on 2 nodes)"
    taken = replace(
        asked[0],
        node_id="a",
        generic_resources=(gpu("two"),),
        status=replace(asked[0].status, state=TaskState.RUNNING),
    )
    assert decide(NodeTable([two], [taken]), asked[1:], 0).placements == ()


def test_why_a_node_was_taken_is_told() -> None:
    nodes = [node("a", labels={"zone": "x"}), node("b", labels={"zone": "y"}), node("c", cpus=0)]
    table = NodeTable(nodes)
    wanted = task("t", cpus=1, spread=("node.labels.zone",))
    (placement,) = decide(table, [wanted], 0).placements
    assert placement.reason == (
        "2 of 3 nodes fitted; spread over node.labels.zone, then where fewest tasks of the service run comes "
        "first; this one has node.labels.zone=x; 0 ran here already"
    )
    for _ in range(5):
        table.task_failed(replace(wanted, node_id="a"), 0)
    (placement,) = decide(table, [task("u", cpus=1)], 0).placements
    assert placement.node_id == "b"
    assert placement.reason == (
        "2 of 3 nodes fitted, those where the service's tasks keep failing (1) come last; "
        "where fewest tasks of the service run comes first; 0 ran here already"
    )
