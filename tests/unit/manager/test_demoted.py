"""A manager that was demoted and does not know it yet sends its clients elsewhere."""

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from cluster.errors import Forbidden
from manager.api.app import NOT_DONE
from manager.rpc.server import _Handlers


class Handlers(_Handlers):
    """The port of a leader, asked by node w1, which is a worker by now."""

    def _manager(self, request: web.Request) -> Any:
        raise Forbidden("node w1 was demoted: it is no manager any more")


async def served(request: web.Request) -> web.StreamResponse:
    raise AssertionError("nothing is served to it")


@pytest.mark.parametrize("path", ["/raft/barrier", "/forward/services/create"])
async def test_what_clients_ask_through_it_was_not_done(path: str) -> None:
    handlers: Any = Handlers(None)  # type: ignore[arg-type]
    answer = await handlers.managers_only(make_mocked_request("POST", path), served)
    assert answer.status == 503
    assert NOT_DONE in answer.headers
    assert b"was demoted: it is no manager any more. Ask another manager" in answer.body


@pytest.mark.parametrize("path", ["/raft/join/w1", "/raft/leave/w1", "/forward/raft/join/w1", "/raft/health"])
async def test_about_itself_it_is_refused(path: str) -> None:
    handlers: Any = Handlers(None)  # type: ignore[arg-type]
    with pytest.raises(Forbidden):
        await handlers.managers_only(make_mocked_request("POST", path), served)
