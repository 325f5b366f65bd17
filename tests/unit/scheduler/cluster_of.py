"""Nodes and tasks, short to write."""

from cluster.objects import Endpoint, Node, NodeDescription, NodeStatus, Task, TaskStatus
from cluster.spec import (
    GenericResource,
    NodeSpec,
    Placement,
    PlacementPreference,
    Platform,
    PortConfig,
    ResourceRequirements,
    Resources,
    SpreadOver,
    TaskSpec,
)
from cluster.states import Availability, NodeState, TaskState

GIB = 1 << 30
CORE = 1_000_000_000


def node(
    id: str,
    *,
    cpus: int = 4,
    memory: int = 8 * GIB,
    labels: dict[str, str] | None = None,
    state: NodeState = NodeState.READY,
    availability: Availability = Availability.ACTIVE,
    architecture: str = "x86_64",
    generic: list[GenericResource] | None = None,
) -> Node:
    """A ready node."""
    return Node(
        id=id,
        spec=NodeSpec(labels=labels, availability=availability),
        description=NodeDescription(
            hostname=id,
            platform=Platform(architecture=architecture, os="linux"),
            resources=Resources(nano_cpus=cpus * CORE, memory_bytes=memory, generic_resources=generic),
        ),
        status=NodeStatus(state=state, address="10.0.0.1"),
    )


def task(
    id: str,
    service: str = "s",
    *,
    node_id: str = "",
    state: TaskState = TaskState.PENDING,
    desired: TaskState = TaskState.RUNNING,
    cpus: float = 0,
    memory: int = 0,
    constraints: list[str] | None = None,
    spread: tuple[str, ...] = (),
    max_replicas: int = 0,
    platforms: list[Platform] | None = None,
    host_port: int = 0,
    generic: list[GenericResource] | None = None,
    slot: int = 1,
) -> Task:
    """A task, pending unless said otherwise."""
    ports = (PortConfig(target_port=80, published_port=host_port, publish_mode="host"),) if host_port else ()
    return Task(
        id=id,
        service_id=service,
        service_name=service,
        slot=slot,
        node_id=node_id,
        spec_version=1,
        desired_state=desired,
        status=TaskStatus(state=state, message="pending task scheduling"),
        endpoint=Endpoint(ports=ports),
        spec=TaskSpec(
            resources=ResourceRequirements(
                reservations=Resources(
                    nano_cpus=int(cpus * CORE), memory_bytes=memory, generic_resources=generic
                )
            ),
            placement=Placement(
                constraints=constraints,
                preferences=[PlacementPreference(spread=SpreadOver(spread_descriptor=key)) for key in spread],
                max_replicas=max_replicas,
                platforms=platforms,
            ),
        ),
    )
