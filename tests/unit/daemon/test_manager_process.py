"""A manager process that can't run is said to, and not started again and again."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from cluster.seams import SECOND
from manager.keys.locks import UNLOCKED, Lock
from shoal.daemon import manager_process
from shoal.daemon.manager_process import ManagerFailed, ManagerProcess
from tests.fakes.clock import ManualClock


class HastyClock(ManualClock):
    """Notes each pause and cuts it short; after three there is nothing more to see."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[int] = []
        self.enough = asyncio.Event()

    async def sleep(self, nanoseconds: int) -> None:
        self.pauses.append(nanoseconds)
        if len(self.pauses) == 3:
            self.enough.set()
            await asyncio.Event().wait()


@dataclass
class OwnFiles:
    """Those of a manager that stays the user who started it."""

    socket: Path
    locks: tuple[Lock, ...] = (UNLOCKED,)

    def hand_over(self) -> None: ...
    def share_certificates(self) -> None: ...
    def keep_locks(self, locks: Sequence[Lock]) -> None: ...


def hopeless(tmp_path: Path, clock: ManualClock) -> ManagerProcess:
    """One whose certificates are missing."""
    socket = tmp_path / "manager.sock"
    arguments = [
        "--node-id=n1",
        f"--state-dir={tmp_path / 'raft'}",
        f"--certificates={tmp_path / 'certificates'}",
        f"--socket={socket}",
        "--listen=127.0.0.1:2377",
        "--advertise=127.0.0.1:2377",
        "--log-level=fatal",
    ]
    return ManagerProcess(lambda: arguments, OwnFiles(socket), clock)


async def test_a_first_start_that_fails_gives_the_reason(tmp_path: Path) -> None:
    process = hopeless(tmp_path, ManualClock())
    with pytest.raises(ManagerFailed, match=r"can't run: .*ca\.crt"):
        await process.start()
    assert process.pid is None


async def test_a_restart_that_fails_is_tried_again_ever_more_rarely(tmp_path: Path) -> None:
    clock = HastyClock()
    process = hopeless(tmp_path, clock)
    await process.resume()
    try:
        assert "can't run: " in process.error
        async with asyncio.timeout(30):
            await clock.enough.wait()
        assert clock.pauses == sorted(set(clock.pauses))
        assert clock.pauses[-1] <= manager_process.REFUSED_DELAY_MAX
    finally:
        await process.stop()
    assert process.error == ""
    assert process.pid is None


async def test_what_a_manager_that_failed_said_last_is_remembered_while_another_runs(tmp_path: Path) -> None:
    """In its place a program that fails once, as Raft does at a failed sync, and then answers."""
    clock, socket, marker = ManualClock(), tmp_path / "manager.sock", tmp_path / "failed"
    program = tmp_path / "manager.py"
    program.write_text(
        f"""
import asyncio, os, pathlib, sys; sys.path.insert(0, os.getcwd())
from aiohttp import web
from manager.exits import EXIT_FAIL_STOP, leave_last_words

async def main():
    app = web.Application()
    app.router.add_get("/_ping", lambda request: asyncio.sleep(0, web.Response()))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, {str(socket)!r}).start()
    marker = pathlib.Path({str(marker)!r})
    if not marker.exists():
        marker.touch()
        await asyncio.sleep(1)
        leave_last_words(pathlib.Path({str(socket)!r}), "the disk is dying")
        os._exit(EXIT_FAIL_STOP)
    await asyncio.Event().wait()

asyncio.run(main())
"""
    )
    process = ManagerProcess(lambda: (), OwnFiles(socket), clock)
    process._spawn = partial(spawn, process, program)  # type: ignore[method-assign]
    await process.resume()
    try:
        assert (process.error, process.epitaph) == ("", "")
        async with asyncio.timeout(30):
            while not process.error:
                await asyncio.sleep(0.02)
            assert "the disk is dying" in process.error
            while process.error:
                await clock.advance(SECOND)
                await asyncio.sleep(0.02)
        assert "the disk is dying" in process.epitaph
        await clock.advance(manager_process.REMEMBERED)
        assert process.epitaph == ""
    finally:
        await process.stop()


async def spawn(process: ManagerProcess, program: Path, extra: Sequence[str]) -> None:
    process._process = await asyncio.create_subprocess_exec(sys.executable, str(program), cwd=Path.cwd())
