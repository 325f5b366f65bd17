"""A member that comes up at another address keeps its id; the others learn it, once it answers there."""

from pathlib import Path

from cluster.errors import Unavailable
from manager.raft.wire import FrameReader, Hello, Message, encode
from tests.fakes.raft import TlsCluster
from tests.fakes.raft_world import World


def moved(world: World, node_id: str, address: str) -> None:
    world.crash(node_id)
    world[node_id].start(address=address)
    world.heal(node_id)
    world.rounds(4)


def ask(world: World, leader: str, node_id: str, address: str) -> list[object]:
    answers: list[object] = []
    node = world[leader].node
    assert node is not None
    node.add_member(node_id, address, lambda result, error: answers.append(error))
    return answers


def test_a_follower_moves_and_all_agree_on_its_address() -> None:
    world = World()
    world.elect("A")
    moved(world, "B", "b2")
    answers = ask(world, "A", "B", "b2")
    world.rounds(5)
    assert answers == [None]
    for sim in world.nodes.values():
        assert sim.node is not None
        assert sim.node.members() == {"A": "A", "B": "b2", "C": "C"}
        assert {peer.address for peer in sim.node.voters()} <= {"A", "b2", "C"}
    again = ask(world, "A", "B", "b2")
    world.rounds(2)
    assert again == [None]
    for node_id in "ABC":  # and after a power loss of all
        world.crash(node_id)
    for node_id in "ABC":
        world.restart(node_id)
    world.elect("C")
    assert world["C"].node is not None
    assert world["C"].node.members()["B"] == "b2"


def test_members_that_all_moved_find_each_other_by_a_snapshot_alone() -> None:
    world = World()
    world.elect("A")
    for node_id, address in (("B", "b2"), ("C", "c2")):
        moved(world, node_id, address)
        ask(world, "A", node_id, address)
        world.rounds(5)
    for node_id in "ABC":
        world.compact(node_id)
        world.crash(node_id)
    for node_id in "ABC":
        world[node_id].start()
    dialled = {
        node_id: {peer.id: peer.address for peer in world[node_id].transport.peers.values()}
        for node_id in "ABC"
    }
    assert dialled == {
        "A": {"B": "b2", "C": "c2"},
        "B": {"A": "A", "C": "c2"},
        "C": {"A": "A", "B": "b2"},
    }


def test_the_leader_itself_moves_and_a_lonely_manager_too() -> None:
    world = World()
    moved(world, "A", "a2")
    world.elect("A")
    answers = ask(world, "A", "A", "a2")
    world.rounds(5)
    assert answers == [None]
    assert world["C"].node is not None
    assert world["C"].node.members()["A"] == "a2"

    lonely = World("A")
    moved(lonely, "A", "a2")
    lonely.elect("A")
    answers = ask(lonely, "A", "A", "a2")
    lonely.rounds(3)
    assert answers == [None]
    assert lonely["A"].node is not None
    assert lonely["A"].node.members() == {"A": "a2"}


def test_an_address_at_which_the_member_does_not_answer_is_refused() -> None:
    world = World()
    world.elect("A")
    answers = ask(world, "A", "B", "nowhere")
    world.rounds(4)
    assert answers == []
    world.rounds(3, milliseconds=100)
    for _ in range(60):
        world.rounds(1, milliseconds=200)
    assert len(answers) == 1
    assert isinstance(answers[0], Unavailable)
    assert "does not answer at nowhere" in str(answers[0])
    assert world["A"].node is not None
    assert world["A"].node.members()["B"] == "B"
    assert world["A"].transport.peers["B"].address == "B"


def test_members_of_an_older_version_are_not_told_what_they_can_t_read() -> None:
    world = World()
    world.elect("A")
    moved(world, "B", "b2")
    world["A"].transport.older.add("C")
    answers = ask(world, "A", "B", "b2")
    world.rounds(3)
    assert len(answers) == 1
    assert "manager C runs an older Shoal" in str(answers[0])
    assert world["C"].node is not None
    assert world["C"].node.members()["B"] == "B"
    world["A"].transport.older.clear()  # upgraded
    answers = ask(world, "A", "B", "b2")
    world.rounds(4)
    assert answers == [None]
    assert world["C"].node.members()["B"] == "b2"


def test_an_older_version_s_hello_is_known_by_what_it_lacks() -> None:
    class Older(Message, tag="hello"):
        address: str

    (hello,) = FrameReader().feed(encode(Older("192.0.2.1:2377")))
    assert hello == Hello("192.0.2.1:2377", -2)
    (hello,) = FrameReader().feed(encode(Hello("192.0.2.1:2377", -1)))
    assert hello == Hello("192.0.2.1:2377", -1)


def test_a_move_waits_for_another_change_and_one_that_is_cut_is_undone() -> None:
    world = World()
    world.elect("A")
    moved(world, "B", "b2")
    world.isolate("A")
    node = world["A"].node
    assert node is not None
    world.connect("A", "B")
    answers = ask(world, "A", "B", "b2")
    world.step("A")  # logged on the leader, and lost with it
    world.disconnect("A", "B")
    assert next(peer for peer in node.voters() if peer.id == "B").address == "b2"
    world.elect("C", only="BC")
    world.heal("A")
    world.rounds(6)
    assert len(answers) == 1  # not known to be done
    assert answers[0] is not None
    assert node.members()["B"] == "B"
    assert next(peer for peer in node.voters() if peer.id == "B").address == "B"


async def test_a_member_is_heard_at_its_new_address_before_the_others_agree_on_it(tmp_path: Path) -> None:
    cluster = TlsCluster(tmp_path)
    try:
        await cluster.grow(2)  # of two, both are needed for the agreement
        other = cluster.members["n2"]
        old = other.address
        await other.stop()
        other.address = "127.0.0.1:0"
        await other.start()
        assert other.address != old
        await cluster.propose(b"together again")
        await cluster.retry(lambda raft: raft.add_member("n2", other.address))
        await cluster.converge()
        for member in cluster.running():
            assert member.live.members["n2"] == other.address
    finally:
        await cluster.stop()
