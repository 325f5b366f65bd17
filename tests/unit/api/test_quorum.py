"""A leader that has just taken over does not refuse a removal because it has not heard from everybody yet."""

import pytest

from cluster.errors import InvalidArgument
from cluster.seams import MILLISECOND
from manager.api.access import Managers
from manager.api.quorum import PATIENCE, check_quorum_without


class Leader:
    """Hears from m2 only after a while; also its clock."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.at = 0

    def now(self) -> int:
        return self.at

    def monotonic(self) -> int:
        return self.at

    async def sleep(self, nanoseconds: int) -> None:
        self.at += nanoseconds

    async def managers(self) -> Managers:
        here = {"m1", "m3"} if self.at < self.after else {"m1", "m2", "m3"}
        return Managers("m1", frozenset(("m1", "m2", "m3")), frozenset(here))


async def test_it_waits_a_moment_for_the_others() -> None:
    leader = Leader(after=300 * MILLISECOND)
    await check_quorum_without("m3", leader.managers, leader)
    assert leader.after <= leader.at < PATIENCE


async def test_it_refuses_when_they_stay_away() -> None:
    leader = Leader(after=2 * PATIENCE)
    with pytest.raises(InvalidArgument, match="Only 1 of the other 2 managers can be reached, 2 are needed"):
        await check_quorum_without("m3", leader.managers, leader)
    await check_quorum_without("m2", leader.managers, leader)  # who is away may be taken away
    await check_quorum_without("stranger", leader.managers, leader)
