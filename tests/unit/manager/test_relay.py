"""An answer passed on from a leader that loses power ends, and not as if it were whole."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from cluster.seams import SystemClock
from cluster.spec import ClusterSpec
from manager.api.app import errors
from manager.ca.authority import first_identity, found_cluster
from manager.rpc.leader import LeaderClient


class Relay(LeaderClient):
    """Speaks plain HTTP to the leader."""

    @asynccontextmanager
    async def _request(self, method: str, url: str, **_: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, url.replace("https", "http")) as answer,
        ):
            yield answer


async def test_a_stream_ends_when_another_manager_leads() -> None:
    released = asyncio.Event()

    async def follow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"a line\n")
        await released.wait()
        return response

    origin = web.Application()
    origin.router.add_get("/forward/logs", follow)
    async with TestServer(origin) as server:
        leader = ["first", f"{server.host}:{server.port}"]
        clock, rng = SystemClock(), random.Random(1)
        identity = first_identity(found_cluster(ClusterSpec(), clock=clock, rng=rng), "node", clock)
        relay = Relay("node", lambda: (leader[0], leader[1]), identity, clock)
        app = web.Application(middlewares=[errors])
        app.router.add_get("/logs", relay.forward)
        async with TestClient(TestServer(app)) as client:
            answer = await client.get("/logs")
            assert await answer.content.readline() == b"a line\n"
            leader[0] = "second"
            with pytest.raises(aiohttp.ClientPayloadError):
                await asyncio.wait_for(answer.content.read(), timeout=5)
        released.set()
