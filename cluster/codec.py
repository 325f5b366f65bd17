"""msgpack of typed values that loses nothing which a newer Shoal has put in.

During a rolling upgrade managers and agents of two versions share one state. A reader therefore keeps the
fields that its structs do not have: they go into `unknown_fields` of the very struct that they came with (a
spec, a setting within a spec, a status), wherever it is nested, and so `replace`, equality and copies carry
them along without knowing of them. Encoding writes them back among the known ones.

Both directions pay for this only when there is something to carry. After decoding, the value is encoded
again: other bytes mean that something was not understood. After encoding, a search for the name of the field
tells whether anything is carried. The rest is done on plain maps, and slow.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import inspect

from cluster.spec.base import UNKNOWN_FIELDS

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""All that msgspec raises for bytes that are no such value: text may not be UTF-8, nesting too deep."""

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

_encoder = msgspec.msgpack.Encoder()
# What is carried is compared by its bytes, and maps have no order that counts.
_canonical = msgspec.msgpack.Encoder(order="deterministic")
_plain = msgspec.msgpack.Decoder()
_MARK = _encoder.encode(UNKNOWN_FIELDS)


class Codec(Generic[T]):
    """Encodes and decodes values of one type: a struct, a tagged union of structs, or a list of those."""

    def __init__(self, type_: Any) -> None:
        self._type = type_
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(type_)

    def encode(self, value: T) -> bytes:
        """The value's msgpack, with the unknown fields where they came from."""
        return encode(value)

    def decode(self, data: bytes) -> T:
        """The value. Raises msgspec.MsgspecError, or ValueError on text that is not UTF-8."""
        value = self._decoder.decode(data)
        if _encoder.encode(value) == data and _MARK not in data:
            return value
        return self._decoder.decode(_encoder.encode(_kept(_plain.decode(data), type_info(self._type))))


def encode(value: Any) -> bytes:
    """As `Codec.encode`, of anything that msgspec can encode."""
    data = _encoder.encode(value)
    return data if _MARK not in data else _encoder.encode(_spread(_plain.decode(data)))


def carried(old: S, new: S) -> S:
    """`new`, which was made without knowledge of what `old` carries, with that.

    For what users send as a whole: they were never shown the fields that this version does not know, so
    leaving them out means nothing. In a list, only elements that have not changed keep theirs.
    """
    changes: dict[str, Any] = {}
    for field in type(new).__struct_fields__:
        before, after = getattr(old, field), getattr(new, field)
        if field == "unknown_fields":
            kept = after or before
        elif isinstance(after, msgspec.Struct) and type(before) is type(after):
            kept = carried(before, after)
        elif isinstance(after, list | tuple) and type(before) is type(after):
            kept = type(after)(_same(before, item) for item in after)
        else:
            kept = after
        if kept is not after:
            changes[field] = kept
    return msgspec.structs.replace(new, **changes) if changes else new


def _same(old: Iterable[Any], item: Any) -> Any:
    """The old element that is this one apart from what it carries, or the new one."""
    if isinstance(item, msgspec.Struct):
        for before in old:
            if type(before) is type(item) and carried(before, item) == before:
                return before
    return item


# --- plain maps -------------------------------------------------------------------------------------------


@cache
def type_info(type_: Any) -> inspect.Type:
    """msgspec's description of a type."""
    return inspect.type_info(type_)


def _kept(value: Any, type_: inspect.Type) -> Any:
    """The plain value with the fields that its type lacks moved to where structs keep them."""
    match type_:
        case inspect.UnionType():
            return _kept(value, _member(value, type_.types))
        case inspect.StructType() if isinstance(value, list):
            fields: tuple[inspect.Field, ...] = type_.fields
            known = [_kept(item, field.type) for item, field in zip(value, fields, strict=False)]
            return known + value[len(fields) :]
        case inspect.StructType() if isinstance(value, dict):
            return _kept_struct(value, type_)
        case inspect.DictType() if isinstance(value, dict):
            return {key: _kept(item, type_.value_type) for key, item in value.items()}
        case inspect.TupleType() if isinstance(value, list):
            return [_kept(item, each) for item, each in zip(value, type_.item_types, strict=True)]
        case inspect.ListType() | inspect.VarTupleType() if isinstance(value, list):
            return [_kept(item, type_.item_type) for item in value]
        case _:
            return value


def _kept_struct(value: dict[str, Any], type_: inspect.StructType) -> dict[str, Any]:
    fields = {field.encode_name: field.type for field in type_.fields}
    known: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for key, item in value.items():
        if key == type_.tag_field:
            known[key] = item
        elif key in fields:
            known[key] = _kept(item, fields[key])
        else:
            unknown[key] = item
    known.pop(UNKNOWN_FIELDS, None)  # only ever ours, never another's to set
    if unknown and UNKNOWN_FIELDS in fields:
        known[UNKNOWN_FIELDS] = _canonical.encode(unknown)
    return known


def _member(value: Any, types: tuple[inspect.Type, ...]) -> inspect.Type:
    """The member of a union that this plain value is of."""
    fits: Callable[[inspect.Type], bool]
    if isinstance(value, dict):

        def fits(each: inspect.Type) -> bool:
            if not isinstance(each, inspect.StructType):
                return isinstance(each, inspect.DictType)
            return each.tag_field is None or value.get(each.tag_field) == each.tag
    elif isinstance(value, list):

        def fits(each: inspect.Type) -> bool:
            return isinstance(each, inspect.ListType | inspect.VarTupleType | inspect.TupleType) or (
                isinstance(each, inspect.StructType) and each.array_like
            )
    else:

        def fits(each: inspect.Type) -> bool:
            return False

    return next(filter(fits, types), inspect.AnyType())


def _spread(value: Any) -> Any:
    """The plain value with what structs carry among their own fields, which go first."""
    if isinstance(value, list):
        return [_spread(item) for item in value]
    if not isinstance(value, dict):
        return value
    unknown = value.get(UNKNOWN_FIELDS)
    if not isinstance(unknown, bytes):  # a label that somebody called so
        return {key: _spread(item) for key, item in value.items()}
    known = {key: _spread(item) for key, item in value.items() if key != UNKNOWN_FIELDS}
    return known | {key: item for key, item in _plain.decode(unknown).items() if key not in known}
