"""What a decision about one service may look at, and the words for it: slot, dirty, stopped, lost."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import msgspec

from cluster.ids import new_id
from cluster.objects import Cluster, Endpoint, Node, RestartHistory, Service, Task, TaskStatus
from cluster.seams import Random
from cluster.spec import DriverConfig, EndpointSpec, PortConfig, TaskSpec
from cluster.states import Availability, NodeState, TaskState, UpdateState
from manager.orchestrator.constraint_enforcer import unfit, violation


def task_spec(service: Service) -> TaskSpec:
    """The spec that the service's tasks should have; networks may be named at either place."""
    template = service.spec.task_template
    if template.networks is None and service.spec.networks:
        return msgspec.structs.replace(template, networks=service.spec.networks)
    return template


def iteration(service: Service) -> int | None:
    """Which execution of a job is the present one; None for services that are no jobs."""
    mode = service.spec.mode
    if mode.replicated_job is None and mode.global_job is None:
        return None
    return service.job_status.job_iteration if service.job_status else 0


def goal(service: Service) -> TaskState:
    """The desired state of a task that may start: a job's should complete, others should run."""
    return TaskState.RUNNING if iteration(service) is None else TaskState.COMPLETE


@dataclass(frozen=True)
class TaskFactory:
    """Makes tasks; `rng` gives their ids. `log_driver` is the cluster's, for specs that name none."""

    rng: Random
    log_driver: DriverConfig | None = None

    def of(self, cluster: Cluster | None) -> "TaskFactory":
        """The factory with the cluster's defaults for tasks."""
        defaults = cluster.spec.task_defaults if cluster else None
        return TaskFactory(self.rng, defaults.log_driver if defaults else None)

    def new_task(
        self,
        service: Service,
        now: int,
        *,
        slot: int = 0,
        node_id: str = "",
        wait: bool = False,
        not_before: int = 0,
        restarts: RestartHistory | None = None,
        because: str = "",
    ) -> Task:
        """A new task of a service, with copies of all that it needs of it. One that is to `wait` is placed
        and made ready, and started by a later decision. `because` says why it is made."""
        allocated = service.endpoint or Endpoint()
        endpoint = msgspec.structs.replace(allocated, spec=service.spec.endpoint_spec or EndpointSpec())
        return Task(
            id=new_id(self.rng),
            service_id=service.id,
            service_name=service.spec.name,
            service_labels=service.spec.labels or {},
            slot=slot,
            node_id=node_id,
            spec=task_spec(service),
            spec_version=service.spec_version,
            status=TaskStatus(state=TaskState.NEW, timestamp=now, message="created"),
            desired_state=TaskState.READY if wait else goal(service),
            endpoint=endpoint,
            job_iteration=iteration(service),
            log_driver=None if service.spec.task_template.log_driver else self.log_driver,
            registry_auth=service.registry_auth,
            not_before=not_before,
            restarts=restarts or RestartHistory(),
            created_because=because,
        )


@dataclass(frozen=True)
class Situation:
    """A service, its tasks in the order of their creation, the nodes, the version of the state that these are
    of, and the time (wall clock, ns)."""

    service: Service
    tasks: tuple[Task, ...]
    nodes: Mapping[str, Node]
    version: int
    now: int
    factory: TaskFactory

    @cached_property
    def _removed(self) -> tuple[Task, ...]:
        return tuple(
            task for task in self.tasks if task.desired_state >= TaskState.REMOVE and not stopped(self, task)
        )

    def dirty(self, task: Task) -> bool:
        """True when the task is not what the service's spec asks for now."""
        return dirty(self.service, task, self.nodes.get(task.node_id))

    def holder(self, number: int, node_id: str = "") -> Task | None:
        """A task that was removed from this place, as by scaling down, and has not stopped yet."""
        for task in self._removed:
            if task.slot == number and node_id in ("", task.node_id):
                return task
        return None


@dataclass(frozen=True)
class Slot:
    """One place of a service: a number, or a node for a global service. `tasks` are oldest first."""

    number: int
    node_id: str
    tasks: tuple[Task, ...]

    @property
    def name(self) -> str:
        """For sentences."""
        return f"slot {self.number}" if self.number else f"node {self.node_id}"

    @property
    def newest(self) -> Task:
        """The task made last."""
        return self.tasks[-1]

    @property
    def runnable(self) -> tuple[Task, ...]:
        """Tasks that should run or get ready to."""
        return tuple(task for task in self.tasks if not task.desired_state.stops)

    @property
    def running(self) -> bool:
        """True when one of them runs."""
        return any(task.status.state == TaskState.RUNNING for task in self.runnable)


def age(task: Task) -> tuple[int, int]:
    """Sorts tasks from the oldest to the newest. (Those of an older Shoal have no `created_version`.)"""
    return task.created_version, task.created_at


def group(tasks: Iterable[Task], key: Callable[[Task], tuple[int, str]]) -> dict[tuple[int, str], Slot]:
    """Tasks by slot, without those that are to be removed: these belong to no slot any more."""
    found: dict[tuple[int, str], list[Task]] = {}
    for task in tasks:
        if task.desired_state < TaskState.REMOVE:
            found.setdefault(key(task), []).append(task)
    return {
        place: Slot(place[0], place[1], tuple(sorted(members, key=age))) for place, members in found.items()
    }


def dirty(service: Service, task: Task, node: Node | None) -> bool:
    """True when the task is not what the service's spec asks for now.

    The replica count, labels and update settings make no task dirty, nor do ports published through the
    routing mesh, as long as the task is in it, nor another placement, as long as its `node` meets the
    constraints.
    """
    if task.spec_version and task.spec_version == service.spec_version:
        return False
    wanted = task_spec(service)
    if task.spec != wanted:
        placed = msgspec.structs.replace(wanted, placement=task.spec.placement)
        if task.spec != placed or node is None or unfit(wanted, node):
            return True
    if task.endpoint is None:
        return False
    return _bound(service.spec.endpoint_spec) != _bound(task.endpoint.spec)


def update_paused(service: Service) -> bool:
    """True while an update or roll-back waits for an operator."""
    status = service.update_status
    return status is not None and status.state in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED)


def _bound(spec: EndpointSpec | None) -> tuple[str, bool, tuple[PortConfig, ...]]:
    """What of an endpoint spec is built into a task: mode, being in the mesh, ports of its own host."""
    if spec is None:
        return "vip", False, ()
    ports = spec.ports or []
    host = tuple(port for port in ports if port.publish_mode == "host")
    return spec.mode or "vip", len(host) < len(ports), host


def stopped(situation: Situation, task: Task) -> bool:
    """True when the task holds nothing that its successor could collide with."""
    if task.status.state.terminal or not task.node_id:
        return True
    if task.status.state < TaskState.ASSIGNED and task.desired_state.stops:
        return True  # its node has never heard of it, and will not start it if it does
    node = situation.nodes.get(task.node_id)
    return node is None or node.status.state == NodeState.DOWN


def misplaced(situation: Situation, task: Task) -> str:
    """Why the task can't stay on its node, or "". A paused node keeps its tasks.

    A task that another placement left alone is held to that one: its own is of the past.
    """
    if not task.node_id:
        return ""
    placement = situation.service.spec.task_template.placement
    if task.spec.placement != placement and not situation.dirty(task):
        spec = msgspec.structs.replace(task.spec, placement=placement)
        task = msgspec.structs.replace(task, spec=spec)
    return misplaced_on(situation.nodes.get(task.node_id), task)


def misplaced_on(node: Node | None, task: Task) -> str:
    """Why the task can't stay on this node (None: it was removed), or ""."""
    if node is None:
        return f"node {task.node_id} was removed"
    name = node.description.hostname or node.id
    if node.status.state == NodeState.DOWN:
        return f"node {name} is down"
    if node.spec.availability == Availability.DRAIN:
        return f"node {name} is drained"
    return violation(task, node)
