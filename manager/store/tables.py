"""The store's tables: one for each kind of object, with the indexes that readers need."""

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

from cluster.objects import AnyObject, Cluster, Config, Network, Node, Secret, Service, StoreObject, Task
from cluster.spec import NetworkAttachmentConfig, TaskSpec
from manager.store.persistent import ABSENT, PersistentMap

KINDS: dict[str, type[AnyObject]] = {
    cls.kind: cls for cls in (Cluster, Node, Network, Secret, Config, Service, Task)
}

NAME = "name"
SERVICE = "service"
NODE = "node"
REFERENCE = "reference"

Index = PersistentMap[str, PersistentMap[str, bool]]
_BUILD_STEP = 1000
_NO_IDS: PersistentMap[str, bool] = PersistentMap()


def name_of(obj: StoreObject) -> str:
    """The name the user gave, or "" for objects that have none."""
    spec = getattr(obj, "spec", None)
    return str(getattr(spec, "name", ""))


def name_key(name: str) -> str:
    """Names are unique and found without regard to case, as in SwarmKit."""
    return name.lower()


def references(spec: TaskSpec, networks: Iterable[NetworkAttachmentConfig] = ()) -> set[str]:
    """The networks (ids or names, as the spec has them), secrets and configs that a task's spec uses."""
    found = {network.target for network in (spec.networks or networks)}
    if spec.container_spec is not None:
        found.update(reference.secret_id for reference in spec.container_spec.secrets or ())
        found.update(reference.config_id for reference in spec.container_spec.configs or ())
    found.discard("")
    return found


def _names(obj: Any) -> Iterable[str]:
    return (name_key(name_of(obj)),)


def _service_references(service: Service) -> Iterable[str]:
    return references(service.spec.task_template, service.spec.networks or ())


def _task_references(task: Task) -> Iterable[str]:
    return references(task.spec) | {attachment.network_id for attachment in task.networks}


_KEYS: dict[str, dict[str, Callable[[Any], Iterable[str]]]] = {
    Service.kind: {NAME: _names, REFERENCE: _service_references},
    Network.kind: {NAME: _names},
    Secret.kind: {NAME: _names},
    Config.kind: {NAME: _names},
    Cluster.kind: {NAME: _names},
    Task.kind: {
        SERVICE: lambda task: (task.service_id,) if task.service_id else (),
        NODE: lambda task: (task.node_id,) if task.node_id else (),
        REFERENCE: _task_references,
    },
}


class Table:
    """Objects of one kind by id, in creation order, and the indexes over them. Immutable."""

    __slots__ = ("indexes", "kind", "objects")

    def __init__(
        self, kind: str, objects: PersistentMap[str, StoreObject], indexes: Mapping[str, Index]
    ) -> None:
        self.kind = kind
        self.objects = objects
        self.indexes = indexes

    @classmethod
    def empty(cls, kind: str) -> "Table":
        """A table without objects."""
        return cls(kind, PersistentMap(), {name: PersistentMap() for name in _KEYS.get(kind, {})})

    def ids(self, index: str, key: str) -> PersistentMap[str, bool]:
        """Ids of the objects with this key, in the order in which they got it."""
        return self.indexes[index].get(key) or _NO_IDS

    def with_changes(self, changes: Mapping[str, StoreObject | None]) -> "Table":
        """A table in which each id has its new object, or is gone where that is None."""
        indexes = dict(self.indexes)
        for name, keys_of in _KEYS.get(self.kind, {}).items():
            moved: dict[str, dict[str, Any]] = {}
            for id, new in changes.items():
                old = self.objects.get(id)
                before = set(keys_of(old)) if old is not None else set()
                after = set(keys_of(new)) if new is not None else set()
                for key in before - after:
                    moved.setdefault(key, {})[id] = ABSENT
                for key in after - before:
                    moved.setdefault(key, {})[id] = True
            if moved:
                indexes[name] = _reindexed(indexes[name], moved)
        objects = self.objects.with_changes(
            {id: ABSENT if new is None else new for id, new in changes.items()}
        )
        return Table(self.kind, objects, indexes)


class TableBuilder:
    """Makes a table of many objects at once, in steps, for a state that is read from a snapshot."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._objects: dict[str, StoreObject] = {}
        self._indexes: dict[str, dict[str, dict[str, bool]]] = {name: {} for name in _KEYS.get(kind, {})}

    def add(self, objects: Iterable[StoreObject]) -> None:
        """Objects in creation order; each id once."""
        for obj in objects:
            self._objects[obj.id] = obj
            for name, keys_of in _KEYS.get(self._kind, {}).items():
                index = self._indexes[name]
                for key in set(keys_of(obj)):
                    index.setdefault(key, {})[obj.id] = True

    def build(self) -> Generator[None, None, Table]:
        """The table."""
        indexes: dict[str, Index] = {}
        for name, index in self._indexes.items():
            made: dict[str, PersistentMap[str, bool]] = {}
            for number, (key, ids) in enumerate(index.items()):
                made[key] = PersistentMap(ids)
                if number % _BUILD_STEP == 0:
                    yield
            indexes[name] = PersistentMap(made)
        return Table(self._kind, PersistentMap(self._objects), indexes)


def _reindexed(index: Index, moved: Mapping[str, dict[str, Any]]) -> Index:
    changes: dict[str, Any] = {}
    for key, ids in moved.items():
        changed = (index.get(key) or _NO_IDS).with_changes(ids)
        changes[key] = changed if len(changed) else ABSENT
    return index.with_changes(changes)
