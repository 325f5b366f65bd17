"""Terminals' detach keys, and processes as ps lists them."""

import pytest

from cluster.errors import InvalidArgument
from worker.api.interactive import Detached, Escape, detach_keys
from worker.containers.top import select


@pytest.mark.parametrize(
    ("text", "keys"),
    [("", b"\x10\x11"), ("ctrl-a,d", b"\x01d"), ("ctrl-[", b"\x1b"), ("q", b"q"), ("ctrl-@", b"\x00")],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert detach_keys(text) == keys
    for bad in ("ctrl-", "ctrl-ä", "ab", "a,,b", ","):
        with pytest.raises(InvalidArgument, match="detach keys"):
            detach_keys(bad)


@pytest.mark.parametrize(
    ("typed", "passed", "left"),
    [
        ([b"abc"], b"abc", False),
        ([b"ab\x10\x11"], b"ab", True),
        ([b"ab\x10", b"\x11cd"], b"ab", True),
        ([b"ab\x10", b"cd"], b"ab\x10cd", False),
        ([b"\x10", b"\x10", b"\x11"], b"\x10", True),
        ([b"a", b"b"], b"ab", False),
    ],
)
def test_typing_the_keys(typed: list[bytes], passed: bytes, left: bool) -> None:
    escape, found = Escape(b"\x10\x11"), b""
    try:
        for data in typed:
            found += escape.feed(data)
    except Detached as error:
        assert left
        found += error.before
    else:
        assert not left
    assert found == passed


def test_processes() -> None:
    output = "UID   PID CMD\nroot  7 sleep 1000\nroot  8 other\nroot  9 sh -c a  b\n"
    assert select(output, {7, 9}) == (
        ["UID", "PID", "CMD"],
        [["root", "7", "sleep 1000"], ["root", "9", "sh -c a  b"]],
    )
    with pytest.raises(InvalidArgument, match="PID"):
        select("CMD\nsleep\n", {7})
