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


class Port:
    """Its state may be behind until it is confirmed."""

    def __init__(self, *, promoted: bool) -> None:
        self.promoted = promoted
        self.is_confirmed = False

    async def confirmed(self) -> None:
        self.is_confirmed = True


class Checking(_Handlers):
    """Refuses w1 unless the confirmed state has its promotion."""

    def _manager(self, request: web.Request) -> Any:
        port: Any = self._port
        if not (port.is_confirmed and port.promoted):
            raise Forbidden("node w1 was demoted: it is no manager any more")


ABOUT_ITSELF = pytest.mark.parametrize(
    "path", ["/raft/join/w1", "/raft/leave/w1", "/forward/raft/join/w1", "/raft/health"]
)


@ABOUT_ITSELF
async def test_about_itself_it_is_refused_by_a_confirmed_state(path: str) -> None:
    port: Any = Port(promoted=False)
    handlers: Any = Checking(port)
    with pytest.raises(Forbidden):
        await handlers.managers_only(make_mocked_request("POST", path), served)
    assert port.is_confirmed


@ABOUT_ITSELF
async def test_a_state_that_is_behind_refuses_nobody(path: str) -> None:
    async def joined(request: web.Request) -> web.StreamResponse:
        return web.Response(status=204)

    port: Any = Port(promoted=True)
    handlers: Any = Checking(port)
    answer = await handlers.managers_only(make_mocked_request("POST", path), joined)
    assert answer.status == 204
