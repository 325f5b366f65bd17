"""Sizes, times and tables for people."""

from datetime import UTC, datetime, timedelta

import pytest

from shoal.cli.output import ago, parse_time, size, table


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0B"), (999, "999B"), (12_300, "12.3kB"), (5 * 10**9, "5GB"), (2e15, "2e+03TB")]
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (1, "1 second ago"),
        (90, "90 seconds ago"),
        (150, "2 minutes ago"),
        (7200, "2 hours ago"),
        (3 * 86400, "3 days ago"),
    ],
)
def test_ages(seconds: int, text: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert ago(now - timedelta(seconds=seconds), now) == text


def test_go_timestamps() -> None:
    assert parse_time("2026-01-01T00:00:00.123456789Z") == datetime(2026, 1, 1, 0, 0, 0, 123456, UTC)
    assert parse_time("0001-01-01T00:00:00Z") is None
    assert parse_time("") is None


def test_tables_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    table(["A", "LONG"], [["aaa", "b"]])
    assert capsys.readouterr().out == "A     LONG\naaa   b\n"
