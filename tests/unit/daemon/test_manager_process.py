"""A manager process that can't run is said to, and not started again and again."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

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
