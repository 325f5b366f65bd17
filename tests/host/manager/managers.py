"""Real manager processes on loopback addresses, as the node daemon runs them."""

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from cluster.seams import SystemClock
from manager.certificates import save_identity
from shoal.daemon.join import Joined, join

CLOCK = SystemClock()


@dataclass
class ManagerProcess:
    """One manager: its directory, address and process."""

    node_id: str
    address: str
    root: Path
    process: asyncio.subprocess.Process | None = None
    extra: tuple[str, ...] = ()
    http: aiohttp.ClientSession | None = field(default=None, repr=False)

    @property
    def certificates(self) -> Path:
        return self.root / "certificates"

    async def start(self, *extra: str) -> None:
        with open(self.root / "log", "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "manager", "--node-id", self.node_id),
                *("--state-dir", str(self.root / "raft"), "--socket", str(self.root / "m.sock")),
                *("--listen", self.address, *extra),
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(30):
            while True:
                assert self.process.returncode is None, self.log()
                try:
                    await self.get("/_ping", raw=True)
                    return
                except (aiohttp.ClientError, OSError):
                    await asyncio.sleep(0.02)

    def log(self) -> str:
        return (self.root / "log").read_text()

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            return await self.process.wait()

    async def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        if self.http is None:
            self.http = aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(self.root / "m.sock")))
        async with self.http.request(method, f"http://m{path}", json=body, headers=headers) as answer:
            content = await answer.read()
            return answer.status, json.loads(content) if content.startswith((b"{", b"[", b'"')) else content

    async def get(self, path: str, *, raw: bool = False) -> Any:
        status, content = await self.request("GET", path)
        assert raw or status == 200, (status, content)
        return content

    async def create_service(self, name: str) -> tuple[int, Any]:
        body = {"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "web"}}, "Mode": {"Replicated": {}}}
        return await self.request("POST", "/v1.50/services/create", body)


class Managers:
    """Managers of one cluster. Use as an async context manager: it leaves no process behind."""

    def __init__(self, root: Path, prefix: str = "127.0.77") -> None:
        self.root = root
        self.prefix = prefix
        self.all: list[ManagerProcess] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Managers":
        return self

    async def __aexit__(self, *_: object) -> None:
        for manager in self.all:
            if manager.http is not None:
                await manager.http.close()
            if manager.process is not None and manager.process.returncode is None:
                manager.process.kill()
                await manager.process.wait()

    def _next_address(self) -> str:
        return f"{self.prefix}.{len(self.all) + 1}:2377"

    async def found(self, founding: dict[str, Any] | None = None) -> ManagerProcess:
        manager = ManagerProcess("founder".ljust(25, "0"), self._next_address(), self.root / "m1")
        manager.root.mkdir(parents=True)
        self.all.append(manager)
        await manager.start("--init", json.dumps(founding or {}))
        return manager

    async def tokens(self) -> dict[str, str]:
        return (await self.all[0].get("/swarm"))["JoinTokens"]

    async def join_node(self, token: str, by: ManagerProcess) -> Joined:
        return await join([by.address], token, clock=CLOCK, address=self._next_address().rpartition(":")[0])

    async def add(self, by: ManagerProcess | None = None) -> ManagerProcess:
        by = by or self.all[0]
        joined = await self.join_node((await self.tokens())["Manager"], by)
        manager = ManagerProcess(
            joined.answer.node_id, self._next_address(), self.root / f"m{len(self.all) + 1}"
        )
        manager.root.mkdir(parents=True)
        save_identity(manager.certificates, joined.identity)
        self.all.append(manager)
        peers = [f"--join={m.node_id}={m.address}" for m in joined.answer.managers]
        await manager.start(*peers)
        return manager

    async def leader(self) -> ManagerProcess:
        """Whoever leads by the word of a majority; waits for an election."""
        async with asyncio.timeout(10):
            while True:
                for manager in self.all:
                    if manager.process is None or manager.process.returncode is not None:
                        continue
                    status, nodes = await manager.request("GET", "/nodes")
                    leads = (
                        [n["ID"] for n in nodes if n.get("ManagerStatus", {}).get("Leader")]
                        if status == 200
                        else []
                    )
                    found = [m for m in self.all if m.node_id in leads]
                    if found and found[0].process is not None and found[0].process.returncode is None:
                        return found[0]
                await asyncio.sleep(0.05)
