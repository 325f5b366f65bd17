"""Regular expressions in Go's spelling, matched in a time that is bounded by pattern times text.

The Engine API's `name` filters are regular expressions of whoever asks. Python's own matcher backtracks: a
short pattern can keep it busy for years. Here all places in the pattern that can be reached are followed at
once, as in Go (https://swtch.com/~rsc/regexp/regexp1.html), without captures, which filters don't need.
"""

from collections.abc import Callable
from functools import lru_cache

from cluster.errors import InvalidArgument

MAX_PATTERN = 1000
"""Characters of a pattern."""
MAX_PROGRAM = 500
"""Instructions that repetitions may grow a pattern to. A text takes this many steps a character at most."""
MAX_REPEAT = 1000
_MAX_DEPTH = 100

_Matches = Callable[[str], bool]
_CHAR, _SPLIT, _JUMP, _ASSERT, _END = range(5)


class Pattern:
    """A compiled pattern."""

    def __init__(self, text: str) -> None:
        """Raises InvalidArgument when Go would not take the pattern either, or it is too large."""
        if len(text) > MAX_PATTERN:
            raise InvalidArgument(f"invalid pattern: longer than {MAX_PATTERN} characters")
        self._program = _Parser(text).program()

    def search(self, text: str) -> bool:
        """Whether the pattern matches anywhere in the text."""
        states: list[int] = []
        for position in range(len(text) + 1):
            reached = self._reach([*states, 0], text, position)
            if reached is None:
                return True
            if position == len(text):
                return False
            character = text[position]
            states = [at + 1 for at in reached if self._program[at][1](character)]
        return False

    def _reach(self, starts: list[int], text: str, position: int) -> list[int] | None:
        """The character tests that can be come to without reading; None when the end can be."""
        seen = set()
        found = []
        todo = starts
        while todo:
            at = todo.pop()
            if at in seen:
                continue
            seen.add(at)
            what, _, first, second = self._program[at]
            if what == _END:
                return None
            if what == _CHAR:
                found.append(at)
            elif what == _ASSERT:
                if _holds(first, text, position):
                    todo.append(at + 1)
            else:
                todo.append(first)
                if what == _SPLIT:
                    todo.append(second)
        return found


@lru_cache(maxsize=256)
def compiled(text: str) -> Pattern:
    """As `Pattern(text)`, remembered."""
    return Pattern(text)


_Instruction = tuple[int, _Matches, int, int]
_Program = list[_Instruction]


def _never(_: str) -> bool:
    return False


def _word(character: str) -> bool:
    return character == "_" or (character.isascii() and character.isalnum())


_BEGIN_TEXT, _END_TEXT, _BEGIN_LINE, _END_LINE, _BOUNDARY, _NO_BOUNDARY = range(6)


def _holds(assertion: int, text: str, at: int) -> bool:
    match assertion:
        case 0:
            return at == 0
        case 1:
            return at == len(text)
        case 2:
            return at == 0 or text[at - 1] == "\n"
        case 3:
            return at == len(text) or text[at] == "\n"
    before, after = at > 0 and _word(text[at - 1]), at < len(text) and _word(text[at])
    return (before != after) == (assertion == _BOUNDARY)


_CLASSES: dict[str, _Matches] = {
    "d": lambda c: c in "0123456789",
    "w": _word,
    "s": lambda c: c in "\t\n\f\r ",
}
_POSIX: dict[str, _Matches] = {
    "alnum": lambda c: c.isascii() and c.isalnum(),
    "alpha": lambda c: c.isascii() and c.isalpha(),
    "ascii": str.isascii,
    "blank": lambda c: c in "\t ",
    "cntrl": lambda c: c < " " or c == "\x7f",
    "digit": _CLASSES["d"],
    "graph": lambda c: "!" <= c <= "~",
    "lower": lambda c: "a" <= c <= "z",
    "print": lambda c: " " <= c <= "~",
    "punct": lambda c: "!" <= c <= "~" and not c.isalnum(),
    "space": lambda c: c in "\t\n\v\f\r ",
    "upper": lambda c: "A" <= c <= "Z",
    "word": _word,
    "xdigit": lambda c: c in "0123456789abcdefABCDEF",
}
_ESCAPED = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_QUANTIFIERS = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def _not(test: _Matches) -> _Matches:
    return lambda c: not test(c)


class _Parser:
    """Recursive descent over Go's syntax. Fragments are programs with jumps relative to their start."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._flags: frozenset[str] = frozenset()
        self._depth = 0

    def program(self) -> _Program:
        found = self._alternatives()
        if self._at < len(self._text):
            raise self._wrong("unexpected )")
        return [*found, (_END, _never, 0, 0)]

    def _wrong(self, why: str) -> InvalidArgument:
        return InvalidArgument(f"invalid pattern {self._text!r}: {why} at {self._at}")

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, text: str) -> bool:
        taken = self._text.startswith(text, self._at)
        if taken:
            self._at += len(text)
        return taken

    def _next(self) -> str:
        character = self._peek()
        if not character:
            raise self._wrong("unexpected end")
        self._at += 1
        return character

    # --- structure ----------------------------------------------------------------------------------------

    def _alternatives(self) -> _Program:
        result = self._sequence()
        while self._take("|"):
            other = self._sequence()
            past = len(result) + 2
            first = [(_SPLIT, _never, 1, past), *_moved(result, 1), (_JUMP, _never, past + len(other), 0)]
            result = self._sized([*first, *_moved(other, past)])
        return result

    def _sequence(self) -> _Program:
        result: _Program = []
        while self._peek() not in ("", "|", ")"):
            piece = self._repeated(self._atom())
            result = self._sized([*result, *_moved(piece, len(result))])
        return result

    def _sized(self, program: _Program) -> _Program:
        if len(program) > MAX_PROGRAM:
            raise self._wrong("it repeats too much")
        return program

    def _repeated(self, piece: _Program) -> _Program:
        bounds = self._quantifier()
        if bounds is None:
            return piece
        self._take("?")  # lazy: the same matches
        if self._quantifier() is not None:
            raise self._wrong("invalid nested repetition operator")
        low, high = bounds
        result: _Program = []
        for _ in range(low):
            result = self._sized([*result, *_moved(piece, len(result))])
        if high is None:
            loop = [(_SPLIT, _never, 1, len(piece) + 2), *_moved(piece, 1), (_JUMP, _never, 0, 0)]
            return self._sized([*result, *_moved(loop, len(result))])
        for _ in range(high - low):
            one = [(_SPLIT, _never, 1, len(piece) + 1), *_moved(piece, 1)]
            result = self._sized([*result, *_moved(one, len(result))])
        return result

    def _quantifier(self) -> tuple[int, int | None] | None:
        character = self._peek()
        if character in _QUANTIFIERS and character:
            self._at += 1
            return _QUANTIFIERS[character]
        if character != "{":
            return None
        inside, closed, _ = self._text[self._at + 1 :].partition("}")
        low, comma, high = inside.partition(",")
        numbers = [low, *([high] if high else [])]
        if not closed or not all(n.isascii() and n.isdigit() for n in numbers):
            return None  # a brace as it is
        self._at += len(inside) + 2
        least, most = int(low[:6]), int(high[:6]) if high else (None if comma else int(low[:6]))
        if least > MAX_REPEAT or (most is not None and (most > MAX_REPEAT or most < least)):
            raise self._wrong("invalid repeat count")
        return least, most

    # --- atoms --------------------------------------------------------------------------------------------

    def _atom(self) -> _Program:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return self._test(self._class())
        if character == ".":
            return self._test((lambda c: True) if "s" in self._flags else (lambda c: c != "\n"))
        if character in "^$":
            lines = "m" in self._flags
            if character == "^":
                return [(_ASSERT, _never, _BEGIN_LINE if lines else _BEGIN_TEXT, 0)]
            return [(_ASSERT, _never, _END_LINE if lines else _END_TEXT, 0)]
        if character in "*+?":
            raise self._wrong("missing argument to repetition operator")
        if character == "\\":
            return self._escape()
        return self._test(self._literal(character))

    def _test(self, test: _Matches) -> _Program:
        return [(_CHAR, test, 0, 0)]

    def _literal(self, wanted: str) -> _Matches:
        if "i" in self._flags:
            return lambda c: c.casefold() == wanted.casefold()
        return lambda c: c == wanted

    def _group(self) -> _Program:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._wrong("nested too deep")
        outer = self._flags
        if self._take("?"):
            if self._take("P<") or self._take("<"):
                while self._next() != ">":
                    pass
            elif not self._options():
                self._depth -= 1
                return []  # (?i): for what follows
        result = self._alternatives()
        if not self._take(")"):
            raise self._wrong("missing closing )")
        self._flags = outer
        self._depth -= 1
        return result

    def _options(self) -> bool:
        """Flags; whether a group follows."""
        on = True
        while (character := self._next()) not in ":)":
            if character == "-":
                on = False
            elif character in "imsU":
                self._flags = self._flags | {character} if on else self._flags - {character}
            else:
                raise self._wrong("invalid or unsupported Perl syntax")
        return character == ":"

    def _escape(self) -> _Program:
        character = self._next()
        assertions = {"b": _BOUNDARY, "B": _NO_BOUNDARY, "A": _BEGIN_TEXT, "z": _END_TEXT}
        if character in assertions:
            return [(_ASSERT, _never, assertions[character], 0)]
        if (named := self._named(character)) is not None:
            return self._test(named)
        return self._test(self._literal(self._escaped(character)))

    def _named(self, character: str) -> _Matches | None:
        test = _CLASSES.get(character.lower())
        return test if test is None or character.islower() else _not(test)

    def _escaped(self, character: str) -> str:
        """The character that is meant by a backslash and this one."""
        if character in _ESCAPED:
            return _ESCAPED[character]
        if character == "x":
            digits = self._next()
            if digits == "{":
                digits = ""
                while (digit := self._next()) != "}":
                    digits += digit
            else:
                digits += self._next()
            try:
                return chr(int(digits, 16))
            except (ValueError, OverflowError):
                raise self._wrong("invalid escape sequence") from None
        if character.isalnum():
            raise self._wrong("invalid escape sequence")
        return character

    def _class(self) -> _Matches:
        negated = self._take("^")
        tests: list[_Matches] = []
        while not tests or self._peek() != "]":
            tests.append(self._class_item())
        self._at += 1

        def test(character: str) -> bool:
            return any(each(character) for each in tests) != negated

        return test

    def _class_item(self) -> _Matches:
        if self._take("[:"):
            name, closed, _ = self._text[self._at :].partition(":]")
            known = _POSIX.get(name.removeprefix("^"))
            if not closed or known is None:
                raise self._wrong("invalid character class range")
            self._at += len(name) + 2
            return _not(known) if name.startswith("^") else known
        character = self._next()
        if character == "\\":
            character = self._next()
            if (named := self._named(character)) is not None:
                return named
            character = self._escaped(character)
        if self._peek() != "-" or self._text[self._at + 1 : self._at + 2] in ("", "]"):
            return self._literal(character)
        self._at += 1
        last = self._next()
        if last == "\\":
            last = self._escaped(self._next())
        if last < character:
            raise self._wrong("invalid character class range")
        if "i" in self._flags:
            return lambda c: any(character <= each <= last for each in (c, c.lower(), c.upper()))
        return lambda c: character <= c <= last


def _moved(program: _Program, by: int) -> _Program:
    """The program with its jumps for another place."""
    return [
        (what, test, first + by, second + by) if what in (_SPLIT, _JUMP) else (what, test, first, second)
        for what, test, first, second in program
    ]
