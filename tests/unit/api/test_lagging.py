"""A manager whose disk is full falls behind: what it is asked, the leader answers."""

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from cluster.consistency import CONSISTENCY, STALE
from manager.api.app import engine_app
from tests.unit.api.manager import LoneManager


class Follower(LoneManager):
    """One that follows."""

    full = ""

    def leading(self) -> bool:
        return False

    def trouble(self) -> str:
        return self.full

    async def forward(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(["the leader's"])


async def test_reads_go_to_the_leader_while_the_disk_is_full() -> None:
    manager = Follower()
    async with TestClient(TestServer(engine_app(manager))) as client:

        async def services(**headers: str) -> object:
            async with client.get("/v1.50/services", headers=headers) as answer:
                return await answer.json()

        assert await services() == []
        manager.full = "the disk is full"
        assert await services() == ["the leader's"]
        own = await services(**{CONSISTENCY: STALE})  # it has none yet, and says so itself
        assert "this manager has not learnt" in str(own)
        async with client.get("/internal/info") as answer:
            assert (await answer.json())["Error"] == "the disk is full"
