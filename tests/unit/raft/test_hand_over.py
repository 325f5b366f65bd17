"""Leadership is handed to one who has the whole log, and not always to the same."""

from tests.fakes.raft_world import World


def test_any_of_those_that_are_up_to_date_takes_over() -> None:
    heirs = set()
    for seed in range(4):
        world = World(seed=seed)
        world.elect("A")
        world["A"].propose(b"x")
        world.rounds(3)
        node = world["A"].node
        assert node is not None
        heirs |= {heir.id for _ in range(10) if (heir := node._heir()) is not None}
        node.hand_over(None, lambda result, error: None)
        world.rounds(8)
        assert world["B"].leads or world["C"].leads
    assert heirs == {"B", "C"}


def test_who_is_behind_or_away_is_not_chosen() -> None:
    world = World()
    world.elect("A")
    world["A"].propose(b"x")
    world.rounds(3)
    world.crash("C")
    world["A"].propose(b"y")
    world.rounds(3)
    node = world["A"].node
    assert node is not None
    assert {heir.id for _ in range(10) if (heir := node._heir()) is not None} == {"B"}
