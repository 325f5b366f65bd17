"""`$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?error}`, `${NAME:+other}`, `$$`."""

import re
from collections.abc import Callable, Mapping

from shoal.stack.node import ComposeError, Node

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")
MAX_DEPTH = 20


def interpolate(node: Node, variables: Mapping[str, str], unset: Callable[[str], None]) -> Node:
    """The tree with all variables in its texts (not in keys) replaced.

    `unset` is told the name of a variable that is empty because nothing sets it. Raises ComposeError.
    """
    value = node.value
    if isinstance(value, str):
        return node.of(_Template(node, value, variables, unset).whole()) if "$" in value else node
    if isinstance(value, list):
        return node.of([interpolate(item, variables, unset) for item in value])
    if isinstance(value, dict):
        return node.of({key: interpolate(item, variables, unset) for key, item in value.items()})
    return node


class _Template:
    """One text, read from left to right."""

    def __init__(
        self, node: Node, text: str, variables: Mapping[str, str], unset: Callable[[str], None]
    ) -> None:
        self._node = node
        self._text = text
        self._variables = variables
        self._unset = unset
        self._at = 0

    def whole(self) -> str:
        return self._until("", used=True, depth=0)

    def _until(self, end: str, *, used: bool, depth: int) -> str:
        """The text up to `end` (or its own end), replaced; `used` is False in a branch that isn't taken."""
        if depth > MAX_DEPTH:
            raise self._wrong("variables are nested too deeply")
        out: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if end and char == end:
                self._at += 1
                return "".join(out)
            self._at += 1
            out.append(self._variable(used, depth) if char == "$" else char)
        if end:
            raise self._wrong("a ${ has no }")
        return "".join(out)

    def _variable(self, used: bool, depth: int) -> str:
        rest = self._text[self._at : self._at + 1]
        if rest == "$":
            self._at += 1
            return "$"
        if rest != "{":
            name = self._name("write $$ for a dollar sign")
            return self._plain(name, used)
        self._at += 1
        name = self._name("a name must follow ${")
        operator = next((o for o in _OPERATORS if self._text.startswith(o, self._at)), "")
        self._at += len(operator)
        if not operator:
            if self._text[self._at : self._at + 1] != "}":
                raise self._wrong("write ${NAME}, ${NAME:-default} or ${NAME:?message}")
            self._at += 1
            return self._plain(name, used)
        value = self._variables.get(name)
        given = bool(value) if operator.startswith(":") else value is not None
        takes_word = given == operator.endswith("+")
        word = self._until("}", used=used and takes_word, depth=depth + 1)
        if operator.endswith("?") and not given and used:
            raise self._wrong(f"required variable {name} is missing a value" + (f": {word}" if word else ""))
        if operator.endswith("+"):
            return word if given else ""
        return (value or "") if given else word

    def _plain(self, name: str, used: bool) -> str:
        value = self._variables.get(name)
        if value is None and used:
            self._unset(name)
        return value or ""

    def _name(self, advice: str) -> str:
        found = _NAME.match(self._text, self._at)
        if found is None:
            raise self._wrong(advice)
        self._at = found.end()
        return found[0]

    def _wrong(self, advice: str) -> ComposeError:
        return ComposeError(self._node, f"invalid interpolation in {self._text!r}: {advice}")
