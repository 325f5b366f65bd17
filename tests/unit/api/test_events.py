"""GET /events of a manager: what is told, what the filters let pass, and that no gap goes unnoticed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from cluster.errors import Unavailable
from cluster.event_ring import OVERHEAD, EventsLost
from cluster.events import INDEX_HEADER, LOST
from cluster.objects import Node, Service, UpdateStatus
from cluster.spec import ServiceSpec
from cluster.states import UpdateState
from manager.api.event_log import EventLog
from manager.api.events import EVENT_LOG
from manager.store import View
from tests.unit.api.manager import Api, LoneManager, service_body

Json = dict[str, Any]


class Stream:
    """An open stream of events."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def next(self) -> Json:
        async with asyncio.timeout(5):
            return dict(json.loads(await self.answer.content.readline()))

    async def told(self) -> tuple[str, str, str]:
        event = await self.next()
        return event["Type"], event["Action"], event["Actor"]["Attributes"]["name"]

    async def rest(self) -> list[Json]:
        async with asyncio.timeout(5):
            return [json.loads(line) for line in (await self.answer.read()).splitlines()]


@asynccontextmanager
async def opened(api: Api, **query: Any) -> AsyncIterator[Stream]:
    wanted = {k: v if isinstance(v, str) else json.dumps(v) for k, v in query.items()}
    async with api.client.get("/events", params=wanted) as answer:
        assert answer.status == 200
        yield Stream(answer)


async def update(api: Api, name: str, **changes: Any) -> None:
    service = await api.ok("GET", f"/services/{name}")
    path = f"/services/{service['ID']}/update?version={service['Version']['Index']}"
    await api.ok("POST", path, service_body(name, **changes))


async def test_a_service_s_life(api: Api) -> None:
    async with opened(api) as stream:
        id = await api.service("web", Mode={"Replicated": {"Replicas": 2}})
        created = await stream.next()
        assert (created["Type"], created["Action"], created["scope"]) == ("service", "create", "swarm")
        assert created["Actor"]["ID"] == id
        index = created["Actor"]["Attributes"]["version"]
        assert created["Actor"]["Attributes"] == {"name": "web", "version": index}
        assert created["timeNano"] // 1_000_000_000 == created["time"]
        template = {"ContainerSpec": {"Image": "nginx:1.28"}}
        await update(api, "web", Mode={"Replicated": {"Replicas": 5}}, TaskTemplate=template)
        attributes = (await stream.next())["Actor"]["Attributes"]
        assert attributes.pop("version.old") == index
        assert int(attributes.pop("version")) > int(index)
        assert attributes == {
            "name": "web",
            "image.old": "nginx:1.27",
            "image.new": "nginx:1.28",
            "replicas.old": "2",
            "replicas.new": "5",
        }
        await api.ok("DELETE", "/services/web")
        assert await stream.told() == ("service", "remove", "web")


async def test_the_state_of_an_update(api: Api) -> None:
    id = await api.service("web")
    store = api.manager.store
    async with opened(api) as stream:
        for state in (UpdateState.UPDATING, UpdateState.COMPLETED):
            service = store.view().get(Service, id)
            assert service is not None
            changed = replace(service, update_status=UpdateStatus(state=state))
            await store.update(lambda tx, changed=changed: tx.update(changed))  # type: ignore[misc]
        assert (await stream.next())["Actor"]["Attributes"]["updatestate.new"] == "updating"
        attributes = (await stream.next())["Actor"]["Attributes"]
        assert (attributes["updatestate.old"], attributes["updatestate.new"]) == ("updating", "completed")


async def test_nodes_secrets_configs_and_networks(api: Api) -> None:
    async with opened(api) as stream:
        await api.node("n1", "first")
        assert await stream.told() == ("node", "create", "first")
        node = api.manager.store.view().get(Node, "n1")
        assert node is not None
        path = f"/nodes/n1/update?version={node.version}"
        await api.ok("POST", path, {"Role": "worker", "Availability": "drain"})
        attributes = (await stream.next())["Actor"]["Attributes"]
        assert (attributes["availability.old"], attributes["availability.new"]) == ("active", "drain")
        await api.ok("POST", "/secrets/create", {"Name": "s", "Data": "YQ=="})
        await api.ok("POST", "/configs/create", {"Name": "c", "Data": "YQ=="})
        await api.ok("POST", "/networks/create", {"Name": "n", "Driver": "overlay"})
        await api.ok("DELETE", "/secrets/s")
        assert [await stream.told() for _ in range(4)] == [
            ("secret", "create", "s"),
            ("config", "create", "c"),
            ("network", "create", "n"),
            ("secret", "remove", "s"),
        ]


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({"type": ["config"]}, ["red", "redder"]),
        ({"type": {"secret": True}}, ["red"]),
        ({"event": ["remove"]}, ["red"]),
        ({"config": ["redd"]}, ["redder"]),
        ({"label": ["tier=gold"]}, ["redder"]),
        ({"scope": ["swarm"], "secret": ["red"]}, ["red"]),
        ({"scope": ["local"]}, []),
        ({"container": ["red"]}, []),
        ({"type": ["config"], "service": ["red"]}, []),
    ],
)
async def test_filters(api: Api, filters: Json, told: list[str]) -> None:
    async with opened(api, filters=filters) as stream:
        await api.ok("POST", "/configs/create", {"Name": "red", "Data": "YQ=="})
        spec = {"Name": "redder", "Data": "YQ==", "Labels": {"tier": "gold"}}
        await api.ok("POST", "/configs/create", spec)
        await api.ok("POST", "/secrets/create", {"Name": "red", "Data": "YQ=="})
        if "event" in filters:
            await api.ok("DELETE", "/secrets/red")
        api.client.app[EVENT_LOG].begin_anew(0)  # ends the stream
        names = [event["Actor"]["Attributes"].get("name") for event in await _until_lost(stream)]
    assert names == told


async def _until_lost(stream: Stream) -> list[Json]:
    events = []
    while (event := await stream.next())["Action"] != LOST:
        events.append(event)
    return events


async def test_a_look_back_and_an_end(api: Api) -> None:
    before = api.manager.clock.now()
    await api.service("web")
    await api.service("db")
    end = f"{api.manager.clock.now() / 1e9:.9f}"
    async with opened(api, since=f"{before // 10**9}.{before % 10**9:09}", until=end) as stream:
        events = await stream.rest()
    assert [event["Actor"]["Attributes"]["name"] for event in events] == ["web", "db"]
    async with opened(api, since="1", until=end) as stream:
        events = await stream.rest()
    assert [event["Action"] for event in events] == [LOST, "create", "create"]
    status, answer = await api("GET", "/events?since=20&until=10")
    assert (status, answer["message"]) == (400, "`since` time cannot be after `until` time")
    assert (await api("GET", '/events?filters={"colour":["red"]}'))[0] == 400


async def test_a_look_back_has_all_that_was_acknowledged(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower applies later than the leader acknowledges: it asks, and lets its log catch up."""
    manager = api.manager
    manager.proposer.hold()
    body = {"Name": "late", "Data": "YQ=="}
    writing = asyncio.create_task(api.ok("POST", "/configs/create", body))
    while not manager.proposer.held:
        await asyncio.sleep(0.001)

    async def confirmed() -> View:
        manager.proposer.release()
        return manager.store.view()

    monkeypatch.setattr(manager, "confirmed", confirmed)
    until = f"{manager.clock.now() / 1e9:.9f}"
    async with opened(api, since="1", until=until) as stream:
        events = await stream.rest()
    assert [event["Actor"]["Attributes"]["name"] for event in events[1:]] == ["late"]
    await writing

    async def cut_off() -> View:
        raise Unavailable("no leader")

    monkeypatch.setattr(manager, "confirmed", cut_off)
    assert (await api("GET", f"/events?since=1&until={until}"))[0] == 503


async def test_the_answer_says_from_which_index_on_it_is_complete(api: Api) -> None:
    await api.service("web")
    index = api.index
    async with opened(api) as stream:
        assert int(stream.answer.headers[INDEX_HEADER]) == index
        await api.service("db")
        assert int((await stream.next())["Actor"]["Attributes"]["version"]) == index + 1


async def test_a_snapshot_ends_the_stream_with_a_line_that_says_so(api: Api) -> None:
    async with opened(api) as stream:
        store = api.manager.store
        store.restore(store.view().index, store.snapshot())
        event = await stream.next()
        assert (event["Type"], event["Action"]) == ("daemon", LOST)
        assert "events were lost" in event["Actor"]["Attributes"]["message"]
        with pytest.raises(aiohttp.ClientPayloadError):
            await stream.rest()
    async with opened(api) as stream:  # and those that follow again miss nothing
        await api.service("web")
        assert await stream.told() == ("service", "create", "web")


async def create(manager: LoneManager, id: str) -> None:
    await manager.store.update(lambda tx: tx.create(Service(id=id, spec=ServiceSpec(name=id))))


async def test_a_reader_that_falls_behind_is_told() -> None:
    manager = LoneManager()
    log = EventLog(manager.store, manager.clock, max_events=3)
    following = asyncio.create_task(log.run())
    await asyncio.sleep(0)
    reader = log.read(log.end, follow=True)
    slow = log.end
    for number in range(3):
        await create(manager, str(number))
        assert (await anext(reader)).id == str(number)
    assert [event.id async for event in log.read(slow, follow=False)] == ["0", "1", "2"]
    await create(manager, "3")
    assert (await anext(reader)).id == "3"
    with pytest.raises(EventsLost):
        await anext(log.read(slow, follow=False))
    assert log.position_at(log.complete_from) == slow + 1
    following.cancel()


async def test_the_log_takes_bounded_memory() -> None:
    manager = LoneManager()
    log = EventLog(manager.store, manager.clock, max_bytes=10 * OVERHEAD)
    following = asyncio.create_task(log.run())
    await asyncio.sleep(0)
    for number in range(20):
        await create(manager, str(number))
    await asyncio.sleep(0)
    kept = [event async for event in log.read(log._first, follow=False)]
    assert kept[-1].id == "19"
    assert sum(event.size for event in kept) <= 10 * OVERHEAD
    following.cancel()
