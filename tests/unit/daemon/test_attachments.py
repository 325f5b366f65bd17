"""Places in cluster networks: a manager that does not answer keeps nobody else waiting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from cluster.attaching import Attached, AttachRequest, DetachRequest, KeepRequest
from cluster.errors import ShoalError
from cluster.seams import SECOND
from manager.rpc.join import Answered, Post
from shoal.daemon import attachments
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


@pytest.mark.parametrize(
    ("answers", "status", "words"),
    [
        (
            [Answered(409, '{"message": "address 10.0.3.3 is taken"}', False)],
            409,
            "address 10.0.3.3 is taken",
        ),
        ([Answered(503, '{"message": "no leader"}', True), OSError("refused")], 503, "no leader"),
        ([OSError("refused")], 503, "no manager could be asked: 10.0.0.1:1: refused"),
        ([], 503, "no manager could be asked: no manager is known"),
    ],
)
async def test_what_a_manager_says_is_passed_on_as_it_is(
    monkeypatch: pytest.MonkeyPatch, answers: list[Answered | OSError], status: int, words: str
) -> None:
    there = {f"10.0.0.{number}:1": answer for number, answer in enumerate(answers, 1)}

    async def post(manager: str, path: str, content: bytes) -> Answered:
        if isinstance(said := there[manager], OSError):
            raise said
        return said

    @asynccontextmanager
    async def posting(identity: object) -> AsyncIterator[Post]:
        yield post

    monkeypatch.setattr(attachments, "posting", posting)
    membership: Any = SimpleNamespace(
        managers=[SimpleNamespace(address=each) for each in there], node_id="node"
    )
    engine: Any = SimpleNamespace(network=SimpleNamespace(sandboxes=dict))
    store: Any = SimpleNamespace(identity=lambda: None)
    asking = Attachments(engine, store, lambda: membership, ManualClock())
    with pytest.raises(ShoalError) as refused:
        await asking.find("six")
    assert (refused.value.status, str(refused.value)) == (status, words)
