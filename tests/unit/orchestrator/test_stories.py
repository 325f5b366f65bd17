"""The golden stories: they must read as they did. `STORIES=write` writes them anew, for review."""

import os
from pathlib import Path

import pytest

from tests.unit.orchestrator.story import Story, stories


@pytest.mark.parametrize("path", stories(), ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    script = path.read_text()
    played = Story().play(script)
    if os.environ.get("STORIES") == "write":
        path.write_text(played)
    assert played == script


def test_there_are_stories() -> None:
    assert stories()
