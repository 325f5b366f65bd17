"""Links that carry one way only, and members that come back: who leads, and that no term is spent on it."""

from tests.fakes.raft_world import World


def passing(world: World, lost: set[tuple[str, str]], rounds: int) -> None:
    """Time passes, with elections when they are due; what goes over the lost links vanishes."""
    for _ in range(rounds):
        world.clock.time += 20_000_000
        for node_id in world.nodes:
            world.step(node_id)
        for link in list(world.links):
            if link not in lost:
                world.deliver(*link)
        for link in lost:
            world.links[link].clear()


def leaders(world: World) -> list[str]:
    return [node_id for node_id, sim in world.nodes.items() if sim.leads]


def settled() -> World:
    world = World()
    world.elect("A")
    world.rounds()
    for sim in world.nodes.values():
        sim.node.postpone_election()
    return world


def test_a_leader_that_is_heard_and_hears_nobody_gives_way() -> None:
    """Its heartbeats alone would keep the others from electing one who can commit."""
    world = settled()
    answer = world["A"].propose(b"never acknowledged")
    passing(world, {("B", "A"), ("C", "A")}, 150)
    assert not world["A"].leads
    assert leaders(world) in (["B"], ["C"])
    assert answer
    assert not isinstance(answer[0], int)


def test_a_leader_that_hears_and_is_not_heard_is_replaced_and_follows() -> None:
    world = settled()
    passing(world, {("A", "B"), ("A", "C")}, 150)
    (new,) = leaders(world)
    assert new != "A"
    assert world["A"].node.leader_id() == new
    term = world[new].node.raftCurrentTerm
    passing(world, set(), 100)
    assert leaders(world) == [new]
    assert world[new].node.raftCurrentTerm == term


def test_a_follower_cut_from_the_leader_only_asks_in_vain() -> None:
    world = settled()
    term = world["A"].node.raftCurrentTerm
    cut = {("A", "C"), ("C", "A")}
    passing(world, cut, 300)  # Its log is as good as any: only that B hears the leader speaks against it.
    answer = world["A"].propose(b"goes on")
    passing(world, cut, 20)
    assert leaders(world) == ["A"]
    assert isinstance(answer[0], int)
    assert {sim.node.raftCurrentTerm for sim in world.nodes.values()} == {term}
    passing(world, set(), 100)
    assert world["C"].machine.entries == world["A"].machine.entries
    assert world["A"].node.raftCurrentTerm == term


def test_a_follower_that_is_heard_and_hears_nobody_disturbs_nobody() -> None:
    world = settled()
    term = world["A"].node.raftCurrentTerm
    for _ in range(10):  # On and off.
        passing(world, {("A", "C"), ("B", "C")}, 60)
        passing(world, set(), 20)
    assert leaders(world) == ["A"]
    assert {sim.node.raftCurrentTerm for sim in world.nodes.values()} == {term}


def test_a_flapping_a_sleeping_and_a_restarted_follower_cost_no_term() -> None:
    world = settled()
    term = world["A"].node.raftCurrentTerm
    for _ in range(10):
        world.isolate("C")
        passing(world, set(), 60)
        world.heal("C")
        passing(world, set(), 20)
    sleeper, world["C"].node = world["C"].node, None  # SIGSTOP: it does nothing, and what comes waits.
    passing(world, set(), 100)
    world["C"].node = sleeper
    passing(world, set(), 50)
    world.crash("C")
    passing(world, set(), 100)
    world.restart("C")
    passing(world, set(), 100)
    assert leaders(world) == ["A"]
    assert {sim.node.raftCurrentTerm for sim in world.nodes.values()} == {term}


def test_a_slow_follower_is_sent_no_more_than_it_takes() -> None:
    world = settled()
    big = b"x" * (1 << 20)
    for _ in range(24):
        world["A"].propose(big)
        world.rounds(1, only="AB")  # Nobody reads at C.
    waiting = sum(map(len, world.links["A", "C"]))
    assert waiting < 16 << 20, "back-pressure, not memory"
    world.rounds(60)
    assert world["C"].machine.entries == world["A"].machine.entries
