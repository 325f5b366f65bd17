"""A read is confirmed by the leader, or says how old it may be; the age is never less than the truth."""

import logging

import pytest

from cluster.seams import MILLISECOND, SECOND
from manager.raft.freshness import ASK_EVERY, Freshness
from tests.fakes.raft_fuzz import Fuzz
from tests.fakes.raft_world import SimClock, SimNode, World


def age(node: SimNode) -> int | None:
    assert node.node is not None
    return node.node.freshness.age(node.delivery.applied_index)


# --- the age of a manager's own state -------------------------------------------------------------------


class AgeFuzz(Fuzz):
    """Looks at every node after every turn: a node that lacks an acknowledged write must not claim to be
    younger than that acknowledgement."""

    def __init__(self, seed: int, ids: str) -> None:
        super().__init__(seed, ids, steps=2500)
        self.acknowledged: dict[bytes, int] = {}
        self.understated: list[str] = []

    def turn(self) -> None:
        super().turn()
        now = self.world.clock.time
        for entry, outcome in self.outcomes.items():
            if outcome and isinstance(outcome[0], int):
                self.acknowledged.setdefault(entry, now)
        for node_id, node in self.world.nodes.items():
            if node.node is None or (claimed := age(node)) is None:
                self.count["of unknown age"] += 1
                continue
            self.count["of known age"] += 1
            known = set(node.machine.entries)
            lacking = [at for entry, at in self.acknowledged.items() if entry not in known]
            if lacking:
                self.count["lacking something"] += 1
                if claimed < now - min(lacking):
                    self.understated.append(f"{node_id} claims {claimed}, is {now - min(lacking)} old")


@pytest.mark.parametrize("seed", range(4))
def test_an_age_is_never_understated(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    fuzz = AgeFuzz(seed, "ABCDE" if seed % 2 else "ABC")
    assert fuzz.run() == []
    assert fuzz.understated == []
    assert fuzz.count["lacking something"] > 20
    assert fuzz.count["of known age"] > fuzz.count["of unknown age"]


def test_a_healthy_manager_is_hardly_older_than_it_asks() -> None:
    world = World("ABC")
    world.elect("A")
    world.rounds(20)
    for _ in range(20):
        world.rounds(1)
        for node in world.nodes.values():
            assert (age(node) or 0) < ASK_EVERY + 300 * MILLISECOND  # a round here takes 60 ms


def test_cut_off_it_grows_old_also_beside_a_leader_that_lost_its_majority() -> None:
    world = World("ABCDE")
    world.elect("A")
    world.rounds(30)
    for minority in "AB":
        for majority in "CDE":
            world.disconnect(minority, majority)
    parted = world.clock.time
    world.rounds(10, only="AB")  # A still leads, and B still hears it
    assert world["A"].leads
    assert world["B"].node is not None
    assert world["B"].node.leader_id() == "A"
    for node_id in "AB":
        assert (age(world[node_id]) or 0) >= world.clock.time - parted


def test_what_is_confirmed_counts_only_once_it_is_applied() -> None:
    clock = SimClock()
    freshness = Freshness(clock)
    assert freshness.age(100) is None
    begun = clock.time
    freshness.confirmed(5, begun)
    freshness.confirmed(9, begun + SECOND)
    clock.time += 3 * SECOND
    assert freshness.age(4) is None
    assert freshness.age(8) == 3 * SECOND
    assert freshness.age(9) == 2 * SECOND
