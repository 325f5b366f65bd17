"""The values that templates work on, and how Go prints, tests and compares them."""

from collections.abc import Mapping, Sequence
from typing import cast

from cluster.template.lexer import TemplateError


class Record(dict[str, object]):
    """A value with fixed fields, such as `.Service`; a plain dict is a map, such as its labels."""


def type_name(value: object) -> str:
    """The type as Go would name it."""
    if value is None:
        return "nil"
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float64"), (str, "string"), (Record, "struct")):
        if isinstance(value, kind):
            return name
    return "map" if isinstance(value, Mapping) else "list"


def text_of(value: object) -> str:
    """As fmt.Print writes it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Record):
        return "{" + " ".join(text_of(item) for item in value.values()) + "}"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{text_of(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + " ".join(text_of(item) for item in value) + "]"
    return str(value)


def _float(value: float) -> str:
    text = f"{value:g}" if value == float(f"{value:g}") else repr(value)
    return text if "e" not in text or abs(value) >= 1e21 or abs(value) < 1e-4 else f"{value:.0f}"


def truth(value: object) -> bool:
    """Whether `if` takes it for true: all but the empty and the zero."""
    return bool(value) or isinstance(value, Record)


def equal(left: object, right: object) -> bool:
    """Go's `eq`. Raises TemplateError for values of different kinds."""
    if left is None or right is None:
        return left is right
    if _is_plain(left) and _is_plain(right) and type_name(left) == type_name(right):
        return left == right
    raise TemplateError(f"incompatible types for comparison: {type_name(left)} and {type_name(right)}")


def less(left: object, right: object) -> bool:
    """Go's `lt`. Raises TemplateError for what has no order."""
    same = type_name(left) == type_name(right)
    if same and isinstance(left, int | float | str) and not isinstance(left, bool):
        return cast(float, left) < cast(float, right)
    raise TemplateError(f"{type_name(left)} and {type_name(right)} can't be put in order")


def _is_plain(value: object) -> bool:
    return isinstance(value, bool | int | float | str)
