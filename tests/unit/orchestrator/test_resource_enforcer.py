"""A node that comes back smaller than what its tasks reserve."""

from msgspec.structs import replace

from cluster.objects import Node, Task
from cluster.seams import SECOND
from cluster.spec import (
    DiscreteResource,
    GenericResource,
    NamedResource,
    ReplicatedMode,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from cluster.states import Availability, TaskState
from tests.fakes.world import World

MIB = 1 << 20
CORE = 1_000_000_000


def discrete(kind: str, value: int) -> GenericResource:
    return GenericResource(discrete_resource_spec=DiscreteResource(kind=kind, value=value))


def named(kind: str, value: str) -> GenericResource:
    return GenericResource(named_resource_spec=NamedResource(kind=kind, value=value))


def sized(world: World, name: str, resources: Resources) -> None:
    node = world.view.get(Node, name)
    assert node is not None
    world.put(replace(node, description=replace(node.description, resources=resources)))


def world(reserved: Resources, replicas: int = 3) -> World:
    """All tasks are on node a."""
    made = World()
    made.node("a")
    sized(made, "a", Resources(nano_cpus=4 * CORE, memory_bytes=400 * MIB))
    spec = ServiceSpec(
        name="web",
        mode=ServiceMode(replicated=ReplicatedMode(replicas=replicas)),
        task_template=TaskSpec(
            resources=ResourceRequirements(reservations=reserved),
            restart_policy=RestartPolicy(delay=SECOND),
        ),
    )
    made.service(spec)
    made.work()
    return made


def kept(of: World) -> list[int]:
    """The slots of the tasks that stay on node a."""
    return sorted(t.slot for t in of.tasks() if t.node_id == "a" and not t.desired_state.stops)


def reasons(of: World) -> set[str]:
    return {task.stopped_because for task in of.tasks() if task.desired_state.stops}


def test_the_oldest_stay_and_the_others_move() -> None:
    of = world(Resources(memory_bytes=100 * MIB))
    sized(of, "a", Resources(nano_cpus=4 * CORE, memory_bytes=250 * MIB))
    of.node("b")
    sized(of, "b", Resources(memory_bytes=400 * MIB))
    of.settle()
    assert kept(of) == [1, 2]
    assert reasons(of) == {"node a has no longer the memory that it reserves"}
    of.work()
    assert [task.node_id for task in of.running() if task.slot == 3] == ["b"]
    assert all(task.status.state == TaskState.SHUTDOWN for task in of.tasks() if task.desired_state.stops)


def test_processors() -> None:
    of = world(Resources(nano_cpus=CORE))
    sized(of, "a", Resources(nano_cpus=CORE, memory_bytes=400 * MIB))
    of.settle()
    assert kept(of) == [1]
    assert reasons(of) == {"node a has no longer the processors that it reserves"}


def test_generic_resources_by_name_and_by_number() -> None:
    of = world(Resources(), replicas=4)
    given = [(named("gpu", "one"),), (named("gpu", "two"),), (discrete("ssd", 2),), (discrete("ssd", 2),)]
    for task, resources in zip(of.tasks(), given, strict=True):
        of.put(replace(task, generic_resources=resources))
    whole = [named("gpu", "one"), named("gpu", "two"), discrete("ssd", 4)]
    sized(of, "a", Resources(generic_resources=whole))
    of.settle()
    assert kept(of) == [1, 2, 3, 4]
    sized(of, "a", Resources(generic_resources=[named("gpu", "two"), discrete("ssd", 3)]))
    of.settle()
    assert kept(of) == [2, 3]


def test_a_paused_node_keeps_its_tasks() -> None:
    of = world(Resources(memory_bytes=100 * MIB))
    of.set_node("a", to=Availability.PAUSE)
    sized(of, "a", Resources())
    of.settle()
    assert kept(of) == [1, 2, 3]
    of.set_node("a", to=Availability.ACTIVE)
    of.settle()
    assert kept(of) == []


def test_completed_tasks_reserve_nothing() -> None:
    of = world(Resources(memory_bytes=100 * MIB))
    first: Task = of.tasks()[0]
    of.report(first, TaskState.COMPLETE)
    sized(of, "a", Resources(memory_bytes=200 * MIB))
    of.tick()
    assert [task.slot for task in of.tasks() if task.desired_state.stops] == [1]
