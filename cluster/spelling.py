"""Field names in any case, as Go takes them: docker-py writes `replicated` for `Replicated`."""

from collections.abc import Hashable
from functools import lru_cache
from typing import Any, cast

from msgspec import inspect

from cluster.spec.base import UNKNOWN_FIELDS


def spelled(value: Any, cls: type[Any]) -> Any:
    """`value` with the names of `cls`'s fields, and of the fields within, as `cls` spells them.

    A name that is spelled right goes before one that is not. Names in free maps (labels) are left alone.
    """
    return _spelled(value, _type_info(cast(Hashable, cls)))


@lru_cache
def _type_info(cls: Hashable) -> inspect.Type:
    return inspect.type_info(cls)


def _spelled(value: Any, type_: inspect.Type) -> Any:
    if isinstance(type_, inspect.UnionType):
        for each in type_.types:
            value = _spelled(value, each)
        return value
    if isinstance(value, dict):
        if isinstance(type_, inspect.StructType):
            return _object(value, type_)
        if isinstance(type_, inspect.DictType):
            return {key: _spelled(item, type_.value_type) for key, item in value.items()}
    if isinstance(value, list) and isinstance(type_, inspect.ListType | inspect.VarTupleType):
        return [_spelled(item, type_.item_type) for item in value]
    return value


def _object(value: dict[str, Any], type_: inspect.StructType) -> dict[str, Any]:
    fields = {field.encode_name.lower(): field for field in type_.fields}
    result: dict[str, Any] = {}
    for key, item in value.items():
        if key == UNKNOWN_FIELDS:
            continue  # ours, not a user's to set
        field = fields.get(key.lower())
        if field is None:
            result[key] = item
        elif key == field.encode_name or field.encode_name not in value:
            result[field.encode_name] = _spelled(item, field.type)
    return result
