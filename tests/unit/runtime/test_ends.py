"""How a container's end is noticed when its monitor is slow, or the container is started again at once."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from msgspec.structs import replace

from tests.fakes.clock import ManualClock, settle
from worker.runtime.ends import UNKNOWN_EXIT_CODE, Ends
from worker.runtime.model import ContainerConfig, ContainerState, ContainerStatus, ProcessIdentity
from worker.runtime.table import ContainerTable

FIRST, SECOND = (ProcessIdentity(pid=pid, start_time=pid, boot_id="b") for pid in (1, 2))


def running(process: ProcessIdentity) -> ContainerState:
    return ContainerState(status=ContainerStatus.RUNNING, process=process, pid=process.pid)


class World:
    """A container whose process is a pipe: it ends when the writing end is closed."""

    def __init__(self, directory: Path) -> None:
        self.table, self.clock = ContainerTable(), ManualClock()
        self.entry = self.table.add(ContainerConfig(id="c", args=("run",), layers=()), running(FIRST))
        layout = SimpleNamespace(of=lambda id: SimpleNamespace(exit_file=directory / id))
        launcher = cast("Any", SimpleNamespace(layout=layout, out_of_memory=lambda _: False))
        self.ends = Ends(self.table, launcher, self.clock, self.table.update, self.clear)
        reader, self.writer = os.pipe()
        self.ends.hold("c", reader)

    async def clear(self, id: str) -> None:
        """There is nothing to give back."""

    async def end_process(self) -> None:
        os.close(self.writer)
        await asyncio.sleep(0.01)  # the loop sees it by itself
        await settle()


async def test_a_process_whose_monitor_never_writes_has_ended(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.end_process()
    assert world.entry.state.running
    await world.clock.advance(3_000_000_000)
    assert (world.entry.state.status, world.entry.state.exit_code) == ("exited", UNKNOWN_EXIT_CODE)
    await world.ends.close()


async def test_an_earlier_end_is_not_taken_for_that_of_the_next_run(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.end_process()
    world.ends.ended(world.entry, 0, "")  # the exit code came after all,
    world.table.update(world.entry, replace(running(SECOND)))  # and the container was started again at once
    await world.clock.advance(3_000_000_000)
    assert world.entry.state.running
    await world.ends.close()
