"""When keys of encrypted networks are rotated; and that two nodes that are there always share an epoch."""

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from cluster.encryption import DEFAULT_ROTATION, ROTATION_LABEL
from cluster.objects import (
    Cluster,
    KeyEpochs,
    Network,
    Node,
    NodeDescription,
    NodeEncryption,
    NodeStatus,
    StoreObject,
)
from cluster.seams import SECOND
from cluster.spec import NetworkSpec
from cluster.states import NodeState
from manager.encryption.rotation import PATIENCE, Decision, decide
from manager.store import Transaction, View
from netplane.encryption import choose

NOW = 1_000_000 * SECOND


def view_of(*objects: StoreObject) -> View:
    tx = Transaction(View.empty())
    for each in objects:
        tx.create(each)  # type: ignore[arg-type]
    return tx.commit(1, 0)[0]


def node(id: str, *epochs: int, behind: tuple[str, ...] = (), down: bool = False) -> Node:
    said = NodeEncryption(method="kernel", keys={epoch: f"{id}{epoch}" for epoch in epochs}, behind=behind)
    return Node(
        id=id,
        description=NodeDescription(encryption=said),
        status=NodeStatus(state=NodeState.DOWN if down else NodeState.READY),
    )


def state(epochs: KeyEpochs, *nodes: Node, removed: int = 0, period: str = "") -> View:
    network = Network(
        id="n",
        spec=NetworkSpec(
            name="n", options={"encrypted": ""}, labels={ROTATION_LABEL: period} if period else {}
        ),
    )
    cluster = Cluster(id="c", key_epochs=epochs, removed_nodes=tuple(f"gone{i}" for i in range(removed)))
    return view_of(cluster, network, *nodes)


def both(since: int = NOW) -> KeyEpochs:
    return KeyEpochs(newest=2, oldest=1, since=since)


def one(since: int = NOW, *, asked: bool = False) -> KeyEpochs:
    return KeyEpochs(newest=1, oldest=1, since=since, asked=asked)


def test_the_first_network_begins_the_first_epoch() -> None:
    begun = decide(state(KeyEpochs()), NOW).epochs
    assert begun is not None
    assert begun.in_force == (1,)
    assert decide(view_of(Cluster(id="c")), NOW) == Decision()


def test_a_plain_network_has_no_keys() -> None:
    for options in ({}, {"encrypted": "false"}):
        network = Network(id="n", spec=NetworkSpec(name="n", options=options))
        assert decide(view_of(Cluster(id="c"), network), NOW) == Decision()


def test_keys_have_their_time() -> None:
    nodes = node("a", 1), node("b", 1)
    early = decide(state(one(), *nodes), NOW + DEFAULT_ROTATION - 1)
    assert early.epochs is None
    assert early.wake == (NOW + DEFAULT_ROTATION, DEFAULT_ROTATION)
    due = decide(state(one(), *nodes), NOW + DEFAULT_ROTATION).epochs
    assert due is not None
    assert due.in_force == (1, 2)
    assert due.because == "its time was over"
    sooner = decide(state(one(), *nodes, period="10m"), NOW + 600 * SECOND).epochs
    assert sooner is not None


def test_on_demand_and_after_a_removal() -> None:
    asked = decide(state(one(asked=True), node("a", 1)), NOW).epochs
    assert asked is not None
    assert (asked.in_force, asked.asked) == ((1, 2), False)
    after = decide(state(one(), node("a", 1), removed=1), NOW).epochs
    assert after is not None
    assert (after.because, after.removed) == ("a node was removed from the cluster", 1)
    again = decide(state(replace(after, oldest=2), node("a", 2), removed=1), NOW)
    assert again.epochs is None


def test_no_third_epoch_while_one_is_under_way() -> None:
    waiting = decide(state(replace(both(), asked=True), node("a", 1), node("b", 1, 2)), NOW)
    assert waiting.epochs is None
    assert waiting.note == "waits for a"
    over = decide(state(replace(both(), asked=True), node("a", 1, 2), node("b", 1, 2)), NOW).epochs
    assert over is not None
    assert (over.in_force, over.asked) == ((2,), True)


def test_who_is_there_but_never_gets_the_newest_is_cut_off_after_a_while() -> None:
    """Else the key that a removed node knows stays in force for ever."""
    stuck = node("a", 1)
    trouble = replace(stuck.description.encryption, trouble="no WireGuard")
    for said in (stuck, replace(stuck, description=replace(stuck.description, encryption=trouble))):
        view = state(both(), said, node("b", 1, 2))
        waiting = decide(view, NOW + PATIENCE - 1)
        assert (waiting.epochs, waiting.note) == (None, "waits for a")
        over = decide(view, NOW + PATIENCE)
        assert over.epochs is not None
        assert over.epochs.in_force == (2,)
        assert over.left_behind == ("a",)
    away = decide(state(both(), node("a", 1, down=True), node("b", 1, 2)), NOW + PATIENCE)
    assert away.left_behind == (), "it catches up when it comes back"


def test_who_is_away_is_waited_for_for_a_while() -> None:
    for behind in (node("a", 1, down=True), node("a", 1, 2, behind=("b",))):
        view = state(both(), behind, node("b", 1, 2))
        waiting = decide(view, NOW)
        assert waiting.epochs is None
        assert waiting.wake == (NOW + PATIENCE, PATIENCE)
        over = decide(view, NOW + PATIENCE).epochs
        assert over is not None
        assert over.in_force == (2,)


def test_a_peer_that_is_no_more_keeps_nobody() -> None:
    assert decide(state(both(), node("a", 1, 2, behind=("gone",))), NOW).epochs is not None


def test_the_newest_with_a_handshake_leads() -> None:
    assert choose({1, 2}, {1}, 1) == 1
    assert choose({1, 2}, {1, 2}, 1) == 2
    assert choose({1, 2}, set(), 1) == 1
    assert choose({1, 2}, set(), None) == 2
    assert choose({2}, set(), 1) == 2, "the one in use is in force no longer"
    assert choose(set(), set(), 1) is None


class Rotation(RuleBasedStateMachine):
    """Managers and nodes, with every delay in between: what nodes were told, made, said; who is there.

    A node that is there hears everything in time, or is left behind until it hears; one that is down hears
    nothing so long.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.epochs = one()
        self.told: dict[str, tuple[int, ...]] = {}  # node → epochs that it has
        self.said: dict[str, Node] = {}  # as the managers know it
        self.behind: dict[str, set[str]] = {}
        self.down: set[str] = set()
        self.left_behind: set[str] = set()  # did not say in time that they have the newest

    @initialize(count=st.integers(2, 4))
    def begin(self, count: int) -> None:
        for i in range(count):
            self.told[f"n{i}"] = (1,)
            self.say(f"n{i}")

    def say(self, name: str) -> None:
        epochs = self.told[name]
        behind = tuple(other for other in self.behind.get(name, ()) if len(epochs) > 1)
        self.said[name] = node(name, *epochs, behind=behind, down=name in self.down)

    @rule(pick=st.randoms())
    def hears(self, pick: Random) -> None:
        """A node learns what is in force, and makes it so."""
        if there := sorted(self.told.keys() - self.down):
            name = pick.choice(there)
            self.told[name] = self.epochs.in_force
            self.left_behind.discard(name)

    @rule(pick=st.randoms())
    def says(self, pick: Random) -> None:
        """A node tells how far it is; anything may keep it behind with some."""
        if there := sorted(self.told.keys() - self.down):
            name = pick.choice(there)
            self.behind[name] = {other for other in self.told if other != name and pick.random() < 0.3}
            self.say(name)

    @rule(pick=st.randoms())
    def goes_away(self, pick: Random) -> None:
        name = pick.choice(sorted(self.told))
        self.down.add(name)
        self.said[name] = replace(self.said[name], status=NodeStatus(state=NodeState.DOWN))

    @precondition(lambda self: self.down)
    @rule(pick=st.randoms())
    def comes_back(self, pick: Random) -> None:
        """Its session begins with all that is in force, and it says what it made of that."""
        name = pick.choice(sorted(self.down))
        self.down.discard(name)
        self.left_behind.discard(name)
        self.told[name] = self.epochs.in_force
        self.say(name)

    @rule(name=st.integers(10, 13))
    def joins(self, name: int) -> None:
        if f"n{name}" not in self.told:
            self.told[f"n{name}"] = self.epochs.in_force
            self.say(f"n{name}")

    @rule(seconds=st.sampled_from([1, 600, 3600, 13 * 3600]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule()
    def somebody_asks(self) -> None:
        self.epochs = replace(self.epochs, asked=True)

    @rule()
    def managers_decide(self) -> None:
        decision = decide(state(self.epochs, *self.said.values()), self.now)
        if decision.epochs is not None:
            assert len(decision.epochs.in_force) <= 2
            assert decision.epochs.newest - self.epochs.newest in (0, 1)
            self.epochs = decision.epochs
            self.left_behind.update(decision.left_behind)
            assert not decision.left_behind or self.now >= self.epochs.since + PATIENCE

    @invariant()
    def two_that_are_there_share_an_epoch(self) -> None:
        there = [set(self.told[name]) for name in self.told.keys() - self.down - self.left_behind]
        assert all(one & other for one in there for other in there)

    @invariant()
    def it_ends(self) -> None:
        """Once all that are there are through, and time has passed, one epoch is left."""
        settled = [node(name, *self.epochs.in_force) for name in self.told]
        decision = decide(state(self.epochs, *settled), self.now)
        after = decision.epochs or self.epochs
        assert len(self.epochs.in_force) == 1 or after.in_force == (self.epochs.newest,)


TestRotation = Rotation.TestCase
TestRotation.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
