"""One manager's Raft and store as a process of its own, told what to do by lines of JSON on standard input.

The first line is a `Birth`; each further line is `[operation, arguments]` and is answered by one line.
"""

import asyncio
import functools
import gc
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench import state
from cluster.errors import ShoalError
from cluster.ids import new_id
from cluster.objects import Config, Secret, Service, StoreObject, Task
from cluster.seams import SystemClock, system_random
from cluster.spec import ConfigSpec
from manager import garbage
from manager.port import ClusterPort
from manager.raft import Raft, RaftLimits, TlsMaterial
from manager.store import Store, Transaction

Answer = dict[str, Any]
FILL_GROUP = 1000


@dataclass
class Birth:
    """Everything that a member must know to start."""

    node_id: str
    cluster_id: str
    address: str
    directory: str
    certificate: str
    key: str
    ca: str
    peers: dict[str, str]
    limits: dict[str, int] = field(default_factory=dict)


class Member:
    """Raft, store and cluster port, and the load that is put on them."""

    def __init__(self, birth: Birth) -> None:
        self._random = system_random()
        self.store = Store(SystemClock())
        tls = TlsMaterial(birth.certificate.encode(), birth.key.encode(), birth.ca.encode())
        self.raft = Raft(
            node_id=birth.node_id,
            cluster_id=birth.cluster_id,
            address=birth.address,
            directory=Path(birth.directory),
            state_machine=self.store,
            tls=tls,
            peers=birth.peers or None,
            limits=RaftLimits(**birth.limits),
        )
        self.store.bind(self.raft)
        host, port = birth.address.rsplit(":", 1)
        self._port = ClusterPort(host, int(port), self.raft.accept, lambda sock: sock.close())
        self._load: asyncio.Task[None] | None = None
        self._timeline: list[tuple[float, float]] = []
        self._collecting = 0.0
        self._collections: list[float] = []

    async def start(self) -> Answer:
        """Recover from disk and take part."""
        garbage.keep_collections_short()
        gc.callbacks.append(self._collected)
        begun = time.monotonic()
        await self._port.start()
        await self.raft.start()
        return {"seconds": time.monotonic() - begun, "ready": time.monotonic()}

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.monotonic()
        elif info["generation"] == 2:
            self._collections.append(time.monotonic() - self._collecting)

    async def stop(self) -> None:
        """End."""
        await self._port.stop()
        await self.raft.stop()

    # -- operations

    async def status(self) -> Answer:
        """What Raft knows."""
        status = self.raft.status()
        view = self.store.view()
        return {
            "leader": status.leader_id,
            "term": status.term,
            "applied": self.raft.applied_index,
            "snapshot": status.snapshot_index,
            "log_bytes": status.journal_bytes,
            "objects": {cls.kind: view.count(cls) for cls in (Config, Secret, Service, Task)},
            "collections": self._collections,
        }

    async def barrier(self) -> Answer:
        """Wait until this member leads for sure."""
        while True:
            try:
                return {"index": await self.raft.read_barrier()}
            except ShoalError:
                await asyncio.sleep(0.02)

    async def add(self, node_id: str, address: str) -> Answer:
        """Make a node a member."""
        await self.raft.add_member(node_id, address)
        return {}

    async def applied(self, index: int) -> Answer:
        """Wait until that index is applied here."""
        await self.raft.wait_applied(index)
        return {"at": time.monotonic()}

    async def write(self, clients: int, seconds: float, size: int) -> Answer:
        """Update configs with that much data from so many tasks, each its own; the latencies in seconds."""
        ids = [new_id(self._random) for _ in range(clients)]
        await self.store.batch([self._creates(id, size) for id in ids])
        latencies: list[float] = []
        begun = time.monotonic()

        async def one_client(id: str) -> None:
            while time.monotonic() - begun < seconds:
                before = time.perf_counter()
                await self.store.update(self._updates(id, size))
                latencies.append(time.perf_counter() - before)

        await asyncio.gather(*(one_client(id) for id in ids))
        return {"seconds": time.monotonic() - begun, "latencies": latencies}

    def _creates(self, id: str, size: int) -> Callable[[Transaction], None]:
        return lambda tx: tx.create(Config(id=id, spec=ConfigSpec(name=f"bench-{id}", data=state.text(size))))

    def _updates(self, id: str, size: int) -> Callable[[Transaction], None]:
        def change(tx: Transaction) -> None:
            config = tx.get(Config, id)
            assert config is not None
            tx.update(replace(config, spec=ConfigSpec(name=config.spec.name, data=state.text(size))))

        return change

    async def fill(self, files: int, file_bytes: int, tasks: int) -> Answer:
        """Create so many configs and secrets of that size, and so many tasks with their services."""
        begun = time.monotonic()
        objects = state.objects(files, file_bytes, tasks, lambda: new_id(self._random))
        while group := list(itertools.islice(objects, FILL_GROUP)):
            await self.store.batch([functools.partial(_create, obj=obj) for obj in group])
        return {"seconds": time.monotonic() - begun}

    async def load(self, size: int) -> Answer:
        """Begin to write one after the other, remembering when each began and how long it took."""
        id = new_id(self._random)
        await self.store.update(self._creates(id, size))
        self._timeline = []

        async def write() -> None:
            while True:
                begun = time.monotonic()
                await self.store.update(self._updates(id, size))
                self._timeline.append((begun, time.monotonic() - begun))

        self._load = asyncio.create_task(write())
        return {}

    async def unload(self) -> Answer:
        """End the load; the timeline."""
        if self._load is not None:
            self._load.cancel()
            await asyncio.gather(self._load, return_exceptions=True)
        return {"timeline": self._timeline}


def _create(tx: Transaction, obj: StoreObject) -> None:
    tx.create(obj)


async def serve() -> None:
    """Read lines, do, answer."""
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    member = Member(Birth(**json.loads(await reader.readline())))
    print(json.dumps(await member.start()), flush=True)
    while line := await reader.readline():
        name, arguments = json.loads(line)
        operation: Callable[..., Awaitable[Answer]] = getattr(member, name)
        try:
            answer = await operation(**arguments)
        except ShoalError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    await member.stop()


if __name__ == "__main__":
    asyncio.run(serve())
