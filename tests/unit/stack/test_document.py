"""YAML with places: plain words as Docker reads them, and every mistake told with its line."""

import pytest

from shoal.stack.document import MAX_VALUES, parse
from shoal.stack.merging import plain
from shoal.stack.node import ComposeError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("22:22", "22:22"),
        ("0440", 0o440),
        ("0o17", 15),
        ("0x1F", 31),
        ("08", 8),
        ("1_000", "1_000"),
        ("2001-01-01", "2001-01-01"),
        ("~", None),
        ("''", ""),
        ("'5'", "5"),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        ("true", True),
        ("!!str 5", "5"),
    ],
)
def test_plain_words(text: str, value: object) -> None:
    assert plain(parse(f"a: {text}", "f"))["a"] == value  # type: ignore[index]


def test_places() -> None:
    root = parse("a:\n  - b: 1\n  - [x,\n     y]\n", "f.yml")
    inner = root.items["a"].value[1].value[1]  # type: ignore[index, union-attr]
    assert (inner.file, inner.line, inner.path) == ("f.yml", 4, "a[1][1]")


def test_merge_keys() -> None:
    text = "x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\nz:\n  <<: [{a: 9}, *x]\n"
    found = plain(parse(text, "f"))
    assert found["y"] == {"a": 1, "b": 3}  # type: ignore[index]
    assert found["z"] == {"a": 9, "b": 2}  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2", "f:2: 'a' is written twice (first in line 1)"),
        ("a: [1", "f:1: this is no YAML"),
        ("a:\n\t- b", "f:2: this is no YAML"),
        ("a: !thing x", "f:1: a: the tag !thing is not supported"),
        ("a: !!int x", "f:1: a: 'x' is no int"),
        ("? [a]\n: b", "a key must be a plain text"),
        ("~: b", "a key is empty"),
        ("a: &a [*a]", "nested too deeply"),
        ("a: 1\n---\nb: 2", "but found another document"),
        ("a: {<<: 5}", "<< takes a mapping"),
        ("\x01", "this is no YAML"),
        ("a: " + "9" * 5000, "is no int"),
        ("[" * 3000, "f:1: "),
    ],
)
def test_mistakes(text: str, words: str) -> None:
    with pytest.raises(ComposeError) as caught:
        parse(text, "f")
    assert words in str(caught.value)


def test_aliases_do_not_explode() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ComposeError, match=f"more than {MAX_VALUES} values"):
        parse("\n".join(lines), "f")
