"""The immutable view of the cluster's state that every decision is made from."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar, cast

from cluster.objects import Cluster, Service, StoreObject, Task
from manager.store.tables import KINDS, NAME, NODE, REFERENCE, SERVICE, Table, name_key

T = TypeVar("T", bound=StoreObject)


class View:
    """The state at one Raft index. Never changes; taking one is O(1)."""

    __slots__ = ("_tables", "index")

    def __init__(self, index: int, tables: Mapping[str, Table]) -> None:
        self.index = index
        self._tables = tables

    @classmethod
    def empty(cls) -> "View":
        """The state before the first write."""
        return cls(0, {kind: Table.empty(kind) for kind in KINDS})

    def at(self, index: int) -> "View":
        """The same state at a later index, after an entry that changed nothing."""
        return View(index, self._tables)

    def table(self, kind: str) -> Table:
        """The table of one kind of object; for the store's own parts."""
        return self._tables[kind]

    def get(self, cls: type[T], id: str) -> T | None:
        """The object with this id, or None."""
        return cast("T | None", self._tables[cls.kind].objects.get(id))

    def all(self, cls: type[T]) -> Iterable[T]:
        """All objects of a kind, in creation order."""
        return cast("Iterable[T]", self._tables[cls.kind].objects.values())

    def count(self, cls: type[T]) -> int:
        """How many objects of a kind exist."""
        return len(self._tables[cls.kind].objects)

    def by_name(self, cls: type[T], name: str) -> T | None:
        """The service, network, secret, config or cluster of that name (case does not matter), or None.

        Other kinds have no unique name: TypeError.
        """
        if NAME not in self._tables[cls.kind].indexes:
            raise TypeError(f"a {cls.kind} has no unique name")
        return next(iter(self._indexed(cls, NAME, name_key(name))), None)

    def by_prefix(self, cls: type[T], prefix: str) -> list[T]:
        """Objects whose id starts with `prefix`, in creation order; the caller says what ambiguity means."""
        objects = self._tables[cls.kind].objects
        return [cast(T, obj) for id, obj in objects.items() if id.startswith(prefix)]

    def tasks_of_service(self, service_id: str) -> Sequence[Task]:
        """The service's tasks, ended ones too, in creation order."""
        return self._indexed(Task, SERVICE, service_id)

    def tasks_on_node(self, node_id: str) -> Sequence[Task]:
        """Tasks assigned to the node, ended ones too, in the order in which they came to it."""
        return self._indexed(Task, NODE, node_id)

    def services_using(self, reference: str) -> Sequence[Service]:
        """Services whose spec names this network (as the spec has it: id or name), secret id or config id."""
        return self._indexed(Service, REFERENCE, reference)

    def tasks_using(self, reference: str) -> Sequence[Task]:
        """Tasks that use this network, secret or config, ended ones too."""
        return self._indexed(Task, REFERENCE, reference)

    def cluster(self) -> Cluster | None:
        """The cluster's settings; None before `swarm init`."""
        return next(iter(self.all(Cluster)), None)

    def _indexed(self, cls: type[T], index: str, key: str) -> list[T]:
        table = self._tables[cls.kind]
        return [cast(T, table.objects.get(id)) for id in table.ids(index, key)]
