"""What the cluster must have come to when faults and changes are over: the spec everywhere, nothing left."""

from typing import TYPE_CHECKING

from cluster.objects import Node, Service, Task
from cluster.states import Availability, NodeState, TaskState, UpdateState
from manager.keys.locks import lock_of
from manager.orchestrator.job import is_job, of_iteration
from manager.orchestrator.node_down import holds_addresses
from manager.orchestrator.replicated import is_replicated, replicas
from manager.orchestrator.replicated_job import is_replicated_job, total_completions
from manager.orchestrator.situation import dirty
from manager.store import View
from tests.simulator.checks import same
from tests.simulator.root_ca import ROOTS, Held

if TYPE_CHECKING:
    from tests.simulator.world import World

STEADY = ("steady", "slow", "stubborn")
PAUSED = (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED)
UNDER_WAY = (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)


def lacking(world: "World") -> str:
    """What is not yet as it should be; empty when the cluster has converged."""
    leader = world.leader()
    if leader is None or leader.core is None:
        return "there is no leader"
    if not world.all_ready():
        return "not every node is ready, or not every manager a member"
    view = leader.core.store.view()
    for node in world.cores():
        assert node.core is not None
        if node.core.store.view().index != view.index:
            return f"{node.name} is at {node.core.store.view().index}, the leader at {view.index}"
        if not same(node.core.store.view(), view):
            return f"{node.name} has another state than the leader"
    found = _locks(world, view) or _certificates(world, view) or _roles(world, view) or _tasks(world, view)
    return found or _services(world, view) or _machines(world, view)


def _locks(world: "World", view: View) -> str:
    cluster = view.cluster()
    assert cluster is not None
    for node in world.cores():
        assert node.core is not None
        if node.core.raft.lock.key != lock_of(cluster).key:
            return f"{node.name} is not locked as the cluster says"
        if [lock.key for lock in node.keys.locks] != [lock_of(cluster).key]:
            return f"{node.name}'s shoald knows other keys than the one in force"
    return ""


def _certificates(world: "World", view: View) -> str:
    """Everybody holds a certificate of the root in force, and trusts that one alone."""
    cluster = view.cluster()
    assert cluster is not None
    if cluster.root_ca.rotation is not None:
        # It waits for every node, also for one that nobody is (see _nodes): docker info tells the operator.
        waits = view.count(Node) > len(_nodes(world, view))
        return "" if waits else "one root CA is still replacing another"
    root = ROOTS.index(cluster.root_ca.certificate)
    for node in world.nodes:
        if not node.gone and node.node_id and node.held != Held(root, None, (root,)):
            return f"{node.name} holds {node.held}, and root {root} is in force"
    return ""


def _roles(world: "World", view: View) -> str:
    leader = world.leader()
    assert leader is not None
    assert leader.core is not None
    members = set(leader.core.members())
    managers = {node.id for node in _nodes(world, view) if node.spec.role.value == "manager"}
    if members != managers:
        return f"the managers are {managers}, Raft's members {members}"
    for stored in view.all(Node):
        node = world.node_of(stored.id)
        if stored.role is not stored.spec.role:
            return f"node {stored.id} is not yet {stored.spec.role.value}"
        if node is None and stored.status.state is NodeState.READY:
            return f"node {stored.id} is ready, and there is none"
        if (stored.manager_status is not None) != (stored.id in members):
            return (
                f"node {stored.id} is {'a' if stored.id in members else 'no'} member, and its status differs"
            )
        if node is not None and node.role != stored.role.value:
            return f"{node.name} is {node.role}, the cluster says {stored.role.value}"
    return ""


def _nodes(world: "World", view: View) -> list[Node]:
    """Without those that nobody is: a join whose answer was lost leaves one until an operator removes it."""
    return [node for node in view.all(Node) if world.node_of(node.id) is not None]


def _tasks(world: "World", view: View) -> str:
    for task in view.all(Task):
        if view.get(Service, task.service_id) is None:
            return f"task {task.name} of a removed service is left"
        if holds_addresses(task):
            return f"task {task.name} is orphaned and has its addresses still"
        if task.desired_state.stops and not task.status.state.terminal:
            return f"task {task.name} is {task.status.state.word} and should be {task.desired_state.word}"
    return ""


def _services(world: "World", view: View) -> str:
    for service in view.all(Service):
        image = _image(service)
        tasks = [
            task
            for task in view.tasks_of_service(service.id)
            if not task.desired_state.stops and not task.status.state.terminal
        ]
        if is_job(service):
            if lacks := _job(world, view, service):
                return lacks
            continue
        if image.partition(":")[0] not in STEADY or _is_paused(service):
            continue
        places = [(task.slot, "" if task.slot else task.node_id) for task in tasks]
        if len(places) != len(set(places)):
            return f"service {service.spec.name} has two tasks in a place"
        if service.update_status is not None and service.update_status.state in UNDER_WAY:
            return f"service {service.spec.name} is {service.update_status.state.value}"
        running = [task for task in tasks if task.status.state is TaskState.RUNNING]
        if is_replicated(service):
            wanted = replicas(service)
        else:
            wanted = sum(node.spec.availability is not Availability.DRAIN for node in _nodes(world, view))
        if len(running) != wanted or len(tasks) != wanted:
            return f"service {service.spec.name} has {len(running)} of {wanted} running, {len(tasks)} tasks"
        for task in running:
            if dirty(service, task, view.get(Node, task.node_id)):
                return f"task {task.name} runs an old spec"
    return ""


def _job(world: "World", view: View, service: Service) -> str:
    tasks = [task for task in view.tasks_of_service(service.id) if of_iteration(service, task)]
    done = {task.slot or task.node_id for task in tasks if task.status.state is TaskState.COMPLETE}
    if is_replicated_job(service):
        wanted: set[int | str] = set(range(1, total_completions(service) + 1))
    else:
        wanted = {node.id for node in _nodes(world, view)}
    left = wanted - done
    if left:
        return f"job {service.spec.name} has completed {len(done)}, {sorted(map(str, left))} are left"
    going = [task for task in tasks if not task.status.state.terminal]
    return f"task {going[0].name} goes on, and its job is done" if going else ""


def _image(service: Service) -> str:
    container = service.spec.task_template.container_spec
    return container.image if container is not None else ""


def _machines(world: "World", view: View) -> str:
    for node in world.nodes:
        for task_id, container in node.machine.containers.items():
            task = view.get(Task, task_id)
            if task is None:
                return f"{node.name} has a container of {task_id}, which is no task"
            if container.running and task.desired_state.stops:
                return f"{node.name} runs {task.name}, which should be {task.desired_state.word}"
    for task in view.all(Task):
        if task.status.state is not TaskState.RUNNING:
            continue
        node_ = world.node_of(task.node_id)
        container_ = node_.machine.containers.get(task.id) if node_ is not None else None
        if container_ is None or not container_.running:
            return f"task {task.name} is said to run, and its container does not"
    return ""


def steady(world: "World") -> bool:
    """Whether all services' containers run until they are told to stop."""
    view = world.checks.views[world.checks.last_index]
    return all(
        _image(service).partition(":")[0] in STEADY or is_job(service) for service in view.all(Service)
    )


def paused(world: "World") -> bool:
    """Whether an update is paused: what it started may be tried again for long."""
    return any(_is_paused(service) for service in world.checks.views[world.checks.last_index].all(Service))


def _is_paused(service: Service) -> bool:
    return service.update_status is not None and service.update_status.state in PAUSED
