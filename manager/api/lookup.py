"""Finding the object that a user means: by id, by name, or by a prefix of the id that fits only one."""

from typing import TypeVar

from cluster.errors import InvalidArgument, NotFound
from cluster.objects import Config, Network, Node, Secret, Service, StoreObject, Task
from manager.store import View

T = TypeVar("T", bound=StoreObject)


def _find(view: View, cls: type[T], what: str, named: list[T]) -> T:
    if (exact := view.get(cls, what)) is not None:
        return exact
    for matches in (named, view.by_prefix(cls, what) if what else []):
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise InvalidArgument(f"{cls.kind} {what} is ambiguous ({len(matches)} matches found)")
    raise NotFound(f"{cls.kind} {what} not found")


def _by_name(view: View, cls: type[T], name: str) -> list[T]:
    found = view.by_name(cls, name)
    return [] if found is None else [found]


def find_service(view: View, what: str) -> Service:
    """The service with this id, name or id prefix; NotFound, or InvalidArgument when ambiguous."""
    return _find(view, Service, what, _by_name(view, Service, what))


def find_network(view: View, what: str) -> Network:
    """The swarm-scoped network, as `find_service`."""
    return _find(view, Network, what, _by_name(view, Network, what))


def find_secret(view: View, what: str) -> Secret:
    """The secret, as `find_service`."""
    return _find(view, Secret, what, _by_name(view, Secret, what))


def find_config(view: View, what: str) -> Config:
    """The config, as `find_service`."""
    return _find(view, Config, what, _by_name(view, Config, what))


def find_node(view: View, what: str) -> Node:
    """The node with this id, hostname or id prefix; hostnames may be shared, then InvalidArgument."""
    named = [node for node in view.all(Node) if what and node.description.hostname == what]
    return _find(view, Node, what, named)


def find_task(view: View, what: str) -> Task:
    """The task with this id, full name or id prefix."""
    named = [task for task in view.all(Task) if task.name == what] if "." in what else []
    return _find(view, Task, what, named)
