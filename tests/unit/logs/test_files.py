"""Reading logs: any tail of any rotated log is the end of the whole."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import InvalidArgument
from tests.fakes.clock import ManualClock
from worker.logs.files import Tail, last_lines, log_files
from worker.logs.format import Joiner, LogEntry, parse_line, parse_timestamp
from worker.logs.reader import LogQuery, read_log
from worker.logs.rotation import LogRotator, RotationPolicy, compress, rotate, rotation_policy
from worker.runtime.model import LogConfig

START = 1_700_000_000_000_000_000


def stamp(nanoseconds: int) -> str:
    assert nanoseconds < 1_000_000_000
    return f"2023-11-14T22:13:20.{nanoseconds:09}+00:00"


def write(directory: Path, lines: list[str], sizes: list[int]) -> Path:
    """The lines spread over rotated files, `sizes` lines each, the rest in the newest."""
    path = directory / "container.log"
    for old in directory.iterdir():
        old.unlink()
    pieces, rest = [], lines
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    for number, piece in enumerate(reversed(pieces), 1):
        (directory / f"container.log.{number}").write_text("".join(piece))
    path.write_text("".join(rest))
    return path


def test_timestamps() -> None:
    assert parse_timestamp(b"2023-11-14T22:13:20.000000005+00:00") == START + 5
    assert parse_timestamp(b"2023-11-14T23:13:20.5+01:00") == START + 500_000_000
    assert parse_timestamp(b"2023-11-14T22:13:20Z") == START


def test_damaged_lines_are_left_out() -> None:
    for raw in (
        b"",
        b"x",
        b"2023 stdout F x",
        b"2023-11-14T22:13:20Z stdin F x",
        b"2023-11-14T22:13:20Z stdout Q x",
    ):
        assert parse_line(raw) is None


def test_parts_are_joined_for_each_stream() -> None:
    joiner = Joiner()
    raws = [b"stdout P one ", b"stderr F other", b"stdout F two", b"stdout P open"]
    lines = [parse_line(f"{stamp(i)} ".encode() + raw) for i, raw in enumerate(raws)]
    entries = [entry for line in lines if line is not None and (entry := joiner.add(line))]
    assert entries == [LogEntry(START + 1, 2, b"other\n"), LogEntry(START, 1, b"one two\n")]
    assert joiner.rest() == [LogEntry(START + 3, 1, b"open")]
    assert joiner.rest() == []


line = st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from("FFFP"), st.text("ab ", max_size=6))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(line, max_size=30), sizes=st.lists(st.integers(0, 8), max_size=4), count=st.integers(0, 12)
)
async def test_a_tail_is_the_end_of_the_whole(
    tmp_path: Path, lines: list[tuple[str, str, str]], sizes: list[int], count: int
) -> None:
    # Every stream ends with a whole line, so that entries and their count are beyond doubt.
    lines = [*lines, ("stdout", "F", "last"), ("stderr", "F", "last")]
    texts = [f"{stamp(i)} {stream} {tag} {text}\n" for i, (stream, tag, text) in enumerate(lines)]
    path = write(tmp_path, texts, sizes)
    if count % 2:
        compress(path)
    whole = [entry async for entry in read_log(path, LogQuery())]
    assert (
        b"".join(entry.data for entry in whole if entry.stream == 1)
        == "".join(
            text + ("\n" if tag == "F" else "") for stream, tag, text in lines if stream == "stdout"
        ).encode()
    )
    tail = [entry async for entry in read_log(path, LogQuery(tail=count))]
    assert tail == (whole[-count:] if count else [])
    assert len(last_lines(path, 10_000)) == len(lines)


async def test_spans_and_streams(tmp_path: Path) -> None:
    path = write(
        tmp_path, [f"{stamp(i)} {'stdout' if i % 2 else 'stderr'} F {i}\n" for i in range(10)], [3, 3]
    )
    assert len(log_files(path)) == 3

    async def read(**query: int) -> list[int]:
        return [int(entry.data) async for entry in read_log(path, LogQuery(**query))]

    assert await read(since=START + 4) == [4, 5, 6, 7, 8, 9]
    assert await read(until=START + 2) == [0, 1, 2]
    assert await read(since=START + 3, until=START + 5) == [3, 4, 5]
    assert await read(stderr=False, tail=4) == [7, 9]
    assert await read(tail=0) == []


async def test_no_log_yet(tmp_path: Path) -> None:
    assert [entry async for entry in read_log(tmp_path / "container.log", LogQuery())] == []
    assert [entry async for entry in read_log(tmp_path / "container.log", LogQuery(tail=5))] == []


def test_policies() -> None:
    assert rotation_policy(LogConfig()) is None
    assert rotation_policy(LogConfig(driver="local")) == RotationPolicy(20 << 20, 5, compress=True)
    assert rotation_policy(LogConfig(options={"max-size": "10m", "max-file": "3"})) == RotationPolicy(
        10 << 20, 3
    )
    assert rotation_policy(LogConfig(options={"max-size": "1k"})) == RotationPolicy(1024, 1)
    assert rotation_policy(LogConfig(driver="none")) is None
    for options, message in (
        ({"max-size": "x"}, "invalid size"),
        ({"max-size": "1k", "max-file": "0"}, "max-file"),
        ({"colour": "red"}, "unknown log opt 'colour'"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            rotation_policy(LogConfig(options=options))
    with pytest.raises(InvalidArgument, match="no log driver named"):
        rotation_policy(LogConfig(driver="splunk"))


async def test_old_files_are_compressed_and_still_read(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    written = 0

    def write_more(count: int) -> None:
        nonlocal written
        with path.open("a") as file:
            file.writelines(
                f"{stamp(number)} stdout F {number}\n" for number in range(written, written + count)
            )
        written += count

    write_more(3)
    tail = Tail(path)
    seen = [line.rsplit(b" ", 1)[1] for line in tail.read()]
    for _ in range(4):
        write_more(2)
        rotate(path, tmp_path / "ctl", 4)
        write_more(1)
        compress(path)
    seen += [line.rsplit(b" ", 1)[1] for lines in iter(tail.read, []) for line in lines]
    names = [file.name.removeprefix("container.log") for file in log_files(path)]
    assert names == [".3.gz", ".2.gz", ".1.gz", ""]
    kept = [int(entry.data) async for entry in read_log(path, LogQuery())]
    assert kept == list(range(written - 10, written))
    assert [int(entry.data) async for entry in read_log(path, LogQuery(tail=5))] == kept[-5:]
    # Who was reading the first file goes on where it ended; nothing comes twice.
    assert [int(text) for text in seen] == [*range(5), *kept]
    tail.close()


def test_one_file_beside_the_present_one(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    for round in range(3):
        path.write_text(f"{stamp(round)} stdout F {round}\n")
        rotate(path, tmp_path / "ctl", 2)
        path.write_text("")
        compress(path)
    assert [file.name for file in log_files(path)] == ["container.log.1.gz", "container.log"]


def test_a_log_that_can_not_be_rotated_keeps_no_other_from_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "good").mkdir()
    bad, good = tmp_path / "bad" / "log", tmp_path / "good" / "log"
    for path in (bad, good):
        path.write_bytes(b"x" * 100)
    (tmp_path / "bad" / "log.1").mkdir()  # in the way
    policy = RotationPolicy(10, 2)
    LogRotator(ManualClock(), lambda: [(path, path.with_name("ctl"), policy) for path in (bad, good)]).tick()
    assert good.with_name("log.1").exists()
    assert "can't rotate a log" in caplog.text
