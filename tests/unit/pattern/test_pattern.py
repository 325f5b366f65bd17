"""Patterns of strangers: they mean what Go's mean, and are never slow."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InvalidArgument
from cluster.pattern import Pattern, compiled

pieces = st.recursive(
    st.sampled_from(
        ["a", "b", ".", "^", "$", r"\d", r"\W", r"\b", "[ab]", "[^a]", "[a-c1]", r"\.", r"\x61", "(?i:A)"]
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.tuples(inner, inner).map("|".join),
        inner.map(lambda p: f"(?:{p})*"),
        inner.map(lambda p: f"({p})+?"),
        inner.map(lambda p: f"(?:{p}){{1,2}}"),
    ),
    max_leaves=6,
)


@given(pattern=pieces, text=st.text("abA1. \n", max_size=6))
def test_it_finds_what_python_finds(pattern: str, text: str) -> None:
    # Python's $ also stands before a last line break, Go's does not.
    expected = re.search(pattern.replace("$", r"\Z"), text, re.ASCII) is not None
    assert Pattern(pattern).search(text) is expected


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("", "anything", True),
        ("web", "my-web-1", True),
        ("^web$", "web", True),
        ("^web$", "web2", False),
        ("^/?web", "/web", True),
        ("a{2}", "a", False),
        ("a{,2}", "a{,2}", True),
        ("x{2,}", "axxx", True),
        ("(?i)WEB", "web", True),
        ("(?i)[A-F]+$", "cafe", True),
        ("(?P<n>a|b)c", "bc", True),
        ("[[:digit:]]", "a1", True),
        ("[[:^digit:]]", "11", False),
        ("[]a]", "]", True),
        ("[a-]", "-", True),
        (r"[\d_]", "7", True),
        (r"\x{61}\z", "a", True),
        ("a.c", "a\nc", False),
        ("(?s)a.c", "a\nc", True),
        ("(?m)^b$", "a\nb\nc", True),
        ("(|a)+", "", True),
    ],
)
def test_go_s_meaning(pattern: str, text: str, found: bool) -> None:
    assert compiled(pattern).search(text) is found


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "(",
            ")",
            "a)",
            "[",
            "[a",
            "*a",
            "+",
            "a{2000}",
            "a{3,2}",
            "[b-a]",
            "[[:no:]]",
            "\\",
            r"\q",
            r"\xzz",
        ),
        *("(?=a)", "(?P<a", "(((a{99}){99}){99}){99}", "(" * 500, "a" * 5000, r"\x{fffffffff}"),
    ],
)
def test_what_is_no_pattern_is_refused_in_a_sentence(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid pattern"):
        Pattern(pattern)


@pytest.mark.timeout(20)  # Python's own matcher needs years
@pytest.mark.parametrize("pattern", ["(a+)+$", "^(a|a)*$", "(a*)*b", "(.*a){12}$", "(a?){30}a{30}"])
def test_patterns_that_make_a_backtracking_matcher_hang(pattern: str) -> None:
    assert Pattern(pattern).search("a" * 29 + "!") is False


@given(st.text(max_size=30))
def test_whatever_the_text_it_is_a_pattern_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidArgument):
        assert Pattern(text).search(text) in (True, False)
