"""A template's text cut into pieces: plain text, and actions with their tokens."""

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from cluster.errors import InvalidArgument

_MAX_NUMBER = 64  # characters
_INT64 = 1 << 63


class TemplateError(InvalidArgument):
    """A template that can't be read or filled in."""


class Kind(Enum):
    """What a token is."""

    FIELD = auto()  # .Name
    DOT = auto()
    VARIABLE = auto()  # $ or $name
    WORD = auto()  # a function or keyword
    VALUE = auto()  # a literal
    SIGN = auto()  # ( ) | := = ,
    SPACE = auto()


class Token(NamedTuple):
    """A token; `value` is the literal's value, or the token's text."""

    kind: Kind
    value: object


class Text(NamedTuple):
    """Plain text."""

    text: str


class Action(NamedTuple):
    """What stands between {{ and }}."""

    tokens: tuple[Token, ...]
    source: str


_NUMBER = (
    r"[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(?:[0-9][0-9_]*)?\.[0-9]+(?:[eE][+-]?[0-9]+)?"
    r"|[0-9][0-9_]*(?:[eE][+-]?[0-9]+|\.[0-9]*(?:[eE][+-]?[0-9]+)?)?)(?![A-Za-z0-9_.])"
)
_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    rf"|(?P<number>{_NUMBER})"
    r"|(?P<field>\.[^\W\d]\w*)"
    r"|(?P<dot>\.)"
    r"|(?P<variable>\$(?:[^\W\d]\w*)?)"
    r"|(?P<word>[^\W\d]\w*)"
    r'|(?P<string>"(?:[^"\\\n]|\\.)*")'
    r"|(?P<raw>`[^`]*`)"
    r"|(?P<char>'(?:[^'\\\n]|\\[^\n][^'\n]{0,8})')"
    r"|(?P<sign>:=|[()|=,])"
)
_SINGLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)
_CONSTANTS: dict[str, object] = {"true": True, "false": False, "nil": None}


def pieces(text: str) -> Iterator[Text | Action]:
    """The template's pieces in order. Raises TemplateError."""
    position, trim = 0, False
    while (start := text.find("{{", position)) >= 0:
        begin = start + 2
        trim_left = text[begin : begin + 1] == "-" and text[begin + 1 : begin + 2] in (" ", "\t", "\r", "\n")
        plain = text[position:start]
        plain = plain.lstrip(" \t\r\n") if trim else plain
        yield Text(plain.rstrip(" \t\r\n") if trim_left else plain)
        begin += trim_left
        action, position, trim = _action(text, begin, start)
        if action is not None:
            yield action
    rest = text[position:]
    yield Text(rest.lstrip(" \t\r\n") if trim else rest)


def _action(text: str, begin: int, start: int) -> tuple[Action | None, int, bool]:
    """The action (None for a comment), where the text goes on, and whether white space is trimmed there."""
    lead = re.compile(r"[ \t\r\n]*").match(text, begin)
    inner = lead.end() if lead else begin
    if text.startswith("/*", inner):
        end = text.find("*/", inner + 2)
        close = re.compile(r"(?:[ \t\r\n]+-)?\}\}").match(text, end + 2) if end >= 0 else None
        if close is None:
            raise TemplateError(
                f"invalid template {_short(text[start : start + 200])}: a comment is not closed with */}}}}"
            )
        return None, close.end(), close[0].endswith("-}}")
    tokens: list[Token] = []
    position = begin
    while True:
        if text.startswith("}}", position):
            return Action(tuple(tokens), text[start : position + 2]), position + 2, False
        if tokens and tokens[-1].kind is Kind.SPACE and text.startswith("-}}", position):
            return Action(tuple(tokens), text[start : position + 3]), position + 3, True
        found = _TOKEN.match(text, position)
        if found is None:
            if text.find("}}", position) < 0:
                why = "an action is not closed with }}"
            else:
                why = f"unexpected {text[position]!r} in an action"
            raise TemplateError(f"invalid template {_short(text[start : start + 200])}: {why}")
        tokens.append(_token(found, text[start : start + 200]))
        position = found.end()


def _token(found: "re.Match[str]", source: str) -> Token:
    text = found[0]
    match found.lastgroup:
        case "space":
            return Token(Kind.SPACE, " ")
        case "number":
            return Token(Kind.VALUE, _number(text, source))
        case "field":
            return Token(Kind.FIELD, text[1:])
        case "dot":
            return Token(Kind.DOT, text)
        case "variable":
            return Token(Kind.VARIABLE, text)
        case "word":
            if text in _CONSTANTS:
                return Token(Kind.VALUE, _CONSTANTS[text])
            return Token(Kind.WORD, text)
        case "string":
            return Token(Kind.VALUE, _unquoted(text[1:-1], '"', source))
        case "raw":
            return Token(Kind.VALUE, text[1:-1])
        case "char":
            value = _unquoted(text[1:-1], "'", source)
            if len(value) != 1:
                raise TemplateError(f"invalid template {_short(source)}: malformed character constant {text}")
            return Token(Kind.VALUE, ord(value))
        case _:
            return Token(Kind.SIGN, text)


def _number(text: str, source: str) -> int | float:
    if len(text) <= _MAX_NUMBER:
        try:
            plain = text.replace("_", "")
            unsigned = plain.lstrip("+-").lower()
            if not unsigned.startswith(("0x", "0b", "0o")) and any(c in unsigned for c in ".e"):
                return float(plain)
            octal = len(unsigned) > 1 and unsigned[0] == "0" and unsigned.isdigit()
            value = int(plain, 8 if octal else 0)
            if -_INT64 <= value < _INT64:
                return value
        except ValueError:
            pass
    raise TemplateError(f"invalid template {_short(source)}: bad number syntax {_short(text)}")


def _unquoted(text: str, quote: str, source: str) -> str:
    def plain(found: "re.Match[str]") -> str:
        digits = found[1] or found[2] or found[3]
        if digits:
            code = int(digits, 16)
        elif found[4]:
            code = int(found[4], 8)
        elif found[5] == quote:
            return quote
        elif found[5] in _SINGLE:
            return _SINGLE[found[5]]
        else:
            raise TemplateError(f"invalid template {_short(source)}: unknown escape sequence \\{found[5]}")
        if code > 0x10FFFF or 0xD800 <= code < 0xE000 or (found[4] and code > 0xFF):
            raise TemplateError(
                f"invalid template {_short(source)}: escape sequence {found[0]} is no character"
            )
        return chr(code)

    return _ESCAPE.sub(plain, text)


def _short(text: str) -> str:
    """Quoted for a message, bounded."""
    return repr(text[:200])
