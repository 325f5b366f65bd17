"""A Compose file as a tree in which every value knows where it was written."""

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.errors import InvalidArgument

Value = None | bool | int | float | str | list["Node"] | dict[str, "Node"]


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its place: file, line (from 1) and path such as `services.web.ports[0]`."""

    value: Value
    file: str
    line: int
    path: str

    def of(self, value: Value) -> "Node":
        """Another value at the same place."""
        return Node(value, self.file, self.line, self.path)

    def child(self, key: str, value: Value) -> "Node":
        """A value that belongs to this mapping although it is written in another form there."""
        return Node(value, self.file, self.line, f"{self.path}.{key}")

    @property
    def items(self) -> Mapping[str, "Node"]:
        """The mapping's items; empty for every other value."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def kind(self) -> str:
        """What the value is, in a file's words."""
        if self.value is None:
            return "nothing"
        names: dict[type, str] = {
            bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list",
        }  # fmt: skip
        return names.get(type(self.value), "a mapping")


class ComposeError(InvalidArgument):
    """A Compose file can't be meant as written. Says the file, the line and the path."""

    def __init__(self, node: Node, message: str) -> None:
        where = f"{node.file}:{node.line}: " + (f"{node.path}: " if node.path else "")
        super().__init__(where + message)
