"""A transaction: a view that sees its own writes, and turns them into an entry's changes.

The rules that every write obeys live here, and are checked twice by the same code: when a writer writes, to
tell at once, and when the entry is applied, because another manager or controller may have come first.
"""

from collections.abc import Sequence
from typing import TypeVar, cast

from msgspec.structs import replace

from cluster.errors import Conflict, NotFound, OutOfSequence
from cluster.objects import Cluster, Service, StoreObject, Task
from manager.store.entry import MAX_BYTES, MAX_CHANGES, Action, Change, decode_object, encode_object
from manager.store.events import Event
from manager.store.tables import KINDS, NAME, Table, name_key, name_of
from manager.store.view import View

T = TypeVar("T", bound=StoreObject)
_CHANGE_OVERHEAD = 32  # an upper bound of a change's msgpack framing, kind and version


class Transaction(View):
    """Reads as a view does, its own writes included. Nothing is visible to others before it is committed."""

    __slots__ = ("_base", "_changed", "_size")

    def __init__(self, base: View) -> None:
        super().__init__(base.index, {kind: base.table(kind) for kind in KINDS})
        self._base = base
        # (kind, id) → the new object or None, in the order of first touch
        self._changed: dict[tuple[str, str], tuple[StoreObject | None, Change | None]] = {}
        self._size = 0

    def fork(self) -> "Transaction":
        """A transaction that starts with what this one has written; this one is left as it is."""
        fork = Transaction(self._base)
        fork._tables, fork._changed, fork._size = dict(self._tables), dict(self._changed), self._size
        return fork

    def create(self, obj: StoreObject) -> None:
        """Add an object. Raises Conflict when its id or name is taken."""
        self._check_new(obj)
        self._put(obj.kind, obj.id, obj)

    def _check_new(self, obj: StoreObject) -> None:
        if self.table(obj.kind).objects.get(obj.id) is not None:
            raise Conflict(f"{obj.kind} {obj.id} already exists")
        if self._base.table(obj.kind).objects.get(obj.id) is not None:
            raise Conflict(f"{obj.kind} {obj.id} was deleted in the same transaction")
        if isinstance(obj, Cluster) and self.cluster() is not None:
            raise Conflict("the cluster's settings already exist")
        self._check_name(obj)

    def update(self, obj: StoreObject) -> None:
        """Replace an object by one made from the version that this transaction sees.

        A task's state never goes back: a write with a lower `status.state` keeps the stored status, and one
        with a lower `desired_state` keeps the stored one. Raises NotFound, OutOfSequence (the object changed
        since it was read), Conflict (its new name is taken).
        """
        self._put(obj.kind, obj.id, self._checked(obj))

    def _checked(self, obj: StoreObject) -> StoreObject:
        stored = self.table(obj.kind).objects.get(obj.id)
        if stored is None:
            raise NotFound(f"{obj.kind} {obj.id} not found")
        if stored.version != obj.version:
            raise _out_of_sequence(stored, obj.version)
        if isinstance(obj, Task):
            obj = never_back(cast(Task, stored), obj)
        self._check_name(obj)
        return obj

    def delete(self, cls: type[T], id: str) -> None:
        """Remove an object. Raises NotFound."""
        if self.table(cls.kind).objects.get(id) is None:
            raise NotFound(f"{cls.kind} {id} not found")
        self._put(cls.kind, id, None)

    def changes(self) -> tuple[Change, ...]:
        """What this transaction changes, one per object, in the order of first touch."""
        return tuple(change for _, change in self._changed.values() if change is not None)

    @property
    def size(self) -> int:
        """Bytes that the changes take in an entry."""
        return self._size

    @property
    def too_large(self) -> bool:
        """Whether the changes exceed the bounds of one entry."""
        return len(self._changed) > MAX_CHANGES or self._size > MAX_BYTES

    def commit(self, index: int, at: int) -> tuple[View, tuple[Event, ...]]:
        """The base with this transaction's changes, stamped with their Raft index and the proposer's time."""
        by_kind: dict[str, dict[str, StoreObject | None]] = {}
        events: list[Event] = []
        for (kind, id), (new, change) in self._changed.items():
            old = self._base.table(kind).objects.get(id)
            if new is not None and change is not None:
                new = _stamped(old, new, index, at, change.spec_changed)
            elif old is None:
                continue
            by_kind.setdefault(kind, {})[id] = new
            events.append(Event(old, new, index, at))
        tables = {kind: self._base.table(kind) for kind in KINDS}
        for kind, changed in by_kind.items():
            tables[kind] = tables[kind].with_changes(changed)
        return View(index, tables), tuple(events)

    def _check_name(self, obj: StoreObject) -> None:
        table = self.table(obj.kind)
        if NAME not in table.indexes:
            return
        name = name_of(obj)
        if any(id != obj.id for id in table.ids(NAME, name_key(name))):
            raise Conflict(f"name conflicts with an existing object: {obj.kind} {name} already exists")

    def apply(self, change: Change) -> None:
        """Make a change that another transaction recorded. Raises Conflict, UnknownSchema, or OutOfSequence
        when the object is not the one that was read there."""
        stored = self._base.table(change.kind).objects.get(change.id)
        if change.action is Action.CREATE:
            obj = decode_object(change.kind, change.data)
            self._check_new(obj)
            self._put(change.kind, change.id, obj, change)
        elif stored is None:
            raise OutOfSequence(f"{change.kind} {change.id} was deleted")
        elif stored.version != change.base:
            raise _out_of_sequence(stored, change.base)
        elif change.action is Action.UPDATE:
            obj = replace(decode_object(change.kind, change.data), version=change.base)
            self._put(change.kind, change.id, self._checked(obj), change)
        else:
            self.delete(KINDS[change.kind], change.id)

    def _put(self, kind: str, id: str, new: StoreObject | None, change: Change | None = None) -> None:
        if change is None:
            change = self._change(kind, id, new)
        _, before = self._changed.get((kind, id), (None, None))
        self._size += _size(change) - _size(before)
        self._changed[(kind, id)] = (new, change)
        tables = cast("dict[str, Table]", self._tables)
        tables[kind] = tables[kind].with_changes({id: new})

    def _change(self, kind: str, id: str, new: StoreObject | None) -> Change | None:
        old = self._base.table(kind).objects.get(id)
        if new is None:
            return None if old is None else Change(Action.DELETE, kind, id, old.version)
        action, base = (Action.CREATE, 0) if old is None else (Action.UPDATE, old.version)
        spec_changed = _spec_changed(old, new)
        return Change(action, kind, id, base, encode_object(new), spec_changed)


def _size(change: Change | None) -> int:
    return 0 if change is None else len(change.data) + len(change.id) + _CHANGE_OVERHEAD


def never_back(stored: Task, new: Task) -> Task:
    """The write with what would let the task's state fall left as stored."""
    if new.status.state < stored.status.state:
        new = replace(new, status=stored.status)
    if new.desired_state < stored.desired_state:
        new = replace(new, desired_state=stored.desired_state)
    return new


def _spec_changed(old: StoreObject | None, new: StoreObject) -> bool | None:
    """Whether a service's new spec is another, unless its writer set a `spec_version` (a rollback takes back
    the version along with the spec); None for everything else."""
    if not isinstance(new, Service) or not isinstance(old, Service):
        return None
    return new.spec_version == old.spec_version and new.spec != old.spec


def _stamped(
    old: StoreObject | None, new: StoreObject, index: int, at: int, spec_changed: bool | None
) -> StoreObject:
    """The object as stored. A service whose spec changed gets the index as `spec_version` too."""
    created = (index, at) if old is None else (old.created_version, old.created_at)
    new = replace(new, version=index, created_version=created[0], created_at=created[1], updated_at=at)
    if isinstance(new, Service):
        if old is None:
            return replace(new, spec_version=index)
        if _spec_changed(old, new) if spec_changed is None else spec_changed:
            return replace(new, spec_version=index)
    return new


def applied(base: View, index: int, at: int, changes: Sequence[Change]) -> tuple[View, tuple[Event, ...]]:
    """The view after these changes, and what happened, in order.

    Raises Conflict, or OutOfSequence when an object was changed or deleted since its writer read it; then
    nothing of the batch has an effect. Deterministic: the result depends on the arguments only.
    """
    transaction = Transaction(base)
    for change in changes:
        transaction.apply(change)
    return transaction.commit(index, at)


def _out_of_sequence(stored: StoreObject, version: int) -> OutOfSequence:
    named = f"{stored.kind} {name_of(stored) or stored.id}"
    return OutOfSequence(f"{named} is at version {stored.version}, not {version}")
