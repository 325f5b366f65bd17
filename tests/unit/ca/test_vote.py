"""A manager that finds itself without a leader asks for its vote, and not otherwise."""

import asyncio

from cluster.errors import Unavailable
from cluster.seams import SECOND
from manager.rpc.vote import VoteKeeper
from tests.fakes.clock import ManualClock


class Others:
    """What the keeper sees of the cluster."""

    def __init__(self) -> None:
        self.leader = "m1"
        self.asked = 0
        self.refuse = False

    async def ask(self) -> None:
        self.asked += 1
        if self.refuse:
            raise Unavailable("no leader")


async def test_asks_only_after_a_time_without_a_leader() -> None:
    clock, others = ManualClock(), Others()
    keeper = asyncio.create_task(VoteKeeper(lambda: others.leader, others.ask, clock).run())
    try:
        await clock.advance(60 * SECOND)
        assert others.asked == 0
        others.leader = ""
        await clock.advance(SECOND)  # an election
        others.leader = "m2"
        await clock.advance(10 * SECOND)
        assert others.asked == 0
        others.leader = ""
        await clock.advance(3 * SECOND)
        assert others.asked == 1
    finally:
        keeper.cancel()
        await asyncio.wait((keeper,))


async def test_a_refusal_is_not_the_end() -> None:
    clock, others = ManualClock(), Others()
    others.leader, others.refuse = "", True
    keeper = asyncio.create_task(VoteKeeper(lambda: others.leader, others.ask, clock).run())
    try:
        await clock.advance(10 * SECOND)
        assert others.asked >= 3
        assert not keeper.done()
    finally:
        keeper.cancel()
        await asyncio.wait((keeper,))
