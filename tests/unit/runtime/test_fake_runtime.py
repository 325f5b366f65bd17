"""The fake runtime keeps the promises of the real one."""

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest

from cluster.seams import SystemClock
from tests.fakes.runtime import FakeRuntime
from tests.support.runtime_conformance import MakeConfig, RuntimeConformance
from worker.runtime.model import ContainerConfig


class TestFakeRuntime(RuntimeConformance):
    @pytest.fixture
    async def runtime(self) -> AsyncIterator[FakeRuntime]:
        runtime = FakeRuntime(SystemClock())
        await runtime.start()
        yield runtime
        await runtime.close()

    @pytest.fixture
    def config(self) -> MakeConfig:
        numbers = count(1)

        def make(*args: str, **fields: object) -> ContainerConfig:
            number = next(numbers)
            known = {"id": f"{number:064x}", "layers": (Path("/layer"),), "created_at": number}
            return ContainerConfig(args=args, **(known | fields))  # type: ignore[arg-type]

        return make
