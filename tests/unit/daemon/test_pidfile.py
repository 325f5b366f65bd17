"""One daemon for each PID file, data root and run directory."""

from pathlib import Path

import pytest

from cluster.errors import Conflict
from shoal.daemon.pidfile import DirectoryLock, PidFile


def test_a_second_daemon_is_refused_and_the_first_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "run" / "shoald.pid"
    with PidFile(path):
        number = path.read_text()
        with pytest.raises(Conflict, match=f"another shoald \\(pid {number.strip()}\\)"), PidFile(path):
            pass
        assert path.read_text() == number
    assert not path.exists()


def test_a_stale_file_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "shoald.pid"
    path.write_text("999999999999\n")
    with PidFile(path):
        assert len(path.read_text()) < 10


def test_a_directory_has_one_daemon(tmp_path: Path) -> None:
    with (
        DirectoryLock(tmp_path / "data", "--data-root"),
        pytest.raises(Conflict, match="pass another --data-root"),
        DirectoryLock(tmp_path / "data", "--data-root"),
    ):
        pass
    with DirectoryLock(tmp_path / "data", "--data-root"):
        pass
