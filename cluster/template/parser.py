"""From a template's pieces to a tree of nodes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from cluster.template.lexer import Action, Kind, TemplateError, Text, Token, pieces

MAX_DEPTH = 40
"""How deep blocks and parentheses may be nested."""

_UNSUPPORTED = ("define", "template", "block")
_Declaration = tuple[tuple[str, ...], bool]


@dataclass(frozen=True)
class Value:
    """A literal."""

    value: object


@dataclass(frozen=True)
class Path:
    """`.A.B`, `$x.A` or `(pipeline).A`: `root` is "." or a variable's name, or a pipeline."""

    root: "str | Pipeline"
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """A function with its arguments."""

    function: str
    arguments: "tuple[Operand, ...]" = ()


Operand = Value | Path | Call


@dataclass(frozen=True)
class Pipeline:
    """Commands, each given the last one's result as its last argument. `assigns`: to known variables."""

    commands: tuple[Operand, ...]
    declares: tuple[str, ...] = ()
    assigns: bool = False
    source: str = ""


@dataclass(frozen=True)
class Output:
    """Text, or the value of a pipeline."""

    content: str | Pipeline


@dataclass
class Block:
    """`if`, `with` or `range` with what it holds, and its `else`."""

    word: str
    pipeline: Pipeline
    body: "list[Node]" = field(default_factory=list)
    otherwise: "list[Node]" = field(default_factory=list)


@dataclass(frozen=True)
class Jump:
    """`break` or `continue` within a `range`."""

    word: str


Node = Output | Block | Jump


class _Open:
    """A block that is being read."""

    def __init__(self, block: Block | None, target: list[Node], *, chained: bool = False) -> None:
        self.block, self.target, self.chained = block, target, chained
        self.has_else = False

    @property
    def within_range(self) -> bool:
        """Whether `break` has something to leave here: what a range's `else` holds is not repeated."""
        return self.block is not None and self.block.word == "range" and not self.has_else


def parse(text: str, known: Callable[[str], bool]) -> list[Node]:
    """The tree of a template; `known` says which functions there are. Raises TemplateError."""
    tree: list[Node] = []
    stack = [_Open(None, tree)]
    for piece in pieces(text):
        if isinstance(piece, Text):
            if piece.text:
                stack[-1].target.append(Output(piece.text))
        else:
            _Reader(piece, known).into(stack)
    if len(stack) > 1 and stack[-1].block is not None:
        raise TemplateError(f"invalid template {text[:200]!r}: {stack[-1].block.word} has no {{{{end}}}}")
    return tree


class _Reader:
    """Reads one action."""

    def __init__(self, action: Action, known: Callable[[str], bool]) -> None:
        self._action = action
        self._tokens = [*action.tokens, Token(Kind.SPACE, " ")]
        self._known = known
        self._at = 0
        self._depth = 0

    def into(self, stack: list[_Open]) -> None:
        """Put what the action says into the tree."""
        self._skip()
        word = self._peek().value if self._peek().kind is Kind.WORD else None
        if word in ("if", "with", "range"):
            self._at += 1
            self._open(str(word), stack)
        elif word == "else":
            self._at += 1
            self._else(stack)
        elif word == "end":
            self._at += 1
            self._done()
            self._close(stack)
        elif word in ("break", "continue"):
            self._at += 1
            self._done()
            if not any(each.within_range for each in stack):
                self._fail(f"{word} outside {{{{range}}}}")
            stack[-1].target.append(Jump(str(word)))
        elif word in _UNSUPPORTED:
            self._fail(f"{word} is not supported")
        else:
            pipeline = self._pipeline("")
            self._done()
            stack[-1].target.append(Output(pipeline))

    def _open(self, word: str, stack: list[_Open], *, chained: bool = False) -> None:
        if len(stack) > MAX_DEPTH:
            self._fail("blocks are nested too deep")
        block = Block(word, self._pipeline(word))
        self._done()
        stack[-1].target.append(block)
        stack.append(_Open(block, block.body, chained=chained))

    def _else(self, stack: list[_Open]) -> None:
        top = stack[-1]
        if top.block is None or top.has_else:
            self._fail("unexpected {{else}}")
        top.has_else = True
        top.target = top.block.otherwise
        self._skip()
        following = self._peek()
        if following.kind is Kind.WORD and following.value in ("if", "with") and top.block.word != "range":
            self._at += 1
            self._open(str(following.value), stack, chained=True)
        else:
            self._done()

    def _close(self, stack: list[_Open]) -> None:
        while True:
            if len(stack) == 1:
                self._fail("unexpected {{end}}")
            if not stack.pop().chained:
                return

    # --- expressions --------------------------------------------------------------------------------------

    def _pipeline(self, word: str) -> Pipeline:
        declares, assigns = self._declaration(word)
        commands: list[Operand] = []
        while True:
            command = self._command()
            if commands and isinstance(command, Value):
                self._fail("only functions may follow a |")
            if commands and isinstance(command, Path):
                self._fail("only functions may follow a |")
            commands.append(command)
            self._skip()
            if self._peek() != Token(Kind.SIGN, "|"):
                return Pipeline(tuple(commands), declares, assigns, self._action.source)
            self._at += 1

    def _declaration(self, word: str) -> _Declaration:
        """The variables before := or =, if there are any."""
        begin = self._at
        names: list[str] = []
        while True:
            self._skip()
            token = self._peek()
            if token.kind is not Kind.VARIABLE or token.value == "$":
                break
            names.append(str(token.value))
            self._at += 1
            self._skip()
            sign = self._peek()
            if sign == Token(Kind.SIGN, ",") and word == "range" and len(names) == 1:
                self._at += 1
                continue
            if sign in (Token(Kind.SIGN, ":="), Token(Kind.SIGN, "=")):
                self._at += 1
                return tuple(names), sign.value == "="
            break
        self._at = begin
        return (), False

    def _command(self) -> Operand:
        self._skip()
        first = self._peek()
        if first.kind is Kind.WORD:
            self._at += 1
            name = str(first.value)
            if not self._known(name):
                self._fail(f'function "{name}" not defined')
            arguments: list[Operand] = []
            while self._space_then_operand():
                arguments.append(self._operand())
            return Call(name, tuple(arguments))
        operand = self._operand()
        if self._space_then_operand():
            self._fail("can't give arguments to what is not a function")
        return operand

    def _space_then_operand(self) -> bool:
        spaced = self._peek().kind is Kind.SPACE
        self._skip()
        token = self._peek()
        if token.kind is Kind.SPACE:
            return False
        more = token.kind is not Kind.SIGN or token.value == "("
        if more and not spaced:
            self._fail("arguments need a space between them")
        return more

    def _operand(self) -> Operand:
        token = self._peek()
        self._at += 1
        match token.kind:
            case Kind.VALUE:
                return Value(token.value)
            case Kind.WORD:
                name = str(token.value)
                if not self._known(name):
                    self._fail(f'function "{name}" not defined')
                return Call(name)
            case Kind.DOT:
                return Path(".")
            case Kind.FIELD:
                self._at -= 1
                return Path(".", self._fields())
            case Kind.VARIABLE:
                return Path(str(token.value), self._fields())
        if token == Token(Kind.SIGN, "("):
            self._depth += 1
            if self._depth > MAX_DEPTH:
                self._fail("parentheses are nested too deep")
            inner = self._pipeline("(")
            self._skip()
            if self._peek() != Token(Kind.SIGN, ")"):
                self._fail("unclosed left parenthesis")
            self._at += 1
            self._depth -= 1
            return Path(inner, self._fields())
        if token.kind is Kind.SPACE:
            self._fail("missing value for command")
        return self._fail(f"unexpected {token.value!s}")

    def _fields(self) -> tuple[str, ...]:
        names = []
        while self._peek().kind is Kind.FIELD:
            names.append(str(self._peek().value))
            self._at += 1
        return tuple(names)

    # --- tokens -------------------------------------------------------------------------------------------

    def _peek(self) -> Token:
        """The next token; space at the end."""
        return self._tokens[min(self._at, len(self._tokens) - 1)]

    def _skip(self) -> None:
        while self._at < len(self._tokens) - 1 and self._tokens[self._at].kind is Kind.SPACE:
            self._at += 1

    def _done(self) -> None:
        self._skip()
        if self._peek().kind is not Kind.SPACE:
            self._fail(f"unexpected {self._peek().value!s}")

    def _fail(self, why: str) -> NoReturn:
        raise TemplateError(f"invalid template {self._action.source[:200]}: {why}")
