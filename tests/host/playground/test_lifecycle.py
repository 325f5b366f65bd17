"""Up, down, and everything that can go wrong between them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.errors import Conflict, InvalidArgument, NotFound, ShoalError
from shoal.playground import processes
from shoal.playground.playground import Playground
from tests.host.playground import remains
from tests.host.playground.conftest import STANDIN, settings

pytestmark = pytest.mark.host


def test_down_leaves_nothing(folder: Path) -> None:
    before = remains.snapshot()
    place = Playground(folder)
    place.up(settings(hosts=2))
    place.partition("host1")
    assert remains.snapshot() == before  # nothing shows in the machine's own namespaces, even while it is up
    place.run("client", ["sh", "-c", "sleep 100 >/dev/null 2>&1 & sleep 101 >/dev/null 2>&1 &"])
    assert place.down() == 4
    assert remains.of(folder) == []
    assert remains.snapshot() == before
    assert place.down() == 0


def test_up_twice_says_so_and_changes_nothing(folder: Path) -> None:
    place = Playground(folder)
    place.up(settings(hosts=1))
    pids = processes.inits(place.layout.directory)
    with pytest.raises(Conflict, match="already up"):
        place.up(settings(hosts=3))
    assert processes.inits(place.layout.directory) == pids
    assert len(place.hosts()) == 1


def test_two_playgrounds_side_by_side_do_not_meet(folder: Path) -> None:
    one, two = Playground(folder.with_name("one")), Playground(folder.with_name("two"))
    try:
        one.up(settings(hosts=1))
        two.up(settings(hosts=1))
        one.run("host1", ["touch", "/run/mark"])
        assert two.run("host1", ["test", "-e", "/run/mark"]).returncode == 1
        one.down()
        assert [s.state for s in two.states()] == ["running"]
    finally:
        one.down()
        two.down()


def test_kept_state_is_taken_up_again(folder: Path) -> None:
    place = Playground(folder)
    place.up(settings(hosts=1))
    (place.host("host1").home / "mark").touch()
    place.down(keep=True)
    assert processes.find(place.layout.directory) == []
    place.up(settings(hosts=1))
    assert (place.host("host1").home / "mark").exists()


def test_a_folder_with_other_things_is_refused_and_left_alone(folder: Path) -> None:
    (folder / "host1").mkdir(parents=True)
    (folder / "host1/precious").touch()
    with pytest.raises(InvalidArgument, match="choose an empty folder"):
        Playground(folder).up(settings(hosts=1))
    Playground(folder).down()
    assert (folder / "host1/precious").exists()


def test_a_daemon_that_dies_is_reported_with_its_log(folder: Path) -> None:
    place = Playground(folder)
    with pytest.raises(ShoalError, match=r"host1 ended \(exit status 1\).*told to die"):
        place.up(settings(hosts=1, daemon_args=("--die",)))
    place.down()
    assert remains.of(folder) == []


def test_a_missing_playground_is_said_to_be_missing(folder: Path) -> None:
    with pytest.raises(NotFound, match="shoal playground up"):
        Playground(folder).states()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.06, 0.12, 0.2, 0.3])
def test_down_cleans_up_after_an_interrupted_up(folder: Path, how: signal.Signals, delay: float) -> None:
    before = remains.snapshot()
    command = [
        sys.executable,
        "-m",
        "shoal.cli.main",
        "playground",
        "up",
        "--dir",
        str(folder),
        "--hosts",
        "2",
    ]
    daemon = " ".join(STANDIN)
    with subprocess.Popen(
        [*command, "--managers", "0", "--daemon", daemon], stderr=subprocess.PIPE, env=os.environ
    ) as up:
        deadline = time.monotonic() + 20
        while not (folder / "playground.json").exists():  # the delay counts from the first trace on disk
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(delay)
        up.send_signal(how)
        up.communicate(timeout=60)
    Playground(folder).down()
    assert remains.of(folder) == []
    assert remains.snapshot() == before


def test_down_works_when_the_folder_is_gone(folder: Path) -> None:
    place = Playground(folder)
    place.up(settings(hosts=1))
    shutil.rmtree(folder)
    assert place.down() == 3
    assert remains.of(folder) == []
