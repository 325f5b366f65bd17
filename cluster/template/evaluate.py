"""Filling a template in: its tree, walked over the values. Time and memory are bounded."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn

from cluster.template.functions import BUILTINS, Function
from cluster.template.lexer import TemplateError
from cluster.template.parser import Block, Call, Jump, Node, Operand, Output, Pipeline, Value
from cluster.template.values import Record, text_of, truth, type_name

MAX_WORK = 8 << 20
"""Characters made and steps taken; a secret or config has less than a million characters."""


class _Left(Exception):
    """A `break` or `continue` on its way to its range."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class Evaluator:
    """Fills in one template."""

    def __init__(self, root: Record, functions: Mapping[str, Function]) -> None:
        self._functions = {**BUILTINS, **functions}
        self._variables: list[tuple[str, object]] = [("$", root)]
        self._dot: object = root
        self._work = 0
        self._source = ""

    def fill(self, tree: Sequence[Node]) -> str:
        """The text. Raises TemplateError."""
        output: list[str] = []
        self._walk(tree, output)
        return "".join(output)

    def _walk(self, nodes: Sequence[Node], output: list[str]) -> None:
        for node in nodes:
            self._charge(1)
            if isinstance(node, Jump):
                raise _Left(node.word)
            if isinstance(node, Block):
                with self._scope():
                    self._block(node, output)
            elif isinstance(node, Output):
                self._output(node, output)

    def _output(self, node: Output, output: list[str]) -> None:
        if isinstance(node.content, str):
            text = node.content
        else:
            value = self._pipeline(node.content)
            if node.content.declares:
                return
            text = text_of(value)
        self._charge(len(text))
        output.append(text)

    def _block(self, block: Block, output: list[str]) -> None:
        value = self._pipeline(block.pipeline, ranged=block.word == "range")
        if block.word == "range":
            self._range(block, value, output)
        elif truth(value):
            with self._with_dot(value if block.word == "with" else self._dot):
                self._walk(block.body, output)
        else:
            self._walk(block.otherwise, output)

    def _range(self, block: Block, value: object, output: list[str]) -> None:
        items = self._items(value)
        if not items:
            self._walk(block.otherwise, output)
            return
        names = block.pipeline.declares
        for key, item in items:
            with self._scope(), self._with_dot(item):
                pairs = zip(names, (key, item) if len(names) == 2 else (item,), strict=False)
                for name, given in pairs:
                    if block.pipeline.assigns:
                        self._assign(name, given)
                    else:
                        self._variables.append((name, given))
                try:
                    self._walk(block.body, output)
                except _Left as left:
                    if left.word == "break":
                        break

    def _items(self, value: object) -> list[tuple[object, object]]:
        if isinstance(value, Mapping) and not isinstance(value, Record):
            return [(key, value[key]) for key in sorted(value)]
        if isinstance(value, list | tuple):
            return list(enumerate(value))
        if value is None:
            return []
        return self._fail(f"range can't iterate over {type_name(value)}")

    # --- values -------------------------------------------------------------------------------------------

    def _pipeline(self, pipeline: Pipeline, *, ranged: bool = False) -> object:
        self._source = pipeline.source
        value: object = None
        for number, command in enumerate(pipeline.commands):
            if number and isinstance(command, Call):
                value = self._call(command, (value,))
            else:
                value = self._operand(command)
        if not ranged:
            for name in pipeline.declares:
                if pipeline.assigns:
                    self._assign(name, value)
                else:
                    self._variables.append((name, value))
        return value

    def _operand(self, operand: Operand) -> object:
        self._charge(1)
        if isinstance(operand, Value):
            return operand.value
        if isinstance(operand, Call):
            return self._call(operand, ())
        if isinstance(operand.root, Pipeline):
            value = self._pipeline(operand.root)
        elif operand.root == ".":
            value = self._dot
        else:
            value = self._variable(operand.root)
        for name in operand.fields:
            value = self._field(value, name)
        return value

    def _field(self, value: object, name: str) -> object:
        if isinstance(value, Record):
            if name not in value:
                self._fail(f"there is no field {name}, only {', '.join(value)}")
            return value[name]
        if isinstance(value, Mapping):
            if name not in value:
                self._fail(f'map has no entry for key "{name}"')
            return value[name]
        return self._fail(f"can't evaluate field {name} in type {type_name(value)}")

    def _call(self, call: Call, last: tuple[object, ...]) -> object:
        if call.function in ("and", "or"):
            return self._either(call, last)
        arguments = [self._operand(argument) for argument in call.arguments]
        source = self._source
        self._charge(sum(map(_weight, (*arguments, *last))))
        if call.function == "join" and arguments:
            self._charge(_weight(arguments[0]) * len(arguments))
        try:
            value = self._functions[call.function](*arguments, *last)
        except TemplateError as error:
            raise TemplateError(f"invalid template {source[:200]}: {error}") from None
        except TypeError:
            self._fail(f"wrong number of arguments for {call.function}: {len(arguments) + len(last)}")
        if isinstance(value, str):
            self._charge(len(value))
        return value

    def _either(self, call: Call, last: tuple[object, ...]) -> object:
        """`and` gives the first argument that is false, `or` the first that is true; else the last."""
        if not call.arguments and not last:
            self._fail(f"wrong number of arguments for {call.function}: 0")
        value: object = None
        for argument in call.arguments:
            value = self._operand(argument)
            if truth(value) is (call.function == "or"):
                return value
        return last[0] if last else value

    # --- variables ----------------------------------------------------------------------------------------

    def _variable(self, name: str) -> object:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        return self._fail(f"undefined variable {name}")

    def _assign(self, name: str, value: object) -> None:
        for place in range(len(self._variables) - 1, 0, -1):
            if self._variables[place][0] == name:
                self._variables[place] = (name, value)
                return
        self._fail(f"undefined variable {name}")

    @contextmanager
    def _scope(self) -> Iterator[None]:
        height = len(self._variables)
        try:
            yield
        finally:
            del self._variables[height:]

    @contextmanager
    def _with_dot(self, dot: object) -> Iterator[None]:
        before, self._dot = self._dot, dot
        try:
            yield
        finally:
            self._dot = before

    def _charge(self, work: int) -> None:
        self._work += work
        if self._work > MAX_WORK:
            self._fail("it makes too much")

    def _fail(self, why: str) -> NoReturn:
        raise TemplateError(f"invalid template {self._source[:200]}: {why}")


def _weight(value: object) -> int:
    """Characters of the value, about."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(key) + _weight(item) for key, item in value.items())
    return sum(map(_weight, value)) if isinstance(value, list | tuple) else 1
