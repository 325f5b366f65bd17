"""Standalone containers over parts without a machine, in virtual time."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.clock import ManualClock, settle
from tests.fakes.engine import EngineRuntime, FakeNetwork, fake_engine
from worker.containers.containers import Containers
from worker.containers.request import CreateRequest, HostConfig, RestartPolicy
from worker.engine import Engine
from worker.runtime.model import ContainerState


class Node:
    """A node and its standalone containers."""

    def __init__(self, root: Path) -> None:
        self.clock = ManualClock()
        self.runtime = EngineRuntime(self.clock)
        self.engine: Engine = fake_engine(root, self.clock, self.runtime)
        self.containers = Containers(self.engine, self.clock, random.Random(3))
        self._running: asyncio.Task[None] | None = None

    @property
    def network(self) -> FakeNetwork:
        network: FakeNetwork = self.engine.network  # type: ignore[assignment]
        return network

    async def begin(self) -> None:
        """Start the daemon's part."""
        self._running = asyncio.create_task(self.containers.run())
        await settle()

    async def end(self) -> None:
        """The daemon ends; the containers live on."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def reborn(self) -> None:
        """Another daemon takes up what this one left."""
        await self.end()
        self.containers = Containers(self.engine, self.clock, random.Random(4))
        await self.begin()

    async def run(self, name: str, *command: str, policy: str = "no", count: int = 0, **host: object) -> str:
        """Create and start a container; its id."""
        settings = HostConfig(restart_policy=RestartPolicy(name=policy, maximum_retry_count=count), **host)  # type: ignore[arg-type]
        request = CreateRequest(image="busybox", cmd=list(command) or None, host_config=settings)
        id, _ = await self.containers.create(name, request)
        await self.containers.start(id)
        await settle()
        return id

    def state(self, name: str) -> ContainerState:
        return self.containers.find(name)[1]

    def names(self) -> list[str]:
        return sorted(config.name for config, _ in self.runtime.list())


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path)
    await made.begin()
    yield made
    await made.end()
    await made.runtime.close()
