"""How often a member is dialled that does not let us in."""

import asyncio
import socket
from collections.abc import Callable
from itertools import pairwise

import pytest

from cluster.seams import MILLISECOND, SECOND
from manager.raft.network import MANAGER_ROLE, Identity, LinkHandler, TlsMaterial
from manager.raft.peer import Peer
from manager.raft.transport import PeerTransport, _Incoming
from manager.raft.wire import FrameReader, Hello, Refused, Welcome, encode
from tests.fakes.clock import ManualClock, settle


class AnsweringLink:
    """A connection to a member that answers our hello, and hangs up if it refuses."""

    identity = Identity("n2", MANAGER_ROLE, "cluster")

    def __init__(self, handler: LinkHandler, welcome: bool) -> None:
        self._handler = handler
        self._welcome = welcome

    def write(self, data: bytes) -> None:
        answer = encode(Welcome() if self._welcome else Refused("not a member"))
        asyncio.get_running_loop().call_soon(self._handler.data_received, answer)

    def backlog(self) -> int:
        return 0

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        asyncio.get_running_loop().call_soon(self._handler.link_lost, None)


class Dialled:
    """A network that notes when it is dialled."""

    def __init__(self, clock: ManualClock, welcomes: Callable[[], bool]) -> None:
        self.times: list[int] = []
        self.last: AnsweringLink | None = None
        self._clock = clock
        self._welcomes = welcomes

    async def dial(self, address: str, handler: LinkHandler) -> None:
        self.times.append(self._clock.monotonic() // MILLISECOND)
        self.last = AnsweringLink(handler, self._welcomes())
        handler.link_made(self.last)

    async def accept(self, sock: socket.socket, handler: LinkHandler) -> None:
        raise AssertionError("nobody connects to us")

    def update_tls(self, tls: TlsMaterial) -> None:
        raise AssertionError("no certificate is renewed")


async def test_a_refusal_is_retried_soon_and_refusals_in_a_row_ever_later() -> None:
    clock, welcome = ManualClock(), False
    network = Dialled(clock, lambda: welcome)
    transport = PeerTransport(
        node_id="n1", address="192.0.2.1:2377", cluster_id="cluster", network=network, clock=clock
    )
    transport.setOnNodeConnectedCallback(lambda node: None)
    transport.setOnNodeDisconnectedCallback(lambda node: None)
    transport.addNode(Peer("n2", "192.0.2.2:2377"))
    transport.start()
    await clock.advance(4 * SECOND)
    assert [after - before for before, after in pairwise(network.times)] == [100, 200, 400, 800, 1000, 1000]
    welcome = True
    await clock.advance(SECOND)
    assert network.last is not None
    welcome = False
    begun = len(network.times)
    network.last.abort()
    await settle()
    await clock.advance(SECOND)
    assert [after - before for before, after in pairwise(network.times[begun:])] == [100, 200, 400]
    await transport.close()


class Written:
    """The accepting side's link; holds what was answered."""

    identity = Identity("n2", MANAGER_ROLE, "cluster")

    def __init__(self) -> None:
        self.answers: list[object] = []

    def write(self, data: bytes) -> None:
        self.answers += FrameReader().feed(data)

    def backlog(self) -> int:
        return 0

    def close(self) -> None:
        """Its work is done."""

    def abort(self) -> None:
        """Likewise."""


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("generation", [-2, -1, 0, 1, 2])
async def test_one_who_was_left_behind_is_told_so_also_by_a_manager_that_is_lost(
    lost: bool, generation: int
) -> None:
    clock = ManualClock()
    transport = PeerTransport(
        node_id="n1",
        address="192.0.2.1:2377",
        cluster_id="cluster",
        network=Dialled(clock, lambda: True),
        clock=clock,
    )
    transport.lost = lambda: lost
    transport.standing = lambda: 1
    link = Written()
    peer = transport.incoming_up(_Incoming(transport), link, Hello("192.0.2.2:2377", generation))
    (answer,) = link.answers
    if generation == 0:
        assert isinstance(answer, Refused)
        assert answer.generation == 1
    elif lost:
        assert isinstance(answer, Welcome)
    else:
        assert isinstance(answer, Refused)
        assert answer.generation == 0
    assert (peer is not None) == isinstance(answer, Welcome)
    assert ("n2" in transport.guests) == isinstance(answer, Welcome)
