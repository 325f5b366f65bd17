"""Readers of the container table that go away leave nothing behind."""

import gc
from collections.abc import AsyncGenerator
from typing import cast

from worker.runtime.model import ContainerConfig, ContainerState
from worker.runtime.runtime import Change
from worker.runtime.table import ContainerTable

CONFIG = ContainerConfig(id="c1", args=("true",), layers=())


async def test_a_watch_that_is_never_read_costs_nothing() -> None:
    table = ContainerTable()
    for _ in range(10):
        table.watch()
    gc.collect()
    assert len(table._watchers) == 0


async def test_a_watch_sees_changes_from_its_start_until_it_is_closed() -> None:
    table = ContainerTable()
    changes = cast("AsyncGenerator[Change, None]", table.watch())
    table.add(CONFIG, ContainerState())
    assert await anext(changes) == ("c1", ContainerState())
    await changes.aclose()
    gc.collect()
    assert len(table._watchers) == 0
