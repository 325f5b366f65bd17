"""No two tasks of one slot run where that was promised; a node that is cut off stops counting."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.objects import Task
from cluster.seams import SECOND
from cluster.spec import (
    ContainerSpec,
    GlobalMode,
    ReplicatedMode,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from cluster.states import Availability, NodeState, TaskState
from manager.dispatcher.liveness import MISSED, Liveness
from shoal.playground.layout import CLIENT
from tests.fakes.world import World
from tests.guarantees.hosts import Connection, Place, answers
from tests.support.cluster import Cluster, Json, eventually

NODES = ("a", "b", "c")


def stop_first(replicas: int, image: str, everywhere: bool) -> ServiceSpec:
    replicated = ServiceMode(replicated=ReplicatedMode(replicas=replicas))
    return ServiceSpec(
        name="web",
        mode=ServiceMode(global_=GlobalMode()) if everywhere else replicated,
        task_template=TaskSpec(
            container_spec=ContainerSpec(image=image), restart_policy=RestartPolicy(delay=SECOND)
        ),
        update_config=UpdateConfig(parallelism=2, order="stop-first", failure_action="continue"),
        rollback_config=UpdateConfig(parallelism=2, order="stop-first"),
    )


class Slots:
    """A world in which everything happens, and a look at each slot after each step."""

    def __init__(self, rng: random.Random, everywhere: bool) -> None:
        self.rng, self.everywhere = rng, everywhere
        self.world = World(rng.randrange(1000))
        self.replicas, self.image = 3, "v1"
        for name in NODES:
            self.world.node(name)
        self.world.service(stop_first(3, "v1", everywhere))
        self.world.work()
        self.cut_off: set[str] = set()

    def step(self) -> None:
        world, rng = self.world, self.rng
        match rng.randrange(11):
            case 0 | 1 | 2:
                world.tick()
            case 3 | 4:
                world.schedule()
            case 5 | 6 | 7:
                if tasks := world.tasks():
                    world.obey(rng.choice(tasks))
            case 8:
                world.now += rng.randrange(2 * SECOND)
            case 9:
                if live := [task for task in world.tasks() if self.lives(task)]:
                    world.report(rng.choice(live), rng.choice([TaskState.FAILED, TaskState.COMPLETE]))
            case 10:
                self.operate()

    def operate(self) -> None:
        """An operator's command, or a node that is lost or returns."""
        world, rng = self.world, self.rng
        match rng.randrange(4):
            case 0:
                self.replicas = rng.randrange(5)
                world.service(stop_first(self.replicas, self.image, self.everywhere))
            case 1:
                self.image = rng.choice(["v1", "v2", "v3"])
                world.service(stop_first(self.replicas, self.image, self.everywhere))
            case 2:
                world.set_node(rng.choice(NODES), to=rng.choice(list(Availability)))
            case 3:
                name, state = rng.choice(NODES), rng.choice([NodeState.DOWN, NodeState.READY])
                world.set_node(name, state)
                if state == NodeState.DOWN:
                    self.cut_off |= {task.id for task in world.tasks() if task.node_id == name}

    @staticmethod
    def lives(task: Task) -> bool:
        """Whether the task's container runs, as its agent sees it."""
        return TaskState.STARTING <= task.status.state <= TaskState.RUNNING

    def check(self) -> None:
        live = [task for task in self.world.tasks() if self.lives(task) and task.id not in self.cut_off]
        slots = [task.slot or task.node_id for task in live]
        assert len(slots) == len(set(slots)), [
            (t.id, t.slot, t.node_id, t.status.state, t.desired_state) for t in live
        ]


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), everywhere=st.booleans())
def test_on_nodes_within_reach_stop_first_never_overlaps(seed: int, everywhere: bool) -> None:
    """Slots of replicated services; nodes, for global ones."""
    slots = Slots(random.Random(seed), everywhere)
    for _ in range(slots.rng.randrange(20, 160)):
        slots.step()
        slots.check()


@settings(max_examples=200, deadline=None)
@given(
    period=st.sampled_from([SECOND, 2 * SECOND, 10 * SECOND]),
    heard=st.lists(st.integers(0, 5 * SECOND), max_size=20),
    seed=st.integers(0, 2**32),
)
def test_a_node_is_given_up_three_to_three_and_a_tenth_periods_after_it_was_last_heard(
    period: int, heard: list[int], seed: int
) -> None:
    liveness, now = Liveness(random.Random(seed)), 0
    liveness.opened("n", period, now)
    for pause in heard:
        if pause < MISSED * period:
            now += pause
            assert liveness.expired(now) == []
            liveness.heard("n", now)
    assert liveness.expired(now + MISSED * period - 1) == []
    assert liveness.expired(now + MISSED * period + period // 10) == ["n"]


@pytest.mark.playground
def test_a_cut_off_node_is_replaced_only_when_it_is_down_and_stops_what_was_replaced(
    cluster: Cluster,
) -> None:
    echo = ("--", "nc", "-ll", "-p", "80", "-e", "cat")
    cluster.docker("network", "create", "--driver", "overlay", "net")
    (watcher,) = cluster.run("watcher", "--constraint", "node.hostname==host1", "--network", "net")
    options = ("--constraint", "node.hostname!=host1", "--network", "net", "--publish", "7000:80")
    (old,) = cluster.run("web", *options, *echo)
    place, inside = Place.of(cluster, old), Place.of(cluster, watcher)
    away = place.host
    other = next(host for host in ("host2", "host3") if host != away)
    cluster.playground.partition(away, [host for host in cluster.hosts if host != away])
    try:
        new = cluster.replaced("web", old)
        node: Json = cluster.nodes()[away]
        assert node["Status"]["State"] == "down"
        assert new["CreatedAt"] >= node["UpdatedAt"], "it was replaced before the node counted as down"
        assert cluster.host_of(new) == other
        assert place.lives, "Shoal stops nothing on a node that it can't reach: it may serve others there"
        # It counts no more: not in names, not behind the virtual IP and the published port.
        successor = cluster.container(new)["NetworkSettings"]["Networks"]["net"]["IPAddress"]
        eventually(
            "names lead to the successor only",
            lambda: _addresses(inside, "tasks.web") == {successor},
        )
        for _ in range(4):
            assert answers(lambda: Connection(cluster, CLIENT, [], cluster.address(other), 7000))
    finally:
        cluster.playground.heal()
    eventually("the returned node has stopped it", lambda: not place.lives)
    assert [task["ID"] for task in cluster.running("web", 1)] == [new["ID"]]


def _addresses(place: Place, name: str) -> set[str]:
    lines = place.enter(f"nslookup {name}").stdout.splitlines()
    found = [line.split()[-1] for line in lines if line.startswith("Address")]
    return set(found[1:])  # the first is the name server's
