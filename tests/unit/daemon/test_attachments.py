"""Places in cluster networks: a manager that does not answer keeps nobody else waiting."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from cluster.attaching import Attached, AttachRequest, DetachRequest, KeepRequest
from cluster.seams import SECOND
from shoal.daemon.attachments import Attachments
from tests.fakes.clock import ManualClock, settle
from worker.endpoints import EndpointSettings


class Managers(Attachments):
    """Attachments whose managers answer when the test lets them."""

    def __init__(self, clock: ManualClock) -> None:
        runtime = SimpleNamespace(
            get=lambda id: (SimpleNamespace(name=id, record=True, id=id), None),
            list=lambda: [(SimpleNamespace(id="a"), None), (SimpleNamespace(id="b"), None)],
        )
        network = SimpleNamespace(networks=dict, sandboxes=dict)
        engine = SimpleNamespace(runtime=runtime, network=network)
        membership: Any = SimpleNamespace(managers=(), node_id="n")
        super().__init__(cast(Any, engine), cast(Any, None), lambda: membership, clock)
        self.asked: list[str] = []
        self.answering = asyncio.Event()
        self.answering.set()

    async def _ask(self, path: str, request: msgspec.Struct, kind: type[Any]) -> Any:
        match request:
            case AttachRequest() | DetachRequest():
                self.asked.append(f"{type(request).__name__} {request.container_id}")
            case KeepRequest():
                self.asked.append(f"keep {sorted(place[0] for place in request.places)}")
        await self.answering.wait()
        return Attached("net", "10.0.0.5/24") if kind is Attached else {}


async def test_a_containers_requests_follow_each_other_and_others_do_not_wait() -> None:
    managers = Managers(ManualClock())
    await managers.attach("a", "net", EndpointSettings())
    managers.answering.clear()
    first = asyncio.ensure_future(managers.detach("a"))
    await settle()
    again = asyncio.ensure_future(managers.attach("a", "net", EndpointSettings()))
    other = asyncio.ensure_future(managers.attach("b", "net", EndpointSettings()))
    await settle()
    assert managers.asked == ["AttachRequest a", "DetachRequest a", "AttachRequest b"]
    managers.answering.set()
    await asyncio.gather(first, again, other)
    assert managers.asked[-1] == "AttachRequest a"


async def test_what_is_used_is_told_only_while_nothing_is_being_given() -> None:
    clock = ManualClock()
    managers = Managers(clock)
    telling = asyncio.ensure_future(managers.run())
    await settle()
    managers.answering.clear()
    giving = asyncio.ensure_future(managers.attach("a", "net", EndpointSettings()))
    await settle()
    await clock.advance(61 * SECOND)
    assert managers.asked == ["AttachRequest a"]
    managers.answering.set()
    await giving
    await clock.advance(2 * SECOND)
    assert managers.asked == ["AttachRequest a", "keep ['a']"]
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
