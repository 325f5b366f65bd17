"""Frames between managers of two versions, and nonsense."""

import msgspec
import pytest

from manager.raft.wire import BadFrame, FrameReader, Heartbeat, Progress, encode


def framed(content: object) -> bytes:
    body = content if isinstance(content, bytes) else msgspec.msgpack.encode(content)
    return len(body).to_bytes(4, "little") + body


def test_a_message_of_a_newer_version_is_passed_over_and_what_follows_is_not() -> None:
    data = framed({"t": "lease", "until": 5}) + encode(Heartbeat(3))
    for cut in range(len(data)):
        reader = FrameReader()
        assert reader.feed(data[:cut]) + reader.feed(data[cut:]) == [Heartbeat(3)]


def test_a_newer_version_s_fields_are_passed_over() -> None:
    assert FrameReader().feed(framed({"t": "progress", "term": 1, "next_index": 2, "mood": "good"})) == [
        Progress(1, 2)
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"\xc1",
        b"",
        [1],
        {"t": 1},
        {"term": 1},
        {"t": "heartbeat", "term": "x"},
        {"t": b"\xff\xfe"},
        b"\xa1\xff",
    ],
    ids=repr,
)
def test_nonsense_is_refused(content: object) -> None:
    with pytest.raises(BadFrame):
        FrameReader().feed(framed(content))
