"""What systemd hears, and that a hung manager is ended."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import Unavailable
from cluster.seams import SECOND
from shoal.daemon.manager_watch import HANGS, KILLED, ManagerWatch
from shoal.daemon.systemd import Systemd
from tests.fakes.clock import ManualClock, settle


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def heard(notify: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(notify.recv(4096).decode())
        except BlockingIOError:
            return messages


def environment(notify: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": notify.getsockname(), "PATH": "/bin", **more}


async def test_readiness_status_and_the_end_are_told(notify: socket.socket) -> None:
    clock, given = ManualClock(), environment(notify)
    systemd = Systemd(given, clock)
    assert given == {"PATH": "/bin"}
    assert systemd.watchdog == 0
    systemd.ready()
    status = ["one"]
    running = asyncio.create_task(systemd.run(lambda: True, lambda: status[0]))
    await settle()
    await clock.advance(30 * SECOND)
    status[0] = "two"
    await clock.advance(10 * SECOND)
    systemd.stopping()
    assert heard(notify) == ["READY=1", "STATUS=one", "STATUS=two", "STOPPING=1"]
    running.cancel()


async def test_the_watchdog_is_fed_three_times_as_often_as_it_needs_and_only_in_health(
    notify: socket.socket,
) -> None:
    clock = ManualClock()
    systemd = Systemd(environment(notify, WATCHDOG_USEC="6000000", WATCHDOG_PID=str(os.getpid())), clock)
    well = [True]
    running = asyncio.create_task(systemd.run(lambda: well[0], lambda: "s"))
    await settle()
    for _ in range(6):
        await clock.advance(1 * SECOND)
    assert heard(notify) == ["STATUS=s"] + 4 * ["WATCHDOG=1"]
    well[0] = False
    for _ in range(6):
        await clock.advance(1 * SECOND)
    assert heard(notify) == []
    running.cancel()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"},
    ],
    ids=["no systemd", "a socket that is gone", "another process's watchdog"],
)
async def test_without_systemd_nothing_is_told_and_nothing_fails(given: dict[str, str]) -> None:
    clock = ManualClock()
    systemd = Systemd(given, clock)
    assert systemd.watchdog == 0
    systemd.ready()
    running = asyncio.create_task(systemd.run(lambda: True, lambda: "s"))
    await settle()
    assert not running.done()
    running.cancel()


async def test_an_abstract_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0shoal-test-{os.getpid()}")
        sock.setblocking(False)
        Systemd({"NOTIFY_SOCKET": f"@shoal-test-{os.getpid()}"}, ManualClock()).ready()
        assert heard(sock) == ["READY=1"]


# --- the manager's watch ----------------------------------------------------------------------------------


class Proxy:
    """A manager that answers, or not."""

    attached = True

    def __init__(self) -> None:
        self.answers = True

    async def call(self, method: str, path: str, *, timeout: float) -> Any:
        assert (method, path) == ("GET", "/internal/alive")
        if not self.answers:
            raise Unavailable("no answer")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


async def passes(clock: ManualClock, seconds: int) -> None:
    for _ in range(seconds):
        await clock.advance(1 * SECOND)


async def test_a_manager_that_hangs_is_ended_but_not_too_soon(sleeper: subprocess.Popen[bytes]) -> None:
    clock, proxy = ManualClock(), Proxy()
    watch = ManagerWatch(lambda: sleeper.pid if sleeper.poll() is None else None, proxy, clock)  # type: ignore[arg-type]
    running = asyncio.create_task(watch.run())
    await passes(clock, 200)
    proxy.answers = False
    await passes(clock, HANGS // SECOND - 10)
    proxy.answers = True
    await passes(clock, 10)
    proxy.answers = False
    await passes(clock, HANGS // SECOND - 10)
    assert sleeper.poll() is None
    await passes(clock, 20)
    assert sleeper.wait(10) == -9
    assert watch.well()
    running.cancel()


async def test_a_new_manager_has_time_to_begin(sleeper: subprocess.Popen[bytes]) -> None:
    clock, proxy, pids = ManualClock(), Proxy(), [1]
    proxy.answers = False
    watch = ManagerWatch(lambda: pids[0], proxy, clock)  # type: ignore[arg-type]
    running = asyncio.create_task(watch.run())
    await passes(clock, HANGS // SECOND - 10)
    pids[0] = sleeper.pid
    await passes(clock, HANGS // SECOND - 10)
    assert sleeper.poll() is None
    running.cancel()


async def test_one_that_can_not_be_ended_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, proxy = ManualClock(), Proxy()
    proxy.answers = False
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid))
    watch = ManagerWatch(lambda: 4711, proxy, clock)  # type: ignore[arg-type]
    running = asyncio.create_task(watch.run())
    await passes(clock, HANGS // SECOND + 10)
    assert set(killed) == {4711}
    assert watch.well()
    await passes(clock, KILLED // SECOND + 10)
    assert not watch.well()
    running.cancel()
