"""A Raft entry of the store: a batch of changes that is applied as one, or refused as one.

Compatibility. Entries and objects are msgpack. An entry is a map, and so is every object in it: a reader
ignores the keys it does not know, and `schema` rises only when an old reader would go wrong by ignoring them
(it then refuses to go on, see `decode`). `extra` is room for what must be carried along with an entry
although this version gives it no meaning: it is kept byte for byte by whoever passes the entry on.
"""

from enum import IntEnum

import msgspec

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

    `data` is the msgpack of the new object; empty for a delete.
    """

    action: Action
    kind: str
    id: str
    base: int
    data: bytes = b""


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


_encoder = msgspec.msgpack.Encoder()
_entry_decoder = msgspec.msgpack.Decoder(Entry)
_object_decoders = {kind: msgspec.msgpack.Decoder(cls) for kind, cls in KINDS.items()}


def encode(entry: Entry) -> bytes:
    """The entry's bytes, as proposed to Raft."""
    return _encoder.encode(entry)


def decode(data: bytes) -> Entry:
    """The entry in these bytes. Raises UnknownSchema; msgspec.DecodeError or ValueError (broken UTF-8) on
    anything else malformed."""
    entry = _entry_decoder.decode(data)
    if entry.schema > SCHEMA:
        raise UnknownSchema(
            f"the cluster's log has entries of schema {entry.schema}, this manager knows {SCHEMA}: "
            "upgrade this manager to the version of the others"
        )
    return entry


def encode_object(obj: StoreObject) -> bytes:
    """An object's msgpack."""
    return _encoder.encode(obj)


def decode_object(kind: str, data: bytes) -> StoreObject:
    """The object of that kind in these bytes."""
    return _object_decoders[kind].decode(data)
