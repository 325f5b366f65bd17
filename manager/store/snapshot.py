"""The state as a stream of bytes: how a manager's state reaches its disk, and a manager that lags.

The stream is a sequence of frames: a length (4 bytes, big endian) and the msgpack of `[kind, [item, …]]`,
items in creation order. The first frame's kind is "header", the last one's "end" with the number of items,
so that a stream cut short is noticed. Readers need not see it in the chunks in which it was written.
"""

import struct
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import msgspec

from cluster import codec
from cluster.codec import Codec
from cluster.errors import ShoalError
from cluster.objects import StoreObject
from manager.store.entry import SCHEMA, UnknownSchema
from manager.store.tables import KINDS, Table, TableBuilder
from manager.store.view import View

HEADER = "header"
OUTCOMES = "outcomes"
END = "end"
_ITEMS_PER_FRAME = 64
_FRAME_BYTES = 64 << 10
"""A frame that has grown larger is full: frames are what reading and writing a snapshot do at once."""
_LENGTH = struct.Struct(">I")
_codecs: dict[str, Codec[list[StoreObject]]] = {kind: Codec(list[cls]) for kind, cls in KINDS.items()}  # type: ignore[valid-type]


class DamagedSnapshot(ShoalError):
    """The stream is not a whole snapshot; the state was left as it was."""


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What became of a proposal: applied at `index`, or refused with an error of class `refused`."""

    index: int
    refused: str = ""
    message: str = ""


class Header(msgspec.Struct, frozen=True):
    """The first frame's item."""

    schema: int
    index: int


class Restored(msgspec.Struct, frozen=True):
    """What a snapshot held."""

    view: View
    outcomes: dict[str, Outcome]


def write(view: View, outcomes: list[tuple[str, Outcome]]) -> Iterator[bytes]:
    """The chunks of a snapshot, encoded as they are asked for: reading them in another thread is safe."""
    count = 0

    def frame(kind: str, items: list[bytes]) -> bytes:
        body = msgspec.msgpack.encode((kind, [msgspec.Raw(item) for item in items]))
        return _LENGTH.pack(len(body)) + body

    def frames(kind: str, items: Iterable[Any]) -> Iterator[bytes]:
        nonlocal count
        group: list[bytes] = []
        size = 0
        for item in items:
            group.append(codec.encode(item))
            size += len(group[-1])
            if len(group) == _ITEMS_PER_FRAME or size > _FRAME_BYTES:
                count += len(group)
                yield frame(kind, group)
                group, size = [], 0
        if group:
            count += len(group)
            yield frame(kind, group)

    yield frame(HEADER, [codec.encode(Header(SCHEMA, view.index))])
    for kind in KINDS:
        yield from frames(kind, view.table(kind).objects.values())
    yield from frames(OUTCOMES, outcomes)
    yield frame(END, [codec.encode(count)])


def read(index: int, chunks: Iterable[bytes]) -> Restored:
    """The state that the chunks hold. Raises DamagedSnapshot, UnknownSchema."""
    steps = reading(index, chunks)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            restored: Restored = end.value
            return restored


def reading(index: int, chunks: Iterable[bytes]) -> Generator[None, None, Restored]:
    """As `read`, a frame or some indexing at each step."""
    builders = {kind: TableBuilder(kind) for kind in KINDS}
    outcomes: dict[str, Outcome] = {}
    count = 0
    ended = False
    try:
        for kind, items in _frames(chunks):
            if kind == HEADER:
                header = msgspec.msgpack.decode(items, type=list[Header])[0]
                if header.schema > SCHEMA:
                    raise UnknownSchema(
                        f"the snapshot has schema {header.schema}, this manager knows {SCHEMA}: upgrade it"
                    )
            elif kind == END:
                ended = msgspec.msgpack.decode(items, type=list[int]) == [count]
            elif kind == OUTCOMES:
                pairs = msgspec.msgpack.decode(items, type=list[tuple[str, Outcome]])
                outcomes.update(pairs)
                count += len(pairs)
            else:
                if kind not in _codecs:
                    raise UnknownSchema(
                        f"the snapshot has objects of a kind unknown here, {kind}: upgrade it"
                    )
                try:
                    group = _codecs[kind].decode(bytes(items))
                except msgspec.ValidationError as error:  # a newer version's: damage was noticed before
                    raise UnknownSchema(
                        f"a {kind} in the snapshot has another form ({error}): upgrade this manager to the "
                        "version of the others"
                    ) from error
                builders[kind].add(group)
                count += len(group)
            yield
    except (msgspec.MsgspecError, ValueError, KeyError, IndexError) as error:
        raise DamagedSnapshot(f"the snapshot is damaged: {error}") from error
    if not ended:
        raise DamagedSnapshot("the snapshot is cut short")
    tables: dict[str, Table] = {}
    for kind, builder in builders.items():
        tables[kind] = yield from builder.build()
    return Restored(View(index, tables), outcomes)


def _frames(chunks: Iterable[bytes]) -> Iterator[tuple[str, msgspec.Raw]]:
    decoder = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            yield decoder.decode(bytes(buffer[start + _LENGTH.size : end]))
            start = end
        del buffer[:start]
    if buffer:
        raise DamagedSnapshot("the snapshot is cut short")
