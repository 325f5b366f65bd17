"""Go's template functions, and SwarmKit's `join`."""

import re
from collections.abc import Callable, Mapping, Sequence

from cluster.template.lexer import TemplateError
from cluster.template.values import Record, equal, less, text_of, truth, type_name

Function = Callable[..., object]
MAX_PADDING = 100_000  # characters that the widths in one call of printf may add
_VERB = re.compile(r"%([-+# 0]*)(\d+|\*)?(?:\.(\d*))?(.)?", re.DOTALL)


def _index(collection: object, *keys: object) -> object:
    for key in keys:
        if isinstance(collection, Record) or not isinstance(collection, Mapping | list | tuple | str):
            raise TemplateError(f"can't index item of type {type_name(collection)}")
        if isinstance(collection, Mapping):
            if not isinstance(key, str):
                raise TemplateError(f"a map is indexed by a string, not by {type_name(key)}")
            collection = collection.get(key, "")
            continue
        if not isinstance(key, int) or isinstance(key, bool):
            raise TemplateError(f"cannot index with type {type_name(key)}")
        if not 0 <= key < len(collection):
            raise TemplateError(f"index out of range: {key}")
        item = collection[key]
        collection = ord(item) if isinstance(collection, str) else item
    return collection


def _slice(collection: object, start: object = 0, end: object = None) -> object:
    if not isinstance(collection, str | list | tuple):
        raise TemplateError(f"can't slice item of type {type_name(collection)}")
    end = len(collection) if end is None else end
    if not isinstance(start, int) or not isinstance(end, int):
        raise TemplateError(f"cannot slice with types {type_name(start)} and {type_name(end)}")
    if not 0 <= start <= end <= len(collection):
        raise TemplateError(f"slice bounds out of range: {start}:{end}")
    return collection[start:end]


def _len(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode(errors="surrogatepass"))
    if isinstance(value, Record) or not isinstance(value, Mapping | Sequence):
        raise TemplateError(f"len of type {type_name(value)}")
    return len(value)


def _eq(first: object, *others: object) -> bool:
    if not others:
        raise TemplateError("missing argument for comparison")
    return any([equal(first, other) for other in others])


def _join(*parts: object) -> str:
    if not parts or not all(isinstance(part, str) for part in parts):
        raise TemplateError("join takes strings: the separator first")
    separator, *rest = (text_of(part) for part in parts)
    return separator.join(rest)


def _print(*values: object) -> str:
    """fmt.Sprint: a space between neighbours of which neither is a string."""
    text = ""
    for number, value in enumerate(values):
        between = number and not isinstance(value, str) and not isinstance(values[number - 1], str)
        text += (" " if between else "") + text_of(value)
    return text


def _println(*values: object) -> str:
    return " ".join(map(text_of, values)) + "\n"


def _printf(layout: object = None, *values: object) -> str:
    if not isinstance(layout, str):
        raise TemplateError("printf takes a format first, a string")
    rest = list(values)
    padding = 0

    def fill(found: "re.Match[str]") -> str:
        nonlocal padding
        flags, width, precision, verb = found[1], found[2], found[3], found[4]
        if verb is None:
            return "%!(NOVERB)"
        if verb == "%":
            return "%"
        if width == "*":
            raise TemplateError("printf: a width of * is not supported")
        if len(width or "") + len(precision or "") > 8:
            raise TemplateError("printf: a width is too large")
        padding += int(width or 0) + int(precision or 0)
        if padding > MAX_PADDING:
            raise TemplateError(f"printf: all widths together are at most {MAX_PADDING}")
        if not rest:
            return f"%!{verb}(MISSING)"
        value = rest.pop(0)
        text = _formatted(value, verb, flags, None if precision is None else int(precision or 0))
        if text is None:
            return f"%!{verb}({type_name(value)}={text_of(value)})"
        return _padded(text, flags, int(width or 0), isinstance(value, int | float))

    text = _VERB.sub(fill, layout)
    if rest:
        extra = ", ".join(f"{type_name(value)}={text_of(value)}" for value in rest)
        text += f"%!(EXTRA {extra})"
    return text


def _formatted(value: object, verb: str, flags: str, precision: int | None) -> str | None:
    """One value by a verb; None when the verb does not go with it."""
    if verb == "v":
        return text_of(value)
    if verb == "T":
        return type_name(value)
    if verb == "t":
        return text_of(value) if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return _formatted_text(value, verb, precision)
    sign = "+" if "+" in flags else " " if " " in flags else "-"
    if isinstance(value, int):
        if verb in "doxXb":
            prefix = "#" if "#" in flags and verb != "d" else ""
            return f"{value:{sign}{prefix}{verb}}"
        if verb in "cUq":
            valid = 0 <= value < 0xD800 or 0xE000 <= value <= 0x10FFFF
            character = chr(value) if valid else "\N{REPLACEMENT CHARACTER}"
            return {"c": character, "U": f"U+{value:04X}", "q": f"'{character}'"}[verb]
        return None
    if isinstance(value, float) and verb in "feEgGF":
        default = "" if verb in "gG" else ".6"
        return f"{value:{sign}{default if precision is None else f'.{precision}'}{verb}}"
    if verb == "s":
        return text_of(value)
    return None


def _formatted_text(value: str, verb: str, precision: int | None) -> str | None:
    cut = value if precision is None else value[:precision]
    match verb:
        case "s":
            return cut
        case "q":
            return '"' + cut.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        case "x" | "X":
            digits = cut.encode(errors="surrogatepass").hex()
            return digits.upper() if verb == "X" else digits
        case _:
            return None


def _padded(text: str, flags: str, width: int, number: bool) -> str:
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags:
        return text.zfill(width) if number else text.rjust(width, "0")
    return text.rjust(width)


BUILTINS: dict[str, Function] = {
    "and": lambda *values: None,  # these two look at their arguments one after another: see evaluate
    "or": lambda *values: None,
    "not": lambda value: not truth(value),
    "len": _len,
    "index": _index,
    "slice": _slice,
    "eq": _eq,
    "ne": lambda left, right: not equal(left, right),
    "lt": less,
    "le": lambda left, right: not less(right, left),
    "gt": lambda left, right: less(right, left),
    "ge": lambda left, right: not less(left, right),
    "join": _join,
    "print": _print,
    "println": _println,
    "printf": _printf,
}
