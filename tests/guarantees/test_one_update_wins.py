"""For one version of an object exactly one update wins, task states never go back, and a watch misses nothing
or says so."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.errors import OutOfSequence
from cluster.messages import TaskStatusUpdate
from cluster.objects import Service, StoreObject, Task, TaskStatus
from cluster.spec import ServiceSpec
from cluster.states import TaskState
from manager.dispatcher.statuses import written
from manager.store import Store, Transaction, View, Watch
from manager.store.events import WatchLagged
from tests.fakes.clock import ManualClock
from tests.fakes.proposer import LocalProposer
from tests.host.manager.managers import Managers

# --- one winner -----------------------------------------------------------------------------------------


@pytest.mark.host
async def test_of_updates_through_several_managers_at_once_one_wins(tmp_path: Path) -> None:
    async with Managers(tmp_path, "127.0.80") as managers:
        await managers.found()
        await managers.add()
        await managers.add()
        _, created = await managers.all[0].create_service("web")
        path = f"/services/{created['ID']}"
        for turn in range(6):
            service = await managers.all[turn % 3].get(path)
            version = service["Version"]["Index"]

            async def update(number: int, service=service, version=version) -> int:
                spec = {**service["Spec"], "Labels": {"by": str(number)}}
                manager = managers.all[number % 3]
                status, answer = await manager.request("POST", f"{path}/update?version={version}", spec)
                assert status == 200 or "update out of sequence" in answer["message"]
                return status

            statuses = await asyncio.gather(*(update(number) for number in range(9)))
            assert sorted(statuses) == [200] + [400] * 8
            winner = str(statuses.index(200))
            for manager in managers.all:
                now = await manager.get(path)
                assert now["Spec"]["Labels"] == {"by": winner}
                assert now["Version"]["Index"] > version


# --- task states ----------------------------------------------------------------------------------------

states = st.sampled_from(list(TaskState))


@settings(max_examples=200, deadline=None)
@given(
    writes=st.lists(st.tuples(states, states, st.integers(0, 4)), min_size=1, max_size=12),
    data=st.data(),
)
def test_no_write_in_any_order_takes_a_task_back(
    writes: list[tuple[TaskState, TaskState, int]], data: st.DataObject
) -> None:
    """Writers who read at different times: late reports, old sessions, deposed leaders' decisions."""

    async def run() -> None:
        store = Store(ManualClock(), random.Random(1))
        proposer = LocalProposer(store)
        await store.update(lambda tx: tx.create(Task(id="t")))
        _, watch = store.watch(Task)

        def write(state: TaskState, desired: TaskState) -> Callable[[Transaction], None]:
            def change(tx: Transaction) -> None:
                task = tx.get(Task, "t")
                assert task is not None
                tx.update(replace(task, status=TaskStatus(state=state), desired_state=desired))

            return change

        begun = 0
        while begun < len(writes):
            batch = writes[begun : begun + 1 + writes[begun][2]]
            begun += len(batch)
            proposer.hold()
            racers = [asyncio.ensure_future(store.update(write(*w[:2]))) for w in batch]
            await asyncio.sleep(0)
            held = proposer.held
            order = data.draw(st.permutations(range(held)))
            proposer.release(lambda _, order=order: list(order))
            results = await asyncio.gather(*racers, return_exceptions=True)
            assert all(result is None or isinstance(result, OutOfSequence) for result in results)
        for (event,) in watch.pending():
            assert isinstance(event.old, Task)
            assert isinstance(event.new, Task)
            assert event.new.status.state >= event.old.status.state
            assert event.new.desired_state >= event.old.desired_state

    asyncio.run(run())


@settings(max_examples=200, deadline=None)
@given(reports=st.lists(states, min_size=1, max_size=12))
def test_reports_of_agents_only_raise_a_state_and_how_a_task_ended_does_not_change(
    reports: list[TaskState],
) -> None:
    task = Task(id="t")
    for state in reports:
        after = written(task, TaskStatusUpdate("t", TaskStatus(state=state)), now=1) or task
        assert after.status.state >= task.status.state
        if task.status.state.terminal:
            assert after.status.state == task.status.state
        task = after


# --- watches --------------------------------------------------------------------------------------------


class Replica:
    """A reader that knows the state by its view and its watch only."""

    def __init__(self, store: Store, bound: int) -> None:
        view, self.watch = store.watch(bound=bound)
        self.state = contents(view)
        self.lagged = False

    def catch_up(self) -> None:
        try:
            for commit in self.watch.pending():
                for event in commit:
                    key = (event.object.kind, event.object.id)
                    assert self.state.get(key) == event.old, "an event is missing before this one"
                    if event.new is None:
                        del self.state[key]
                    else:
                        self.state[key] = event.new
        except WatchLagged:
            self.lagged = True


def contents(view: View) -> dict[tuple[str, str], StoreObject]:
    return {(cls.kind, obj.id): obj for cls in (Service, Task) for obj in view.all(cls)}


@settings(max_examples=150, deadline=None)
@given(
    bound=st.integers(1, 8), reads=st.lists(st.booleans(), min_size=5, max_size=40), seed=st.integers(0, 999)
)
def test_a_watch_misses_nothing_or_says_so(bound: int, reads: list[bool], seed: int) -> None:
    rng = random.Random(seed)

    async def run() -> None:
        store = Store(ManualClock(), random.Random(1))
        LocalProposer(store)
        replica = Replica(store, bound)
        waiting = 0
        for number, read in enumerate(reads):
            waiting += await commit(store, rng, number)
            if read:
                replica.catch_up()
                assert replica.lagged == (waiting > bound), "it must say so exactly when it fell behind"
                if replica.lagged:
                    replica = Replica(store, bound)
                waiting = 0
                assert replica.state == contents(store.view())
        if seed % 3 == 0:
            store.restore(store.view().index, store.snapshot())
            replica.catch_up()
            assert replica.lagged, "a snapshot tells no events, so it must say so"

    asyncio.run(run())


async def commit(store: Store, rng: random.Random, number: int) -> int:
    """Create, change or delete a few objects at once; how many commits that made."""

    def change(tx: Transaction) -> None:
        for part in range(rng.randrange(1, 3)):
            tasks = list(tx.all(Task))
            match rng.randrange(3):
                case 0 if tasks:
                    tx.delete(Task, rng.choice(tasks).id)
                case 1 if tasks:
                    tx.update(replace(rng.choice(tasks), node_id=f"n{number}"))
                case _:
                    tx.create(Task(id=f"t{number}.{part}"))
        name = f"s{number}"
        tx.create(Service(id=name, spec=ServiceSpec(name=name)))

    await store.update(change)
    return 1


def test_a_closed_watch_is_over_not_lagging() -> None:
    watch = Watch((Task,))
    watch.close()
    assert watch.pending() == []
