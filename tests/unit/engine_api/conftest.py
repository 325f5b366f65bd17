"""The node's part of the Engine API over parts without a machine."""

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.fakes.clock import ManualClock
from tests.fakes.runtime import FakeRuntime
from worker.api import containers, disk_usage, system, volumes
from worker.api.http import add_common_headers, errors_middleware
from worker.containers.containers import Containers
from worker.engine import Engine
from worker.images.errors import NoSuchImage
from worker.images.model import Image
from worker.node import Machine
from worker.runtime.model import ContainerConfig
from worker.volumes.store import VolumeStore


class NoNetwork:
    """A network plane in which nothing is."""

    def sandboxes(self) -> dict[str, Any]:
        return {}

    def networks(self) -> dict[str, Any]:
        return {}


class NoImages:
    """An image store in which nothing is."""

    def list(self) -> tuple[()]:
        return ()

    def disk_usage(self) -> int:
        return 0

    def get(self, name: str) -> Image:
        raise NoSuchImage(name)


class Runtime(FakeRuntime):
    """With the paths that `inspect` shows."""

    def log_path(self, id: str) -> Path:
        return Path("/containers") / id / "container.log"

    def etc(self, id: str) -> Path:
        return Path("/bundles") / id / "etc"

    def upper(self, id: str) -> Path:
        return Path("/containers") / id / "upper"

    def rootfs(self, id: str) -> Path:
        return Path("/bundles") / id / "rootfs"


class Api:
    """Calls the API, decodes what it answers."""

    def __init__(
        self, client: "TestClient[web.Request, web.Application]", runtime: Runtime, engine: Engine
    ) -> None:
        self.client = client
        self.runtime = runtime
        self.engine = engine

    async def __call__(self, method: str, path: str, body: object = None, **query: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes | None) else json.dumps(body)
        async with self.client.request(method, path, data=data, params=query) as answer:
            content = await answer.read()
            if answer.status >= 400:
                assert answer.headers["Content-Type"] == "application/json"
                if method != "HEAD":
                    assert json.loads(content)["message"]
            return answer.status, json.loads(content) if content.startswith((b"{", b"[")) else content

    async def run(self, name: str, *args: str, **fields: Any) -> ContainerConfig:
        """Start a container; its id is made of its name."""
        config = ContainerConfig(
            id=(name.encode().hex() * 64)[:64],
            name=name,
            args=args or ("sleep", "1000"),
            layers=(),
            image_name="busybox:latest",
            image_id="sha256:" + "ab" * 32,
            **fields,
        )
        await self.runtime.create(config)
        await self.runtime.start_container(config.id)
        return config


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    clock = ManualClock()
    runtime = Runtime(clock)
    engine = Engine(
        id="e",
        data_root=tmp_path,
        machine=Machine.read(),
        images=cast("Any", NoImages()),
        runtime=cast("Any", runtime),
        network=cast("Any", NoNetwork()),
        volumes=VolumeStore(tmp_path / "volumes", clock, random.Random(1)),
        logs=cast("Any", None),
        labels={},
        default_runtime="crun",
    )

    async def swarm() -> dict[str, Any]:
        return {"LocalNodeState": "inactive"}

    app = web.Application(middlewares=[errors_middleware])
    app.on_response_prepare.append(add_common_headers)
    system.routes(app, engine, swarm, lambda: "inactive")
    containers.routes(app, engine, Containers(engine, clock, random.Random(2)))
    volumes.routes(app, engine, lambda: False)
    disk_usage.routes(app, engine, clock)
    async with TestClient(TestServer(app)) as client:
        yield Api(client, runtime, engine)
    await runtime.close()
