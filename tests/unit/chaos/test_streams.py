"""The checker of event streams: gaps, repetitions, wrong order and disagreement are noticed."""

from tests.chaos.history import Change, Operation, Seen, Stream
from tests.chaos.streams import check


def change(id: str, version: int, old: int = 0, action: str = "", at: int = 0) -> Change:
    return Change("config", id, action or ("update" if old else "create"), id, version, old, at)


A1, A2, A3 = change("a", 5), change("a", 7, 5), change("a", 9, 7, "remove")
B1 = change("b", 6)
WHOLE = [A1, B1, A2, A3]


def stream(*changes: Change, after: int = 0, end: str = "open", manager: str = "m1") -> Stream:
    return Stream(manager, after, list(changes), end)  # type: ignore[arg-type]


def problems(*streams: Stream, seen: Seen | None = None, last: int = 9) -> list[str]:
    read = Operation(
        client="c", kind="config", name="n", action="read", invoked=0, returned=1, outcome="ok", seen=seen
    )
    return check(streams, [read], last)


def test_whole_streams_are_fine() -> None:
    whole = stream(*WHOLE)
    late = stream(A2, A3, after=6, manager="m2")
    cut = stream(A1, B1, end="broken", manager="m3")
    told = stream(A1, B1, A2, end="said", manager="m3")
    assert problems(whole, late, cut, told, stream(end="broken"), seen=Seen("a", 7, "")) == []


def test_a_missing_event_is_noticed_by_another_stream_by_a_read_and_by_the_next_version() -> None:
    whole = stream(*WHOLE)
    assert any("lacks config b at 6" in text for text in problems(whole, stream(A1, A2, A3)))
    assert any("lacks config c at 8" in text for text in problems(whole, seen=Seen("c", 8, "")))
    assert any("has a gap" in text for text in problems(stream(A1, B1, A3)))
    assert any("has a gap" in text for text in problems(stream(A3, after=6)))
    assert any("lacks" in text for text in problems(whole, stream(A1, A2, A3, end="broken")))


def test_what_comes_after_the_last_event_of_a_stream_that_is_open_is_owed() -> None:
    assert any("lacks" in text for text in problems(stream(*WHOLE), stream(A1, B1)))
    assert problems(stream(*WHOLE), stream(A1, B1, end="said")) == []


def test_order_repetition_and_resurrection() -> None:
    assert any("after a change" in text for text in problems(stream(A1, A2, B1, A3)))
    assert any("twice" in text for text in problems(stream(A1, A1, B1, A2, A3)))
    assert any("removal" in text for text in problems(stream(*WHOLE, change("a", 12, 9)), last=12))
    assert any("beginning" in text for text in problems(stream(*WHOLE, after=5)))


def test_a_stream_that_ends_as_if_it_were_whole() -> None:
    assert any("as if it were whole" in text for text in problems(stream(*WHOLE, end="silent")))


def test_streams_must_agree() -> None:
    other = stream(change("a", 5, at=1), B1, A2, A3, manager="m2")
    assert any("another stream" in text for text in problems(stream(*WHOLE), other))
