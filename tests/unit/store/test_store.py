"""The store's promises to controllers, one at a time."""

import asyncio

import pytest
from msgspec.structs import replace

from cluster.errors import Conflict, InvalidArgument, NotFound, OutOfSequence, Unavailable
from cluster.objects import Cluster, Config, Network, Node, Secret, Service, Task, TaskStatus
from cluster.seams import SECOND
from cluster.spec import (
    ConfigSpec,
    ContainerSpec,
    NetworkAttachmentConfig,
    SecretReference,
    SecretSpec,
    ServiceSpec,
    TaskSpec,
)
from cluster.states import Role, TaskState
from manager.store import Store, Transaction, View, WatchLagged, restarting
from tests.fakes.clock import ManualClock, settle
from tests.fakes.proposer import LocalProposer


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Store:
    store = Store(clock)
    LocalProposer(store)
    return store


def service(id: str, name: str, **spec: object) -> Service:
    return Service(id=id, spec=ServiceSpec(name=name, **spec))


async def create(store: Store, *objects: object) -> None:
    await store.update(lambda tx: [tx.create(obj) for obj in objects])


async def test_a_created_object_is_stamped_with_index_and_time(store: Store, clock: ManualClock) -> None:
    await create(store, service("s1", "web"))
    stored = store.view().get(Service, "s1")
    assert (stored.version, stored.spec_version) == (1, 1)
    assert stored.created_at == stored.updated_at == clock.now()
    await clock.advance(5)
    await store.update(lambda tx: tx.update(replace(stored, registry_auth="x")))
    again = store.view().get(Service, "s1")
    assert (again.version, again.spec_version) == (2, 1)
    assert (again.created_at, again.updated_at) == (stored.created_at, clock.now())


async def test_spec_version_follows_the_spec_unless_the_writer_sets_it(store: Store) -> None:
    await create(store, service("s1", "web"))
    first = store.view().get(Service, "s1")
    await store.update(
        lambda tx: tx.update(replace(first, spec=replace(first.spec, task_template=TaskSpec(force_update=1))))
    )
    second = store.view().get(Service, "s1")
    assert second.spec_version == 2
    await store.update(lambda tx: tx.update(replace(second, spec=first.spec, spec_version=1)))
    assert store.view().get(Service, "s1").spec_version == 1


async def test_a_view_never_changes(store: Store) -> None:
    await create(store, service("s1", "web"))
    before = store.view()
    await store.update(lambda tx: tx.delete(Service, "s1"))
    assert before.by_name(Service, "web").id == "s1"
    assert store.view().by_name(Service, "web") is None
    assert before.index == 1
    assert store.view().index == 2


async def test_a_transaction_sees_its_own_writes_and_others_do_not_before_the_commit(store: Store) -> None:
    def change(tx: object) -> None:
        tx.create(service("s1", "web"))
        assert tx.by_name(Service, "web").id == "s1"
        tx.update(replace(tx.get(Service, "s1"), registry_auth="x"))
        assert tx.get(Service, "s1").registry_auth == "x"
        assert store.view().get(Service, "s1") is None

    await store.update(change)
    assert store.view().get(Service, "s1").registry_auth == "x"
    assert store.view().index == 1


async def test_an_empty_transaction_proposes_nothing(store: Store) -> None:
    def change(tx: object) -> int:
        tx.create(service("s1", "web"))
        tx.delete(Service, "s1")
        return 7

    assert await store.update(change) == 7
    assert store.view().index == 0


async def test_an_old_version_is_out_of_sequence(store: Store) -> None:
    await create(store, service("s1", "web"))
    old = store.view().get(Service, "s1")
    await store.update(lambda tx: tx.update(replace(old, registry_auth="x")))
    with pytest.raises(OutOfSequence, match="update out of sequence: service web is at version 2, not 1"):
        await store.update(lambda tx: tx.update(replace(old, registry_auth="y")))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (service("a", "web"), service("b", "WEB")),
        (
            Secret(id="a", spec=SecretSpec(name="key")),
            Secret(id="b", spec=SecretSpec(name="key")),
        ),
        (
            Config(id="a", spec=ConfigSpec(name="conf")),
            Config(id="b", spec=ConfigSpec(name="conf")),
        ),
    ],
)
async def test_names_are_unique_per_kind(store: Store, first: object, second: object) -> None:
    await create(store, first)
    with pytest.raises(Conflict, match=rf"name conflicts with an existing object: {first.kind} \w+ already"):
        await create(store, second)


async def test_two_racing_creators_of_one_name_have_one_winner(clock: ManualClock) -> None:
    store = Store(clock)
    proposer = LocalProposer(store)
    proposer.hold()
    racers = [asyncio.ensure_future(create(store, service(id, "web"))) for id in ("a", "b")]
    await asyncio.sleep(0)
    proposer.release(lambda numbers: numbers[::-1])
    results = await asyncio.gather(*racers, return_exceptions=True)
    assert isinstance(results[0], Conflict)
    assert results[1] is None
    assert store.view().by_name(Service, "web").id == "b"


async def test_a_refused_entry_changes_nothing_at_all(clock: ManualClock) -> None:
    store = Store(clock)
    proposer = LocalProposer(store)
    proposer.hold()
    first = asyncio.ensure_future(create(store, service("a", "web")))
    second = asyncio.ensure_future(create(store, Node(id="n1"), service("b", "web")))
    await asyncio.sleep(0)
    proposer.release()
    await first
    with pytest.raises(Conflict):
        await second
    assert store.view().get(Node, "n1") is None
    assert store.view().index == 2


async def test_a_deletion_overtaken_by_an_update_is_out_of_sequence(clock: ManualClock) -> None:
    store = Store(clock)
    proposer = LocalProposer(store)
    await create(store, Node(id="n"))
    proposer.hold()
    update = asyncio.ensure_future(
        store.update(lambda tx: tx.update(replace(tx.get(Node, "n"), role=Role.MANAGER)))
    )
    deletion = asyncio.ensure_future(store.update(lambda tx: tx.delete(Node, "n")))
    await asyncio.sleep(0)
    proposer.release()
    await update
    with pytest.raises(OutOfSequence, match="node n is at version 2, not 1"):
        await deletion
    assert store.view().get(Node, "n") is not None


async def test_an_update_overtaken_by_a_deletion_is_out_of_sequence_and_then_not_found(
    clock: ManualClock,
) -> None:
    for retrying, expected in ((False, OutOfSequence), (True, NotFound)):
        store = Store(clock)
        proposer = LocalProposer(store)
        await create(store, Node(id="n"))
        proposer.hold()
        deletion = asyncio.ensure_future(store.update(lambda tx: tx.delete(Node, "n")))

        def change(tx: Transaction) -> None:
            node = tx.get(Node, "n")
            tx.update(replace(node or Node(id="n"), role=Role.MANAGER))

        write = store.update_retrying if retrying else store.update
        update = asyncio.ensure_future(write(change))
        await asyncio.sleep(0)
        proposer.release()
        await deletion
        with pytest.raises(expected):
            await update


async def test_update_retrying_wins_in_the_end(clock: ManualClock) -> None:
    store = Store(clock)
    proposer = LocalProposer(store)
    await create(store, Node(id="n"))

    def label(key: str):
        def change(tx: object) -> None:
            node = tx.get(Node, "n")
            tx.update(replace(node, attachments={**node.attachments, key: key}))

        return change

    proposer.hold()
    racers = [asyncio.ensure_future(store.update_retrying(label(key))) for key in "abcde"]
    await asyncio.sleep(0)
    proposer.release()
    await asyncio.gather(*racers)
    assert set(store.view().get(Node, "n").attachments) == set("abcde")


async def test_task_states_never_go_back(store: Store) -> None:
    task = Task(id="t", status=TaskStatus(state=TaskState.RUNNING), desired_state=TaskState.RUNNING)
    await create(store, task)
    await store.update(lambda tx: tx.update(replace(tx.get(Task, "t"), desired_state=TaskState.SHUTDOWN)))
    late = TaskStatus(state=TaskState.STARTING, message="late")
    await store.update(
        lambda tx: tx.update(
            replace(tx.get(Task, "t"), status=late, desired_state=TaskState.RUNNING, node_id="n1")
        )
    )
    stored = store.view().get(Task, "t")
    assert stored.status.state == TaskState.RUNNING
    assert stored.status.message == ""
    assert stored.desired_state == TaskState.SHUTDOWN
    assert stored.node_id == "n1"


async def test_indexes_follow_the_objects(store: Store) -> None:
    spec = TaskSpec(
        container_spec=ContainerSpec(secrets=[SecretReference(secret_id="sec")]),
        networks=[NetworkAttachmentConfig(target="net")],
    )
    await create(store, service("s", "web", task_template=spec))
    await create(store, *(Task(id=f"t{i}", service_id="s", spec=spec) for i in range(3)))
    await store.update(lambda tx: tx.update(replace(tx.get(Task, "t1"), node_id="n")))
    view = store.view()
    assert [task.id for task in view.tasks_of_service("s")] == ["t0", "t1", "t2"]
    assert [task.id for task in view.tasks_on_node("n")] == ["t1"]
    assert [found.id for found in view.services_using("net")] == ["s"]
    assert len(view.tasks_using("sec")) == 3
    await store.update(lambda tx: tx.update(replace(tx.get(Task, "t1"), node_id="m")))
    await store.update(lambda tx: tx.delete(Task, "t0"))
    view = store.view()
    assert view.tasks_on_node("n") == []
    assert [task.id for task in view.tasks_of_service("s")] == ["t1", "t2"]
    assert [task.id for task in view.by_prefix(Task, "t")] == ["t1", "t2"]


async def test_nodes_have_no_unique_name(store: Store) -> None:
    with pytest.raises(TypeError, match="a node has no unique name"):
        store.view().by_name(Node, "host1")


async def test_there_is_one_cluster(store: Store) -> None:
    assert store.view().cluster() is None
    await create(store, Cluster(id="c"))
    assert store.view().cluster().id == "c"
    with pytest.raises(Conflict):
        await create(store, Cluster(id="d"))


async def test_deleting_and_updating_what_is_not_there(store: Store) -> None:
    with pytest.raises(NotFound, match="service x not found"):
        await store.update(lambda tx: tx.delete(Service, "x"))
    with pytest.raises(NotFound, match="task x not found"):
        await store.update(lambda tx: tx.update(Task(id="x")))


async def test_a_write_beyond_the_bounds_is_refused(store: Store) -> None:
    with pytest.raises(InvalidArgument, match="201 objects"):
        await create(store, *(Task(id=f"t{i}") for i in range(201)))
    big = Config(id="c", spec=ConfigSpec(name="big", data="x" * (3 * 512 * 1024)))
    with pytest.raises(InvalidArgument, match="at most 200 objects and 1572864 bytes"):
        await create(store, big)


async def test_batch_splits_at_the_bounds_and_keeps_the_order(clock: ManualClock) -> None:
    store = Store(clock)
    proposer = LocalProposer(store)
    await store.batch([lambda tx, i=i: tx.create(Task(id=f"t{i}")) for i in range(450)])
    assert [task.id for task in store.view().all(Task)] == [f"t{i}" for i in range(450)]
    assert len(proposer.entries) == 3
    data = "x" * (700 * 1024)
    await store.batch(
        [
            lambda tx, i=i: tx.create(Config(id=f"c{i}", spec=ConfigSpec(name=f"c{i}", data=data)))
            for i in range(5)
        ]
    )
    assert len(proposer.entries) == 6
    assert max(map(len, proposer.entries)) <= 3 * 512 * 1024 + 4096


async def test_a_batch_overtaken_by_another_write_is_run_again(clock: ManualClock) -> None:
    store = Store(clock)
    proposer = LocalProposer(store)
    await create(store, Task(id="a"), Task(id="b"))
    proposer.hold()

    def assign(id: str):
        return lambda tx: tx.update(replace(tx.get(Task, id), node_id="n"))

    other = asyncio.ensure_future(
        store.update(lambda tx: tx.update(replace(tx.get(Task, "a"), service_name="x")))
    )
    await asyncio.sleep(0)
    batch = asyncio.ensure_future(store.batch([assign("a"), assign("b")]))
    await asyncio.sleep(0)
    proposer.release()
    await asyncio.gather(other, batch)
    assert store.view().get(Task, "a").service_name == "x"
    assert len(store.view().tasks_on_node("n")) == 2


async def test_the_same_proposal_twice_is_applied_once(clock: ManualClock) -> None:
    store = Store(clock)
    proposer = LocalProposer(store)
    await create(store, service("a", "web"))
    _, watch = store.watch()
    first = store.apply(2, proposer.entries[0])
    assert first.index == 1
    assert not first.refused
    assert watch.pending() == []
    assert store.view().get(Service, "a").version == 1


async def test_failures_of_the_proposer_reach_the_writer(clock: ManualClock) -> None:
    store = Store(clock)
    with pytest.raises(Unavailable):
        await create(store, Node(id="n"))
    LocalProposer(store, fail=lambda number: "lost" if number == 0 else "unknown")
    with pytest.raises(Unavailable):
        await create(store, Node(id="n"))
    assert store.view().get(Node, "n") is None
    with pytest.raises(Unavailable):
        await create(store, Node(id="n"))
    assert store.view().get(Node, "n") is not None


async def test_a_watch_tells_its_classes_only(store: Store) -> None:
    _, watch = store.watch(Task, Network)
    await create(store, Node(id="n"))
    await create(store, Task(id="t"), Node(id="m"))
    await store.update(lambda tx: tx.delete(Task, "t"))
    events = await anext(watch)
    assert [(event.kind, event.object.id) for event in events] == [("created", "t")]
    events = await anext(watch)
    assert [(event.kind, event.old.id, event.new) for event in events] == [("deleted", "t", None)]
    watch.close()
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def test_a_waiting_reader_wakes(store: Store) -> None:
    _, watch = store.watch()
    reader = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    await create(store, Node(id="n"))
    (event,) = await reader
    assert event.new.id == "n"


async def test_a_slow_reader_is_told_that_it_lags(store: Store) -> None:
    _, watch = store.watch(bound=2)
    for number in range(3):
        await create(store, Node(id=f"n{number}"))
    with pytest.raises(WatchLagged):
        await anext(watch)
    with pytest.raises(WatchLagged):
        watch.pending()
    view, _ = store.watch()
    assert view.count(Node) == 3


async def test_a_watch_nobody_holds_goes_away(store: Store) -> None:
    _, watch = store.watch()
    assert len(store._watches) == 1
    del watch
    assert len(store._watches) == 0


def test_a_view_before_any_write_is_empty() -> None:
    assert list(View.empty().all(Task)) == []


async def test_a_controller_lives_through_lag_and_lost_quorum_but_not_through_defects(
    clock: ManualClock,
) -> None:
    happened: list[str] = []

    async def session() -> None:
        happened.append("session")
        raise [WatchLagged("behind"), Unavailable("no quorum"), ZeroDivisionError][len(happened) - 1]

    running = asyncio.ensure_future(restarting("test", session, clock))
    await settle()
    assert happened == ["session"] * 2
    await clock.advance(SECOND)
    assert happened == ["session"] * 3
    with pytest.raises(ZeroDivisionError):
        await running
