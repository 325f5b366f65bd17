"""What must hold whatever is written, in whatever order: the store against a plain model."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from msgspec.structs import replace

from cluster.errors import Conflict, NotFound, OutOfSequence, ShoalError
from cluster.objects import Secret, Service, Task, TaskStatus
from cluster.spec import SecretSpec, ServiceSpec
from cluster.states import TaskState
from manager.store import DamagedSnapshot, Store, Transaction, View, Watch
from manager.store.entry import UnknownSchema
from manager.store.persistent import ABSENT, PersistentMap
from tests.fakes.clock import ManualClock
from tests.fakes.proposer import LocalProposer

CLASSES = (Service, Secret, Task)


def contents(view: View) -> dict[str, list[object]]:
    """Everything a view says, indexes included."""
    tasks = list(view.all(Task))
    return {
        **{cls.kind: list(view.all(cls)) for cls in CLASSES},
        "by service": [(id, view.tasks_of_service(id)) for id in sorted({one.service_id for one in tasks})],
        "by node": [
            (id, sorted(one.id for one in view.tasks_on_node(id)))
            for id in sorted({one.node_id for one in tasks if one.node_id})
        ],
        "names": [
            (one.spec.name, view.by_name(type(one), one.spec.name))
            for cls in (Service, Secret)
            for one in view.all(cls)
        ],
    }


class StoreAgainstModel(RuleBasedStateMachine):
    """Two managers' stores fed by one log, a model made of dicts, watches taken at any time, views kept."""

    ids = Bundle("ids")
    watches = Bundle("watches")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.store = Store(self.clock, random.Random(0))
        self.follower = Store(self.clock, random.Random(1))
        self.proposer = LocalProposer(self.store, self.follower)
        self.model: dict[tuple[type, str], object] = {}
        self.kept: list[tuple[View, dict[str, list[object]]]] = []
        self.number = 0

    def teardown(self) -> None:
        self.loop.close()

    def write(self, change: object) -> Exception | None:
        try:
            self.loop.run_until_complete(self.store.update(change))
        except ShoalError as error:
            return error
        return None

    def remember(self, cls: type, id: str) -> None:
        self.model[(cls, id)] = self.store.view().get(cls, id)

    def name_taken(self, cls: type, name: str) -> bool:
        return any(
            kind is cls and obj.spec.name.lower() == name.lower() for (kind, _), obj in self.model.items()
        )

    @rule(target=ids, name=st.sampled_from(["web", "WEB", "db", "x"]), secret=st.booleans())
    def create_named(self, name: str, secret: bool) -> tuple[type, str]:
        self.number += 1
        id = f"o{self.number}"
        obj = (
            Secret(id=id, spec=SecretSpec(name=name))
            if secret
            else Service(id=id, spec=ServiceSpec(name=name))
        )
        taken = self.name_taken(type(obj), name)
        error = self.write(lambda tx: tx.create(obj))
        assert isinstance(error, Conflict) is taken
        if not taken:
            self.remember(type(obj), id)
        return type(obj), id

    @rule(target=ids, service=st.sampled_from(["s1", "s2"]), node=st.sampled_from(["", "n1"]))
    def create_task(self, service: str, node: str) -> tuple[type, str]:
        self.number += 1
        id = f"o{self.number}"
        assert self.write(lambda tx: tx.create(Task(id=id, service_id=service, node_id=node))) is None
        self.remember(Task, id)
        return Task, id

    @rule(
        key=ids,
        state=st.sampled_from(TaskState),
        desired=st.sampled_from(TaskState),
        node=st.sampled_from(["n1", "n2"]),
        stale=st.booleans(),
    )
    def update(
        self, key: tuple[type, str], state: TaskState, desired: TaskState, node: str, stale: bool
    ) -> None:
        cls, id = key
        stored = self.model.get(key)
        base = stored or cls(id=id)
        new = replace(base, version=base.version - stale)
        if cls is Task:
            new = replace(new, status=TaskStatus(state=state), desired_state=desired, node_id=node)
        else:
            new = replace(new, spec=replace(new.spec, labels={"state": state.word}))
        error = self.write(lambda tx: tx.update(new))
        if stored is None:
            assert isinstance(error, NotFound)
        elif stale:
            assert isinstance(error, OutOfSequence)
        else:
            assert error is None
            now = self.store.view().get(cls, id)
            assert now.version == self.proposer.index
            if cls is Task:
                assert now.status.state == max(state, stored.status.state)
                assert now.desired_state == max(desired, stored.desired_state)
                assert now.node_id == node
            self.remember(cls, id)

    @rule(key=consumes(ids))
    def delete(self, key: tuple[type, str]) -> None:
        existed = self.model.pop(key, None) is not None
        error = self.write(lambda tx: tx.delete(*key))
        assert isinstance(error, NotFound) is not existed

    @rule(target=watches)
    def watch(self) -> tuple[dict[tuple[type, str], object], Watch]:
        view, watch = self.store.watch()
        return {(cls, obj.id): obj for cls in CLASSES for obj in view.all(cls)}, watch

    @rule(taken=watches)
    def follow(self, taken: tuple[dict[tuple[type, str], object], Watch]) -> None:
        """A view and the events after it make the later view."""
        state, watch = taken
        for events in watch.pending():
            for event in events:
                key = (type(event.object), event.object.id)
                assert state.get(key) == event.old
                if event.new is None:
                    del state[key]
                else:
                    state[key] = event.new
        assert state == {(cls, obj.id): obj for cls in CLASSES for obj in self.store.view().all(cls)}

    @rule()
    def keep_a_view(self) -> None:
        view = self.store.view()
        self.kept.append((view, contents(view)))

    @rule(size=st.integers(1, 400))
    def snapshot_round_trip(self, size: int) -> None:
        data = b"".join(self.store.snapshot())
        restored = Store(self.clock)
        restored.restore(
            self.store.view().index, (data[start : start + size] for start in range(0, len(data), size))
        )
        assert contents(restored.view()) == contents(self.store.view())
        assert b"".join(restored.snapshot()) == data
        if self.proposer.entries:  # what was applied before is known after
            outcome = restored.apply(self.proposer.index + 1, self.proposer.entries[-1])
            assert outcome.index == self.proposer.index
            assert contents(restored.view()) == contents(self.store.view())

    @invariant()
    def the_store_is_the_model(self) -> None:
        view = self.store.view()
        stored = {(cls, obj.id): obj for cls in CLASSES for obj in view.all(cls)}
        assert stored == self.model
        for cls in (Service, Secret):
            names = [obj.spec.name.lower() for obj in view.all(cls)]
            assert len(names) == len(set(names))

    @invariant()
    def managers_agree(self) -> None:
        assert contents(self.follower.view()) == contents(self.store.view())
        assert self.follower.view().index == self.store.view().index

    @invariant()
    def kept_views_never_change(self) -> None:
        for view, before in self.kept[-3:]:
            assert contents(view) == before


TestStore = StoreAgainstModel.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(2, 6))
def test_of_racing_writers_of_one_version_exactly_one_wins(data: st.DataObject, racers: int) -> None:
    order = data.draw(st.permutations(range(racers)))

    async def run() -> None:
        store = Store(ManualClock())
        proposer = LocalProposer(store)
        await store.update(lambda tx: tx.create(Task(id="t")))
        proposer.hold()

        def write(number: int):
            return lambda tx: tx.update(replace(tx.get(Task, "t"), node_id=f"n{number}"))

        writers = [asyncio.ensure_future(store.update(write(number))) for number in range(racers)]
        await asyncio.sleep(0)
        proposer.release(lambda numbers: order)
        results = await asyncio.gather(*writers, return_exceptions=True)
        winner = order[0]
        assert results[winner] is None
        assert all(isinstance(results[number], OutOfSequence) for number in order[1:])
        assert store.view().get(Task, "t").node_id == f"n{winner}"

    asyncio.run(run())


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(st.integers(0, 60), st.one_of(st.none(), st.integers()), max_size=30), max_size=30
    )
)
def test_the_persistent_map_is_a_dict_whose_versions_stay(batches: list[dict[int, int | None]]) -> None:
    versions: list[tuple[PersistentMap[int, int], dict[int, int]]] = []
    model = {key: 0 for key in range(10, 50)}
    current: PersistentMap[int, int] = PersistentMap(model)
    for batch in batches:
        current = current.with_changes({key: ABSENT if new is None else new for key, new in batch.items()})
        for key, new in batch.items():
            if new is None:
                model.pop(key, None)
            else:
                model[key] = new
        versions.append((current, dict(model)))
    for version, expected in versions:
        assert list(version.items()) == list(expected.items())
        assert len(version) == len(expected)
        assert all(version.get(key) == expected.get(key) for key in range(61))
        assert all((key in version) is (key in expected) for key in range(61))


@settings(deadline=None)
@given(st.integers(0, 2000), st.sampled_from(["cut", "flip"]))
def test_a_damaged_snapshot_is_refused_and_changes_nothing(position: int, how: str) -> None:
    async def filled() -> Store:
        store = Store(ManualClock(), random.Random(3))
        LocalProposer(store)
        await store.batch([lambda tx, i=i: tx.create(Task(id=f"t{i}")) for i in range(20)])
        return store

    store = asyncio.run(filled())
    data = bytearray(b"".join(store.snapshot()))
    position %= len(data)
    if how == "cut":
        del data[position:]
    else:
        data[position : position + 4] = b"\xc1\xc1\xc1\xc1"
    before = contents(store.view())
    try:
        store.restore(9, iter([bytes(data)]))
    except (DamagedSnapshot, UnknownSchema):
        assert contents(store.view()) == before
    else:
        assert how == "flip", "a snapshot cut short was taken for whole"


async def test_a_snapshot_is_of_the_instant_at_which_it_was_taken() -> None:
    store = Store(ManualClock())
    LocalProposer(store)
    await store.batch([lambda tx, i=i: tx.create(Task(id=f"t{i}")) for i in range(300)])
    chunks = store.snapshot()
    first = next(chunks)
    await store.update(lambda tx: tx.delete(Task, "t299"))
    rest = await asyncio.to_thread(lambda: list(chunks))
    restored = Store(ManualClock())
    restored.restore(2, iter([first, *rest]))
    assert restored.view().get(Task, "t299") is not None
    assert max(map(len, rest)) < 64 * 1024


async def test_a_restored_store_tells_its_watches() -> None:
    store = Store(ManualClock())
    LocalProposer(store)
    await store.update(lambda tx: tx.create(Task(id="t")))
    chunks = list(store.snapshot())
    _, watch = store.watch()
    store.restore(1, iter(chunks))
    with pytest.raises(ShoalError, match="behind"):
        watch.pending()


def test_a_transaction_changes_nothing_but_itself() -> None:
    view = View.empty()
    transaction = Transaction(view)
    transaction.create(Task(id="t"))
    fork = transaction.fork()
    fork.create(Task(id="u"))
    assert view.count(Task) == 0
    assert [change.id for change in transaction.changes()] == ["t"]
    assert [change.id for change in fork.changes()] == ["t", "u"]
