"""A fake engine, and a way to run `shoal` against it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shoal.cli import progress
from shoal.cli.main import main
from tests.fakes.engine_api import FakeEngine, serve

Run = Callable[..., "Result"]


@dataclass(frozen=True)
class Result:
    """What a command did."""

    status: int
    out: str
    err: str


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    with serve(tmp_path / "e.sock") as running:
        yield running


@pytest.fixture
def run(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run `shoal` with these words against the fake engine."""

    def call(*words: str) -> Result:
        with pytest.raises(SystemExit) as ending:
            main(["--host", f"unix://{tmp_path / 'e.sock'}", *words])
        out, err = capfdbinary.readouterr()
        code = ending.value.code
        assert isinstance(code, int)
        return Result(code, out.decode(), err.decode())

    return call


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services count as stable at once, and the environment names no engine."""
    monkeypatch.setattr(progress, "STABLE_SECONDS", 0.0)
    for name in ("SHOAL_HOST", "DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
