"""How `shoal network trace` looks."""

import pytest

from shoal.cli.network import show_trace

STEPS = [
    {"Stage": "source", "Good": True, "Text": "cl.1 on this node", "Advice": ""},
    {"Stage": "arrival", "Good": False, "Text": "nothing listens " + "on it " * 20, "Advice": "see its log"},
]


def test_a_way_that_ends(capsys: pytest.CaptureFixture[str]) -> None:
    show_trace({"Steps": STEPS, "Arrives": False, "Summary": "It stops here"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  ✔ source   cl.1 on this node"
    assert lines[1].startswith("  ✘ arrival  nothing listens")
    assert lines[2].startswith(" " * 13 + "it on it")
    assert lines[-1] == " " * 13 + "to do: see its log"
    assert max(map(len, lines)) <= 104


def test_a_way_that_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    show_trace({"Steps": STEPS[:1], "Arrives": True, "Summary": "Nothing in the way."})
    assert capsys.readouterr().out.splitlines()[-1] == "Nothing in the way."


def test_what_was_not_checked_looks_different(capsys: pytest.CaptureFixture[str]) -> None:
    step = {"Stage": "arrival", "Good": True, "Checked": False, "Text": "not checked: it", "Advice": ""}
    show_trace({"Steps": [STEPS[0], step], "Arrives": True, "Summary": "Nothing found."})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["✔", "?"]
