"""Variables in Compose files."""

import pytest

from shoal.stack import environment
from shoal.stack.interpolation import interpolate
from shoal.stack.node import ComposeError, Node

_SET = {"A": "1", "EMPTY": "", "Nested_2": "two"}


def _interpolated(text: str) -> tuple[object, list[str]]:
    unset: list[str] = []
    return interpolate(Node(text, "f", 3, "a.b"), _SET, unset.append).value, unset


@pytest.mark.parametrize(
    ("text", "value", "unset"),
    [
        ("$A-${A}", "1-1", []),
        ("$$A", "$A", []),
        ("$$$A", "$1", []),
        ("${NO}x", "x", ["NO"]),
        ("${NO-d}${EMPTY-d}", "d", []),
        ("${NO:-d}${EMPTY:-d}", "dd", []),
        ("${NO:-a:b/c}", "a:b/c", []),
        ("${NO:-${A}}", "1", []),
        ("${NO:-${NO2:-${Nested_2}}}", "two", []),
        ("${A:-${NO}}", "1", []),
        ("${A:+yes}${NO:+yes}${EMPTY:+yes}${EMPTY+set}", "yesset", []),
        ("${A:?needed}", "1", []),
        ("${NO:-$$x}", "$x", []),
        ("{}", "{}", []),
    ],
)
def test_forms(text: str, value: str, unset: list[str]) -> None:
    assert _interpolated(text) == (value, unset)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${NO:?say it}", "required variable NO is missing a value: say it"),
        ("${EMPTY:?}", "required variable EMPTY is missing a value"),
        ("${NO?x}", "required variable NO"),
        ("${", "a name must follow"),
        ("${A", "write ${NAME}"),
        ("${A:-x", "a ${ has no }"),
        ("$", "write $$"),
        ("$1", "write $$"),
        ("${A!}", "write ${NAME}"),
        ("${NO:-" * 30, "nested too deeply"),
    ],
)
def test_mistakes(text: str, words: str) -> None:
    with pytest.raises(ComposeError) as caught:
        _interpolated(text)
    assert str(caught.value).startswith("f:3: a.b: invalid interpolation")
    assert words in str(caught.value)


def test_env_files() -> None:
    text = "# c\n\nA=1\nexport B='x y'\nC=\"q\"\nD=v # remark\nE\nF=a#b\n"
    assert environment.parse(text, "f") == {
        "A": "1", "B": "x y", "C": "q", "D": "v", "E": None, "F": "a#b",
    }  # fmt: skip
