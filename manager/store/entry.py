"""A Raft entry of the store: a batch of changes that is applied as one, or refused as one.

Compatibility (docs/upgrades.md). Entries and objects are msgpack. An entry is a map, and so is every object
in it: a reader keeps the fields of objects that it does not know, and ignores those of entries. `schema`
rises only when an old reader would go wrong by that; it then refuses to go on, as it does at an object of an
unknown kind. `extra` is room for what must be carried along with an entry although this version gives it no
meaning. What depends on a version's schema is decided by the writer and travels in the entry
(`spec_changed`), because managers of two versions must come to the same state.
"""

from enum import IntEnum

import msgspec

from cluster import codec
from cluster.codec import Codec
from cluster.errors import ShoalError
from cluster.objects import StoreObject
from manager.store.tables import KINDS

SCHEMA = 1
MAX_CHANGES = 200  # SwarmKit's bounds of one Raft entry
MAX_BYTES = 3 * 512 * 1024


class Action(IntEnum):
    """What happens to an object."""

    CREATE = 0
    UPDATE = 1
    DELETE = 2


class Change(msgspec.Struct, frozen=True, array_like=True):
    """One object's change. `base` is the version that the writer read (0 for a create).

    `data` is the msgpack of the new object; empty for a delete. `spec_changed` says whether a service's spec
    is another than the one that was read; None: the reader compares.
    """

    action: Action
    kind: str
    id: str
    base: int
    data: bytes = b""
    spec_changed: bool | None = None


class Entry(msgspec.Struct, frozen=True, rename={"schema": "v", "at": "t", "request": "r", "changes": "c"}):
    """A batch. `at` is the proposer's wall clock in ns; `request` identifies the proposal, so that the same
    one proposed twice is applied once."""

    schema: int
    at: int
    request: str
    changes: tuple[Change, ...]
    extra: dict[str, msgspec.Raw] = {}


class UnknownSchema(ShoalError):
    """The entry or snapshot was written by a newer Shoal; this manager must be upgraded, not guess."""


_UPGRADE = "upgrade this manager to the version of the others"
_encoder = msgspec.msgpack.Encoder()
_entry_decoder = msgspec.msgpack.Decoder(Entry)
_codecs: dict[str, Codec[StoreObject]] = {kind: Codec(cls) for kind, cls in KINDS.items()}


def encode(entry: Entry) -> bytes:
    """The entry's bytes, as proposed to Raft."""
    return _encoder.encode(entry)


def decode(data: bytes) -> Entry:
    """The entry in these bytes. Raises UnknownSchema; msgspec.DecodeError or ValueError (broken UTF-8) on
    anything that is not msgpack."""
    try:
        entry = _entry_decoder.decode(data)
    except msgspec.ValidationError as error:
        raise UnknownSchema(
            f"an entry of the cluster's log has another form ({error}): {_UPGRADE}"
        ) from error
    if entry.schema > SCHEMA:
        raise UnknownSchema(
            f"the cluster's log has entries of schema {entry.schema}, this manager knows {SCHEMA}: {_UPGRADE}"
        )
    for change in entry.changes:
        if change.kind not in KINDS:
            raise _unknown_kind(change.kind)
    return entry


def _unknown_kind(kind: str) -> UnknownSchema:
    return UnknownSchema(f"the cluster's state has objects of a kind unknown here, {kind}: {_UPGRADE}")


def encode_object(obj: StoreObject) -> bytes:
    """An object's msgpack, with what a newer Shoal has put in (cluster.codec)."""
    return codec.encode(obj)


def decode_object(kind: str, data: bytes) -> StoreObject:
    """The object of that kind in these bytes, with the fields that this version does not know.

    Raises UnknownSchema for a kind of object that this version does not have, or a value that it can't hold.
    """
    known = _codecs.get(kind)
    if known is None:
        raise _unknown_kind(kind)
    try:
        return known.decode(data)
    except msgspec.ValidationError as error:
        raise UnknownSchema(
            f"a {kind} in the cluster's state has another form ({error}): {_UPGRADE}"
        ) from error
