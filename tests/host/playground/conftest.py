"""A playground of stand-in daemons, and one that is taken down whatever happens."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.playground.layout import Settings
from shoal.playground.playground import Playground

STANDIN = (sys.executable, str(Path(__file__).with_name("standin.py")))


def settings(hosts: int = 2, managers: int = 0, **others: object) -> Settings:
    return Settings(hosts=hosts, managers=managers, daemon=STANDIN, **others)  # type: ignore[arg-type]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: the API sockets must fit a unix socket address."""
    parent = Path(tempfile.mkdtemp(prefix="shoalpg-"))
    try:
        yield parent / "p"
    finally:
        Playground(parent / "p").down()
        shutil.rmtree(parent)


@pytest.fixture(scope="module")
def shared() -> Iterator[Playground]:
    """Three running hosts, for tests that leave them as they were."""
    parent = Path(tempfile.mkdtemp(prefix="shoalpg-"))
    place = Playground(parent / "p")
    try:
        place.up(settings(hosts=3))
        yield place
    finally:
        place.down()
        shutil.rmtree(parent)
