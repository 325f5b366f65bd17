"""What must hold at every moment of a job, whatever the order in which things happen."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.defaults import stored_service
from cluster.objects import JobStatus, Node, Service, Task
from cluster.seams import SECOND
from cluster.spec import (
    ContainerSpec,
    GlobalJobMode,
    ReplicatedJobMode,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from cluster.states import Availability, NodeState, TaskState
from manager.api.services import respecified, rolled_back
from manager.orchestrator.job import of_iteration
from manager.orchestrator.situation import Situation, stopped
from manager.store import Transaction
from tests.fakes.world import World


def job(total: int, at_once: int, run: int = 0) -> ServiceSpec:
    mode = ReplicatedJobMode(max_concurrent=at_once, total_completions=total)
    return ServiceSpec(
        name="batch",
        mode=ServiceMode(replicated_job=mode),
        task_template=TaskSpec(
            container_spec=ContainerSpec(image="v1"),
            restart_policy=RestartPolicy(delay=SECOND),
            force_update=run,
        ),
    )


def started(spec: ServiceSpec, seed: int) -> World:
    world = World(seed)
    for name in ("a", "b", "c"):
        world.node(name)
    world.service(spec)
    return world


def present(world: World) -> list[Task]:
    service = world.view.get(Service, "batch")
    assert service is not None
    return [task for task in world.tasks("batch") if of_iteration(service, task)]


def done(world: World) -> dict[int, set[str]]:
    """The completed tasks of each slot."""
    found: dict[int, set[str]] = {}
    for task in present(world):
        if task.status.state == TaskState.COMPLETE:
            found.setdefault(task.slot, set()).add(task.id)
    return found


def alive(world: World) -> list[Task]:
    """Tasks, of any iteration, whose containers may run."""
    service = world.view.get(Service, "batch")
    assert service is not None
    nodes = {node: world.view.get(Node, node) for node in "abc"}
    situation = Situation(
        service,
        tuple(world.tasks("batch")),
        {name: node for name, node in nodes.items() if node is not None},
        world.view.index,
        world.now,
        world.factory,
    )
    return [task for task in world.tasks("batch") if not stopped(situation, task)]


def step(world: World, rng: random.Random, nodes_fail: bool) -> None:
    """One small thing happens."""
    tasks = world.tasks("batch")
    match rng.randrange(7 if nodes_fail else 5):
        case 0:
            world.tick()
        case 1:
            world.schedule()
        case 2 if tasks:
            world.obey(rng.choice(tasks))
        case 3:
            world.now += rng.randrange(SECOND)
        case 4:
            running = [
                task
                for task in tasks
                if task.status.state == TaskState.RUNNING and ready(world, task.node_id)
            ]
            if running:
                world.report(rng.choice(running), rng.choice([TaskState.COMPLETE, TaskState.FAILED]))
        case 5:
            world.set_node(rng.choice("abc"), rng.choice([NodeState.DOWN, NodeState.READY]))
        case 6:
            world.set_node(rng.choice("abc"), to=rng.choice(list(Availability)))


def ready(world: World, node_id: str) -> bool:
    node = world.view.get(Node, node_id)
    return node is not None and node.status.state == NodeState.READY


def finish(world: World) -> None:
    """All nodes are back, and tasks complete until nothing is left to do."""
    for name in "abc":
        world.set_node(name, NodeState.READY, Availability.ACTIVE)
    for _ in range(200):
        world.advance(2)
        running = [task for task in world.running("batch") if of_iteration_of(world, task)]
        if not running:
            break
        for task in running:
            world.report(task, TaskState.COMPLETE)
    world.advance(100)


def of_iteration_of(world: World, task: Task) -> bool:
    return any(task.id == other.id for other in present(world))


@settings(max_examples=120, deadline=None)
@given(
    total=st.integers(0, 6),
    at_once=st.integers(1, 4),
    runs=st.integers(1, 3),
    nodes_fail=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_each_slot_is_done_once_and_never_too_many_at_a_time(
    total: int, at_once: int, runs: int, nodes_fail: bool, seed: int
) -> None:
    rng = random.Random(seed)
    world = started(job(total, at_once), seed)
    for run in range(runs):
        world.service(job(total, at_once, run))
        before: dict[int, set[str]] = {}
        for _ in range(rng.randrange(120)):
            known = {task.id for task in present(world)}
            step(world, rng, nodes_fail)
            made = [task for task in present(world) if task.id not in known]
            assert not {task.slot for task in made} & set(before), "a completed slot ran again"
            assert len(alive(world)) <= at_once or nodes_fail, "too many at once"
            running = [task.slot for task in alive(world) if task.status.state == TaskState.RUNNING]
            assert len(running) == len(set(running)) or nodes_fail, "two of a slot run at once"
            after = done(world)
            assert all(ids <= after.get(slot, set()) for slot, ids in before.items()), "a completion was lost"
            before = after
    finish(world)
    assert sorted(done(world)) == list(range(1, total + 1))
    if not nodes_fail:
        assert all(len(ids) == 1 for ids in done(world).values()), "work was done twice"
    assert not alive(world)
    steps = len(world.steps)
    world.advance(3600)
    assert world.steps[steps:] == [], "at rest nothing is done"
    history: dict[int, list[Task]] = {}
    for task in world.tasks("batch"):
        history.setdefault(task.slot, []).append(task)
    assert all(len(tasks) <= 6 for tasks in history.values())


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), runs=st.integers(1, 2))
def test_a_global_job_completes_once_on_every_node(seed: int, runs: int) -> None:
    rng = random.Random(seed)
    base = ServiceSpec(
        name="batch",
        mode=ServiceMode(global_job=GlobalJobMode()),
        task_template=TaskSpec(restart_policy=RestartPolicy(delay=SECOND)),
    )
    world = started(base, seed)
    for run in range(runs):
        world.service(replace(base, task_template=replace(base.task_template, force_update=run)))
        for _ in range(rng.randrange(100)):
            step(world, rng, nodes_fail=True)
    finish(world)
    completed = [task for task in present(world) if task.status.state == TaskState.COMPLETE]
    assert sorted(task.node_id for task in completed) == ["a", "b", "c"]
    steps = len(world.steps)
    world.advance(3600)
    assert world.steps[steps:] == []


def test_an_unchanged_spec_does_not_run_again() -> None:
    service = Service(id="batch", spec=job(1, 1), job_status=JobStatus(job_iteration=3, last_execution=7))
    assert respecified(service, job(1, 1), 9).job_status == service.job_status
    again = respecified(service, job(1, 1, run=1), 9)
    assert again.job_status == JobStatus(job_iteration=4, last_execution=9)
    back = rolled_back(again, 0, 11)
    assert back.job_status == JobStatus(job_iteration=5, last_execution=11)
    assert back.spec == service.spec
    assert back.update_status is None


def test_nothing_replaces_what_completed_meanwhile() -> None:
    world = started(job(1, 1), 0)
    world.work()
    (task,) = present(world)
    world.set_node(task.node_id, NodeState.DOWN)
    late = world.decide()
    world.report(task, TaskState.COMPLETE)
    for write in late.writes():
        tx = Transaction(world.view)
        write(tx)
        assert not tx.changes(), "it would have run again"

    # Nor is a task made for an execution that is over.
    world.service(job(2, 2, run=1))
    late = world.decide()
    world.service(job(2, 2, run=2))
    for write in late.writes():
        tx = Transaction(world.view)
        write(tx)
        assert not tx.changes()


def test_what_a_job_does_not_say() -> None:
    def stored(mode: ReplicatedJobMode) -> ReplicatedJobMode | None:
        return stored_service(ServiceSpec(mode=ServiceMode(replicated_job=mode))).mode.replicated_job

    assert stored(ReplicatedJobMode()) == ReplicatedJobMode(max_concurrent=1, total_completions=1)
    three = ReplicatedJobMode(max_concurrent=3)
    assert stored(three) == ReplicatedJobMode(max_concurrent=3, total_completions=3)
    none = ReplicatedJobMode(max_concurrent=3, total_completions=0)
    assert stored(none) == none
