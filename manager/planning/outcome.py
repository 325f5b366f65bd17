"""Two states compared: what of each service starts, stops, moves, is replaced, stays, or fits nowhere."""

from collections.abc import Sequence

import msgspec

from cluster.defaults import update_config, with_defaults
from cluster.objects import Node, Service, Task
from cluster.spec import ServiceSpec
from cluster.states import TaskState
from manager.orchestrator.job import is_job
from manager.orchestrator.situation import dirty
from manager.planning.proposal import Applied
from manager.planning.simulation import Simulation
from manager.store import View


class _Answer(msgspec.Struct, kw_only=True, rename="pascal"):
    """Base of what is answered as JSON."""


class Place(_Answer):
    """A task's place: its slot (0 for one that a node gives), its node's name, and the task if it exists."""

    slot: int = 0
    node: str = ""
    task: str = ""


class Move(_Answer):
    """A task that would be replaced by one on another node."""

    slot: int
    task: str
    source: str
    target: str


class Misfit(_Answer):
    """A task that would find no node, and why. `instead` is a task that goes on in its slot meanwhile."""

    slot: int
    reason: str
    instead: str = ""


class ServiceOutcome(_Answer):
    """What would become of one service."""

    name: str
    action: str
    changes: list[str] = []
    """Where the new specification differs, as `TaskTemplate.ContainerSpec.Image`."""
    starts: list[Place] = []
    stops: list[Place] = []
    replaced: list[Place] = []
    moves: list[Move] = []
    unplaced: list[Misfit] = []
    kept: int = 0
    outdated: int = 0
    """How many of those would still have the old specification, as the update would wait."""
    order: str = ""
    """Of an update: stop-first or start-first."""
    parallelism: int = 0


class ObjectOutcome(_Answer):
    """What would become of a network, secret or config."""

    kind: str
    name: str
    action: str


class Outcome(_Answer):
    """What the change would do. `complete` is False when it had not come to an end in the time allowed."""

    services: list[ServiceOutcome]
    objects: list[ObjectOutcome]
    complete: bool
    sentences: list[str] = []


def outcome(before: View, simulation: Simulation, applied: Applied) -> Outcome:
    """Compare the state before with the simulated one after."""
    found = [_service(before, simulation, id, action) for id, action in applied.services.items()]
    others = [
        _service(before, simulation, service.id, "keep")
        for service in simulation.view.all(Service)
        if service.id not in applied.services and _was_placed(before, simulation.view, service)
    ]
    objects = [ObjectOutcome(kind=kind, name=name, action=action) for kind, name, action in applied.objects]
    services = sorted(found, key=lambda service: service.name) + others
    return Outcome(services=services, objects=objects, complete=simulation.settled)


def _was_placed(before: View, after: View, service: Service) -> bool:
    """Whether a task that waited for a node has found one."""
    for task in after.tasks_of_service(service.id):
        old = before.get(Task, task.id)
        if old is not None and not old.node_id and task.node_id:
            return True
    return False


def _service(before: View, simulation: Simulation, id: str, action: str) -> ServiceOutcome:
    after = simulation.view
    old, new = before.get(Service, id), after.get(Service, id)
    present = new or old
    assert present is not None
    result = ServiceOutcome(name=present.spec.name, action=action)
    if old is not None and new is not None and action == "update":
        result.changes = differences(old.spec, new.spec)
        config = update_config(new.spec.update_config)
        result.order, result.parallelism = config.order, config.parallelism
    had, has = _slots(before, id), _slots(after, id)
    for key in sorted({*had, *has}):
        _slot(result, key[0], had.get(key, []), has.get(key, []), simulation)
    if new is not None and is_job(new):
        result.starts += _done(before, after, id)
    return result


def _slots(view: View, id: str) -> dict[tuple[int, str], list[Task]]:
    """Tasks that should run and have not ended, by slot (or node)."""
    found: dict[tuple[int, str], list[Task]] = {}
    for task in view.tasks_of_service(id):
        if not task.desired_state.stops and not task.status.state.terminal:
            found.setdefault((task.slot, "" if task.slot else task.node_id), []).append(task)
    return found


def _slot(
    result: ServiceOutcome, slot: int, had: Sequence[Task], has: Sequence[Task], simulation: Simulation
) -> None:
    """What happens in one slot. A new task on the node of one that goes replaces it, on another it moves."""
    placed = {task.id: task for task in has if task.node_id and task.id not in simulation.reasons}
    held = {task.id: task for task in had if task.node_id and task.status.state >= TaskState.ASSIGNED}
    kept = [id for id in held if id in placed]
    gone = [task for id, task in held.items() if id not in placed]
    result.kept += len(kept)
    result.outdated += sum(_outdated(simulation.view, placed[id]) for id in kept)
    for task in has:
        if task.id not in placed:
            reason = simulation.reasons.get(task.id) or task.status.error or "it waits for its turn"
            result.unplaced.append(Misfit(slot=slot, reason=reason, instead=kept[0] if kept else ""))
    for task in placed.values():
        if task.id in held:
            continue
        node = _name(simulation.view, task.node_id)
        old = next((t for t in gone if t.node_id == task.node_id), None) or next(iter(gone), None)
        if old is None:
            result.starts.append(Place(slot=slot, node=node))
            continue
        gone.remove(old)
        if old.node_id == task.node_id:
            result.replaced.append(Place(slot=slot, node=node, task=old.id))
        else:
            source = _name(simulation.view, old.node_id)
            result.moves.append(Move(slot=slot, task=old.id, source=source, target=node))
    for task in gone:
        result.stops.append(Place(slot=slot, node=_name(simulation.view, task.node_id), task=task.id))


def _outdated(view: View, task: Task) -> bool:
    service = view.get(Service, task.service_id)
    return service is not None and dirty(service, task, view.get(Node, task.node_id))


def _done(before: View, after: View, id: str) -> list[Place]:
    """Tasks of a job that the simulation has run to their end."""
    return [
        Place(slot=task.slot, node=_name(after, task.node_id))
        for task in after.tasks_of_service(id)
        if before.get(Task, task.id) is None and task.status.state.terminal and not task.desired_state.stops
    ]


def _name(view: View, node_id: str) -> str:
    node = view.get(Node, node_id) if node_id else None
    return (node.description.hostname or node.id) if node is not None else node_id


def differences(old: ServiceSpec, new: ServiceSpec) -> list[str]:
    """The paths, in Engine JSON's names, at which two specifications differ."""
    return sorted(_differences(with_defaults(old), with_defaults(new), ""))


def _differences(old: object, new: object, path: str) -> list[str]:
    if old == new:
        return []
    if not isinstance(old, msgspec.Struct) or type(old) is not type(new):
        return [path]
    return [
        found
        for field in msgspec.structs.fields(old)
        for found in _differences(
            getattr(old, field.name),
            getattr(new, field.name),
            f"{path}.{field.encode_name}" if path else field.encode_name,
        )
    ]
