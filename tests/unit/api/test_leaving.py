"""A manager that leaves: what it meets on the way passes, or is told."""

from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from msgspec import json

from cluster.errors import Unavailable
from cluster.seams import SECOND
from manager.api.access import ACCESS, SelfLeads
from manager.api.leaving import leave


class Clock:
    """Time passes only by sleeping."""

    time = 0

    def monotonic(self) -> int:
        return self.time

    async def sleep(self, nanoseconds: int) -> None:
        self.time += nanoseconds


class Leaver:
    """A manager of three; `met` is what the leader's answers are, the last one for ever."""

    node_id = "a"

    def __init__(self, *met: Exception | None) -> None:
        self.clock = Clock()
        self.met = list(met)
        self.asked = 0

    def members(self) -> dict[str, str]:
        return dict.fromkeys("abc", "192.0.2.1:2377")

    def leading(self) -> bool:
        return False

    async def ask_leader(self, method: str, path: str) -> None:
        assert (method, path) == ("POST", "/raft/leave/a")
        self.asked += 1
        met = self.met.pop(0) if len(self.met) > 1 else self.met[0]
        if met is not None:
            raise met


async def warning(leaver: Leaver) -> str:
    app = web.Application()
    app[ACCESS] = leaver  # type: ignore[misc]
    answer = await leave(make_mocked_request("POST", "/internal/leave?force=1", app=app))
    assert isinstance(answer.body, bytes)
    return json.decode(answer.body, type=dict[str, str])["Warning"]


async def test_one_that_is_elected_while_it_leaves_asks_again() -> None:
    leaver = Leaver(SelfLeads(), Unavailable("an election"), None)
    assert await warning(leaver) == ""
    assert leaver.asked == 3


async def test_it_goes_in_any_case_and_says_what_is_left() -> None:
    leaver = Leaver(Unavailable("no leader"))
    assert "no leader" in await warning(leaver)
    assert leaver.clock.time >= 6 * SECOND
