"""Interruptions and full disks: nothing half-made stays, and what is true is not lost."""

import asyncio
import errno
import os
import threading

import pytest

from tests.host.runtime.conftest import Node
from tests.support.runtime_conformance import MakeConfig
from worker.runtime import directory
from worker.runtime.model import ContainerStatus
from worker.runtime.oci import OCIRuntime

pytestmark = pytest.mark.host


async def test_a_creation_that_is_cancelled_leaves_nothing(
    node: Node, runtime: OCIRuntime, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    loop, create = asyncio.get_running_loop(), directory.create

    def slowly(*arguments: object) -> None:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(10)
        create(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(directory, "create", slowly)
    made = config("sleep", "1000")
    creating = asyncio.create_task(runtime.create(made))
    await begun.wait()
    creating.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert runtime.list() == []
    assert list(node.root.iterdir()) == []
    monkeypatch.undo()
    await runtime.create(made)


async def test_an_end_is_noticed_on_a_full_disk(
    runtime: OCIRuntime, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config("sleep", "1000")
    await runtime.create(made)
    await runtime.start_container(made.id)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(directory, "save_state", full)
    await runtime.stop(made.id, 0)
    assert runtime.get(made.id)[1].status is ContainerStatus.EXITED
    assert runtime.get(made.id)[1].exit_code == 137
