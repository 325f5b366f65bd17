"""Typed values from a Compose file's tree. Each reader raises ComposeError, which says where and what."""

import difflib
from collections.abc import Callable, Collection
from typing import TypeVar

from cluster.errors import InvalidArgument
from shoal.cli import quantities
from shoal.stack.merging import as_mapping
from shoal.stack.node import ComposeError, Node

T = TypeVar("T")


def fields(node: Node, known: Collection[str]) -> dict[str, Node]:
    """A mapping's items without those that are left empty or begin with `x-`; refuses unknown ones."""
    if node.value is None:
        return {}
    if not isinstance(node.value, dict):
        raise ComposeError(node, f"this is {node.kind}, but it must be a mapping")
    found = {}
    for key, item in node.value.items():
        if key.startswith("x-"):
            continue
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ComposeError(item, f"Additional property {key} is not allowed{hint}")
        if item.value is not None:
            found[key] = item
    return found


def entries(node: Node) -> dict[str, Node]:
    """A mapping whose keys are the user's own."""
    if node.value is None:
        return {}
    if not isinstance(node.value, dict):
        raise ComposeError(node, f"this is {node.kind}, but it must be a mapping")
    return {key: item for key, item in node.value.items() if not key.startswith("x-")}


def items(node: Node) -> list[Node]:
    """A list's items."""
    if node.value is None:
        return []
    if not isinstance(node.value, list):
        raise ComposeError(node, f"this is {node.kind}, but it must be a list")
    return node.value


def text(node: Node) -> str:
    """A text."""
    if not isinstance(node.value, str):
        raise ComposeError(node, f"this is {node.kind}, but it must be a text: put it into quotes")
    if "\0" in node.value or any("\ud800" <= char <= "\udfff" for char in node.value):
        raise ComposeError(node, "a text can't hold NUL or half of a surrogate pair")
    return node.value


def word(node: Node) -> str:
    """A text, number or truth value as a text, as in labels and variables."""
    value = node.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    return text(node)


def choice(node: Node, allowed: Collection[str]) -> str:
    """One of some words."""
    found = text(node)
    if found not in allowed:
        raise ComposeError(node, f"{found!r} is not one of {', '.join(allowed)}")
    return found


def integer(node: Node, least: int = 0) -> int:
    """A whole number, also one that a variable gave as text."""
    value = node.value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ComposeError(node, f"this is {node.kind}, but it must be a whole number")
    if not least <= value < 1 << 63:
        raise ComposeError(node, f"{value} is out of range: the least is {least}")
    return value


def ratio(node: Node) -> float:
    """A number from 0 to 1."""
    try:
        value = float(node.value) if isinstance(node.value, str | int | float) else -1.0
    except (ValueError, OverflowError):
        value = -1.0
    if isinstance(node.value, bool) or not 0 <= value <= 1:
        raise ComposeError(node, "this must be a number from 0 to 1")
    return value


def truth(node: Node) -> bool:
    """True or false, also as a text that a variable gave."""
    value = node.value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ComposeError(node, f"this is {node.kind}, but it must be true or false")
    return value


def strings(node: Node) -> list[str]:
    """A list of texts (or numbers)."""
    return [word(item) for item in items(node)]


def one_or_more(node: Node) -> list[str]:
    """A text, or a list of texts."""
    return [text(node)] if isinstance(node.value, str) else strings(node)


def pairs(node: Node) -> dict[str, str | None]:
    """A mapping, or a list of `NAME=VALUE`; None for a name without a value."""
    found: dict[str, str | None] = {}
    for key, item in (
        as_mapping(node).items.items() if isinstance(node.value, list) else entries(node).items()
    ):
        if not key:
            raise ComposeError(item, "a name is empty")
        found[key] = None if item.value is None else word(item)
    return found


def labels(node: Node) -> dict[str, str]:
    """Pairs in which a missing value is an empty one."""
    return {key: value or "" for key, value in pairs(node).items()}


def located(node: Node, convert: Callable[[str], T]) -> T:
    """What `convert` makes of the text, with the place added to its complaint."""
    try:
        return convert(word(node))
    except ComposeError:
        raise
    except InvalidArgument as error:
        raise ComposeError(node, str(error)) from error


def duration(node: Node) -> int:
    """Nanoseconds of `1m30s`."""
    return located(node, quantities.duration)


def size(node: Node) -> int:
    """Bytes of `64M`."""
    return located(node, quantities.size)


def nano_cpus(node: Node) -> int:
    """Billionths of a CPU of `'0.5'`."""
    return located(node, quantities.nano_cpus)
