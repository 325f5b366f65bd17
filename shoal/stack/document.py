"""YAML text as a tree of located values. YAML 1.2's plain words, as Docker's parser reads them: `on` and
`yes` are texts, `8080:80` is no number, `0440` is octal."""

import re
from typing import Any

import yaml

from shoal.stack.node import ComposeError, Node, Value

MAX_BYTES = 4 << 20
MAX_VALUES = 100_000
"""More than any real file has; aliases can make a small file stand for an endless one."""
MAX_DEPTH = 60

_TAG = "tag:yaml.org,2002:"
_WORDS = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+0123456789."),
    ("merge", r"<<", "<"),
)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, Any] = {}


for _name, _pattern, _first in _WORDS:
    _chars = [char if char != "\0" else "" for char in _first]
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _chars)


def parse(text: str, file: str) -> Node:
    """The file's only document. Raises ComposeError."""
    top = Node(None, file, 1, "")
    if len(text) > MAX_BYTES:
        raise ComposeError(top, f"the file is larger than {MAX_BYTES} bytes")
    try:
        root = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        words = ": ".join(word for word in (error.context, error.problem) if word)
        raise ComposeError(Node(None, file, line, ""), f"this is no YAML: {words}") from error
    except yaml.YAMLError as error:
        raise ComposeError(top, f"this is no YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ComposeError(top, "values are nested too deeply") from error
    return top if root is None else _Builder(file).build(root, "", 0)


class _Builder:
    def __init__(self, file: str) -> None:
        self._file = file
        self._count = 0

    def build(self, node: Any, path: str, depth: int) -> Node:
        here = Node(None, self._file, node.start_mark.line + 1, path)
        self._count += 1
        if self._count > MAX_VALUES:
            raise ComposeError(here, f"the file stands for more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise ComposeError(here, "values are nested too deeply; does an alias mean itself?")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return here.of(self._mapping(node, here, depth))
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            built = [self.build(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(node.value)]
            return here.of(built)
        if isinstance(node, yaml.ScalarNode):
            return here.of(_scalar(node, here))
        raise ComposeError(here, f"the tag {node.tag} is not supported")

    def _mapping(self, node: Any, here: Node, depth: int) -> dict[str, Node]:
        own: dict[str, Node] = {}
        inherited: dict[str, Node] = {}
        for key, item in node.value:
            at = Node(None, self._file, key.start_mark.line + 1, here.path)
            if not isinstance(key, yaml.ScalarNode):
                raise ComposeError(at, "a key must be a plain text")
            if key.tag == _TAG + "merge":
                for name, value in self._merged(item, at, depth).items():
                    inherited.setdefault(name, value)
                continue
            name = key.value
            if not name or key.tag == _TAG + "null":
                raise ComposeError(at, "a key is empty")
            if name in own:
                raise ComposeError(at, f"{name!r} is written twice (first in line {own[name].line})")
            own[name] = self.build(item, f"{here.path}.{name}" if here.path else name, depth + 1)
        return {**inherited, **own}

    def _merged(self, item: Any, at: Node, depth: int) -> dict[str, Node]:
        """What `<<` brings: a mapping, or several of which the first wins."""
        sources = item.value if isinstance(item, yaml.SequenceNode) else [item]
        found: dict[str, Node] = {}
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                raise ComposeError(at, "<< takes a mapping or a list of mappings")
            for name, value in self.build(source, at.path, depth + 1).items.items():
                found.setdefault(name, value)
        return found


def _scalar(node: Any, here: Node) -> Value:
    text: str = node.value
    kind = node.tag.removeprefix(_TAG)
    try:
        if kind == "null":
            return None
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "int":
            return _integer(text)
        if kind == "float":
            return float(text)
    except (KeyError, ValueError) as error:
        raise ComposeError(here, f"{text!r} is no {kind}") from error
    if kind in ("str", "merge", "timestamp"):
        return text
    raise ComposeError(here, f"the tag {node.tag} is not supported")


def _integer(text: str) -> int:
    digits = text.lstrip("+-")
    if len(digits) > 40:
        raise ValueError(text)
    if re.fullmatch(r"0[0-7]+", digits):
        value = int(digits, 8)
    else:
        value = int(digits, 0) if digits[:2].lower() in ("0x", "0o") else int(digits)
    return -value if text.startswith("-") else value
