"""What an event tells of a cluster object's change: Docker's attributes, and the versions.

`version` is the index of the change, `version.old` that of the object's change before: who follows an object
can tell whether anything is missing.
"""

from cluster.objects import Config, Network, Node, Secret, Service, StoreObject
from cluster.spec import ServiceSpec
from manager.store import Event


def described(event: Event) -> dict[str, str]:
    """The event's attributes."""
    attributes = {"name": _name(event.object), "version": str(event.index)}
    if event.old is not None:
        attributes["version.old"] = str(event.old.version)
    if isinstance(event.old, Service) and isinstance(event.new, Service):
        _service_changes(attributes, event.old, event.new)
    elif isinstance(event.old, Node) and isinstance(event.new, Node):
        _node_changes(attributes, event.old, event.new)
    return attributes


def _name(obj: StoreObject) -> str:
    if isinstance(obj, Node):
        return obj.spec.name or obj.description.hostname
    assert isinstance(obj, Service | Secret | Config | Network), obj.kind
    return obj.spec.name


def _changed(attributes: dict[str, str], what: str, old: str, new: str) -> None:
    if old != new:
        attributes[f"{what}.old"] = old
        attributes[f"{what}.new"] = new


def _service_changes(attributes: dict[str, str], old: Service, new: Service) -> None:
    _changed(attributes, "image", _image(old.spec), _image(new.spec))
    if old.spec.mode.replicated is not None and new.spec.mode.replicated is not None:
        before, after = old.spec.mode.replicated.replicas, new.spec.mode.replicated.replicas
        _changed(attributes, "replicas", str(before or 0), str(after or 0))
    was, now = old.update_status, new.update_status
    if now is not None and (was is None or was.state is not now.state):
        if was is not None:
            attributes["updatestate.old"] = was.state.value
        attributes["updatestate.new"] = now.state.value


def _image(spec: ServiceSpec) -> str:
    container = spec.task_template.container_spec
    return container.image if container is not None else ""


def _node_changes(attributes: dict[str, str], old: Node, new: Node) -> None:
    _changed(attributes, "availability", old.spec.availability.value, new.spec.availability.value)
    _changed(attributes, "role", old.role.value, new.role.value)
    _changed(attributes, "state", old.status.state.value, new.status.state.value)
