"""Places in attachable networks for containers of no service, as nodes ask the managers for them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from cluster.objects import Cluster, Node
from manager.allocator import Allocator
from manager.api.access import ACCESS
from manager.api.app import engine_app, errors
from manager.rpc import attachments
from tests.unit.api.manager import LoneManager


class Managers:
    """A manager with its allocator, asked as a node asks it."""

    def __init__(self, client: "TestClient[web.Request, web.Application]", manager: LoneManager) -> None:
        self.client = client
        self.manager = manager

    async def post(self, path: str, **content: Any) -> tuple[int, Any]:
        async with self.client.post(path, data=msgspec.json.encode(content)) as answer:
            return answer.status, msgspec.json.decode(await answer.read())

    def places(self) -> list[tuple[str, str]]:
        node = self.manager.store.view().get(Node, "n1")
        assert node is not None
        return [(each.container_id, each.address) for each in node.containers]


@pytest.fixture
async def managers() -> AsyncIterator[Managers]:
    manager = LoneManager()
    await manager.store.batch([lambda tx: tx.create(Cluster(id="c")), lambda tx: tx.create(Node(id="n1"))])
    allocating = asyncio.create_task(Allocator(manager.store, manager.clock, manager.rng).run())
    app = web.Application(middlewares=[errors])
    app[ACCESS] = manager
    attachments.routes(app, lambda handler: handler, "/forward")
    app.add_subapp("/api", engine_app(manager))
    async with TestClient(TestServer(app)) as client:
        api = Managers(client, manager)
        for name, attachable in (("open", True), ("closed", False)):
            spec = {"Name": name, "Driver": "overlay", "Attachable": attachable}
            assert (await api.post("/api/networks/create", **spec))[0] == 201
        yield api
    allocating.cancel()
    await asyncio.gather(allocating, return_exceptions=True)


async def test_a_container_gets_an_address_and_keeps_it(managers: Managers) -> None:
    status, found = await managers.post("/attachments/n1/find", network="open")
    assert (status, found["address"]) == (200, "")
    status, first = await managers.post("/attachments/n1", network="open", container_id="c1", name="one")
    assert (status, first["network_id"]) == (200, found["network_id"])
    assert first["address"].startswith("10.0.1.")
    assert (await managers.post("/attachments/n1", network="open", container_id="c1"))[1] == first
    _, second = await managers.post("/attachments/n1", network=first["network_id"], container_id="c2")
    assert second["address"] != first["address"]
    status, answer = await managers.post(
        "/attachments/n1", network="open", container_id="c3", address=first["address"].partition("/")[0]
    )
    taken = first["address"].partition("/")[0]
    assert (status, answer["message"]) == (
        409,
        f"could not attach to network open: address {taken} is taken: leave it out, or name a free one",
    )
    for wanted in ("10.9.9.9", "10.0.1.0", "fd00::1"):  # elsewhere, the subnet's own, and no IPv4 address
        status, answer = await managers.post(
            "/attachments/n1", network="open", container_id="c4", address=wanted
        )
        assert (status, answer["message"]) == (
            409,
            f"could not attach to network open: address {wanted} is not one that the network's subnets have "
            "to give",
        )
    assert [container for container, _ in managers.places()] == ["c1", "c2"]


async def test_places_are_given_back(managers: Managers) -> None:
    for container in ("c1", "c2", "c3"):
        _, place = await managers.post("/attachments/n1", network="open", container_id=container)
    assert (await managers.post("/attachments/n1/detach", container_id="c1"))[0] == 200
    assert (await managers.post("/attachments/n1/detach", container_id="c1"))[0] == 200
    await managers.post("/attachments/n1/keep", places=[("c3", place["network_id"])])
    assert managers.places() == [("c3", place["address"])]
    async with managers.client.delete("/api/networks/open") as refused:
        assert (refused.status, "is in use by container" in await refused.text()) == (400, True)
    await managers.post("/attachments/n1/keep", places=[])
    async with managers.client.delete("/api/networks/open") as removed:
        assert removed.status == 204


async def test_what_is_refused(managers: Managers) -> None:
    status, answer = await managers.post("/attachments/n1/find", network="closed")
    assert (status, "not manually attachable" in answer["message"]) == (403, True)
    assert (await managers.post("/attachments/n1/find", network="ingress"))[0] == 403
    assert (await managers.post("/attachments/n1", network="nosuch", container_id="c"))[0] == 404
    assert (await managers.post("/attachments/n9", network="open", container_id="c"))[0] == 404


async def test_a_node_has_no_more_places_than_it_may(
    managers: Managers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachments, "_MOST", 2)
    _, place = await managers.post("/attachments/n1", network="open", container_id="c1")
    held = [
        {"container_id": f"h{number}", "network_id": place["network_id"], "address": f"10.0.1.{number}/24"}
        for number in (50, 51)
    ]
    places = [("c1", place["network_id"]), *((each["container_id"], each["network_id"]) for each in held)]
    assert (await managers.post("/attachments/n1/keep", places=places, held=held))[0] == 400
    assert (await managers.post("/attachments/n1/keep", places=places, held=held[:1]))[0] == 200
    assert (await managers.post("/attachments/n1", network="open", container_id="c2"))[0] == 400


async def test_after_a_restore_what_runs_keeps_its_address(managers: Managers) -> None:
    """Managers that went back to an older state know nothing of some places, and hear of them in time, or too
    late: then they say so."""
    _, place = await managers.post("/attachments/n1", network="open", container_id="c1", name="one")
    network = place["network_id"]
    held = {"container_id": "old", "network_id": network, "address": "10.0.1.50/24", "name": "box"}
    late = {"container_id": "late", "network_id": network, "address": place["address"]}
    gone = {"container_id": "gone", "network_id": "removed", "address": "10.0.9.9/24"}
    places = [[each, network] for each in ("c1", "old", "late")]
    for _ in range(2):
        status, kept = await managers.post("/attachments/n1/keep", places=places, held=[held, late, gone])
        assert (status, kept) == (200, {"lost": [["late", network]]})
        assert managers.places() == [("c1", place["address"]), ("old", "10.0.1.50/24")]
    # Another address than the one that is noted: where the container is counts.
    moved = {**held, "address": "10.0.1.60/24", "aliases": ["db"]}
    assert (await managers.post("/attachments/n1/keep", places=places, held=[moved]))[1] == {"lost": []}
    assert managers.places() == [("c1", place["address"]), ("old", "10.0.1.60/24")]
    wanted = await managers.post("/attachments/n1", network="open", container_id="c9", address="10.0.1.60")
    assert wanted[0] == 409
    await managers.post("/attachments/n1", network="open", container_id="c9", address="10.0.1.50")
    assert ("c9", "10.0.1.50/24") in managers.places()
