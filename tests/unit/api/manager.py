"""The API on a store of its own: one manager that always leads, without Raft, sockets or processes."""

import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from cluster.messages import LogChunk, LogRequest
from cluster.objects import Node, NodeDescription, NodeStatus, StoreObject
from cluster.seams import SystemClock
from cluster.spec import ClusterSpec
from cluster.states import NodeState
from manager.api.access import Managers, Read
from manager.api.app import engine_app
from manager.ca.authority import Authority, found_cluster, founding_objects
from manager.store import Store, View
from tests.fakes.proposer import LocalProposer


class LoneManager:
    """Implements the API's `Access`."""

    def __init__(self) -> None:
        self.node_id = "founder"
        self.clock = SystemClock()
        self.rng = random.Random(7)
        self.store = Store(self.clock, self.rng)
        self.authority = Authority(self.store, self.clock, self.rng)
        self.proposer = LocalProposer(self.store)
        self.reachable = {"founder"}
        self.members = {"founder"}
        self.chunks: Sequence[LogChunk] = ()
        self.log_requests: list[LogRequest] = []
        self.removed: list[str] = []
        self.age: int | None = 0

    def leading(self) -> bool:
        return True

    def trouble(self) -> str:
        return ""

    def known_leader(self) -> str:
        return self.node_id

    def warnings(self) -> list[str]:
        return []

    def no_leader(self) -> str:
        return "no leader"

    async def confirmed(self) -> View:
        return self.store.view()

    async def confirmed_read(self) -> Read:
        managers = Managers(self.node_id, frozenset(self.members), frozenset(self.reachable))
        return Read(self.store.view(), managers, confirmed=True)

    def own_read(self) -> Read:
        managers = Managers(self.node_id, frozenset(self.members), frozenset((self.node_id,)), known=False)
        return Read(self.store.view(), managers, confirmed=False, age=self.age)

    async def forward(self, request: web.Request) -> web.StreamResponse:
        raise AssertionError("this manager leads")

    async def logs(self, query: LogRequest) -> AsyncIterator[LogChunk]:
        self.log_requests.append(query)
        for chunk in self.chunks:
            yield chunk

    async def remove_member(self, node_id: str) -> None:
        self.removed.append(node_id)


class Api:
    """A client of the API, with the manager behind it."""

    def __init__(self, client: TestClient[web.Request, web.Application], manager: LoneManager) -> None:
        self.client = client
        self.manager = manager

    async def __call__(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        async with self.client.request(method, path, json=body, data=raw, headers=headers) as answer:
            content = await answer.read()
            if answer.content_type == "application/json":
                return answer.status, await answer.json()
            return answer.status, content

    async def ok(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        status, content = await self(method, path, body, **headers)
        assert status in (200, 201, 204), (status, content)
        return content

    async def service(self, name: str = "web", **changes: Any) -> str:
        return str((await self.ok("POST", "/services/create", service_body(name, **changes)))["ID"])

    async def put(self, *objects: StoreObject) -> None:
        await self.manager.store.update(lambda tx: [tx.create(obj) for obj in objects])

    async def node(self, id: str, hostname: str, **changes: Any) -> None:
        description = NodeDescription(hostname=hostname)
        status = NodeStatus(state=NodeState.READY)
        await self.put(Node(**{"id": id, "description": description, "status": status, **changes}))

    @property
    def index(self) -> int:
        """How many writes there were."""
        return self.manager.proposer.index


def service_body(name: str = "web", **changes: Any) -> dict[str, Any]:
    template = {"ContainerSpec": {"Image": "nginx:1.27"}}
    return {"Name": name, "TaskTemplate": template, "Mode": {"Replicated": {}}, **changes}


async def start() -> Api:
    manager = LoneManager()
    cluster = found_cluster(ClusterSpec(), clock=manager.clock, rng=manager.rng)
    await manager.store.update(
        lambda tx: founding_objects(tx, cluster, "founder", "10.0.0.1:2377", data_path_address="")
    )
    client = TestClient(TestServer(engine_app(manager)))
    await client.start_server()
    return Api(client, manager)
