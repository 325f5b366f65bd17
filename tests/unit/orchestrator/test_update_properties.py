"""What must hold at every moment of an update, whatever the order in which things happen."""

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.objects import Service, Task
from cluster.seams import SECOND
from cluster.spec import (
    ContainerSpec,
    ReplicatedMode,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from cluster.states import Availability, NodeState, TaskState, UpdateState
from tests.fakes.world import World

orders = st.sampled_from(["stop-first", "start-first"])
configs = st.builds(
    UpdateConfig,
    parallelism=st.integers(0, 3),
    delay=st.sampled_from([0, SECOND]),
    order=orders,
    monitor=st.just(SECOND),
    failure_action=st.just("continue"),
)


def spec(replicas: int, image: str, config: UpdateConfig, delay: int = SECOND) -> ServiceSpec:
    return ServiceSpec(
        name="web",
        mode=ServiceMode(replicated=ReplicatedMode(replicas=replicas)),
        task_template=TaskSpec(
            container_spec=ContainerSpec(image=image), restart_policy=RestartPolicy(delay=delay)
        ),
        update_config=config,
    )


def started(replicas: int, config: UpdateConfig, seed: int = 0) -> World:
    world = World(seed)
    for name in ("a", "b", "c"):
        world.node(name)
    world.service(spec(replicas, "v1", config))
    world.work()
    assert len(world.running()) == replicas
    return world


def shuffle(world: World, rng: random.Random) -> None:
    """One small thing happens: a decision, a placement, an agent's step, or time."""
    match rng.randrange(4):
        case 0:
            world.tick()
        case 1:
            world.schedule()
        case 2:
            tasks = world.tasks()
            if tasks:
                world.obey(rng.choice(tasks))
        case 3:
            world.now += rng.randrange(SECOND)


@settings(max_examples=200, deadline=None)
@example(replicas=3, config=UpdateConfig(parallelism=1, monitor=SECOND), images=["v2", "v1", "v1"], seed=0)
@given(
    replicas=st.integers(1, 6),
    config=configs,
    images=st.lists(st.sampled_from(["v1", "v2", "v3"]), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_never_below_the_minimum_nor_above_the_surge(
    replicas: int, config: UpdateConfig, images: list[str], seed: int
) -> None:
    rng = random.Random(seed)
    world = started(replicas, config)
    at_once = config.parallelism or replicas
    start_first = config.order == "start-first"
    for image in images:
        world.service(spec(replicas, image, config))
        for _ in range(rng.randrange(60)):
            shuffle(world, rng)
            wanted = [task for task in world.tasks() if task.desired_state <= TaskState.RUNNING]
            surge = at_once if start_first else 0
            assert len(wanted) <= replicas + surge, "above the surge"
            serving = {task.slot for task in world.running()}
            assert len(serving) >= (replicas if start_first else replicas - at_once), "below the minimum"
    world.advance(60)
    assert {task.spec.container_spec.image for task in world.running()} == {images[-1]}  # type: ignore[union-attr]
    assert sorted(task.slot for task in world.running()) == list(range(1, replicas + 1))
    status = world.view.get(Service, "web").update_status  # type: ignore[union-attr]
    assert status is None or status.state == UpdateState.COMPLETED


def trouble(world: World, rng: random.Random) -> None:
    """Something goes wrong, or an operator does something."""
    match rng.randrange(5):
        case 0:
            tasks = [task for task in world.tasks() if not task.status.state.terminal and task.node_id]
            if tasks:
                state = rng.choice([TaskState.FAILED, TaskState.COMPLETE, TaskState.REJECTED])
                world.report(rng.choice(tasks), state)
        case 1:
            world.set_node(rng.choice("abc"), rng.choice([NodeState.DOWN, NodeState.READY]))
        case 2:
            world.set_node(rng.choice("abc"), to=rng.choice(list(Availability)))
        case _:
            for _ in range(5):
                shuffle(world, rng)


@settings(max_examples=150, deadline=None)
@given(
    config=configs,
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    images=st.lists(st.sampled_from(["v1", "v2"]), min_size=4, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_after_any_trouble_the_service_is_what_its_spec_asks(
    config: UpdateConfig, sizes: list[int], images: list[str], seed: int
) -> None:
    rng = random.Random(seed)
    world = started(3, config)
    for size, image in zip(sizes, images, strict=False):
        world.service(spec(size, image, config))
        for _ in range(rng.randrange(40)):
            trouble(world, rng)
            for slot in {task.slot for task in world.tasks()}:
                wanted = [
                    task
                    for task in world.tasks()
                    if task.slot == slot and task.desired_state <= TaskState.RUNNING
                ]
                assert len(wanted) <= 2
    for name in "abc":
        world.set_node(name, NodeState.READY, Availability.ACTIVE)
    world.advance(600)
    assert len({task.slot for task in world.running()}) == sizes[-1]
    assert len(world.running()) == sizes[-1]
    history: dict[int, list[Task]] = {}
    for task in world.tasks():
        history.setdefault(task.slot, []).append(task)
    assert all(len(tasks) <= 5 for tasks in history.values())
    steps = len(world.steps)
    world.advance(3600)
    assert world.steps[steps:] == [], "at rest nothing is done"
