"""Allocator and scheduler side by side, with others writing, and proposals that are late, lost or unknown."""

import asyncio
import random

import pytest
from msgspec.structs import replace

from cluster.errors import OutOfSequence, Unavailable
from cluster.objects import Cluster, Node, Service, Task, TaskStatus
from cluster.seams import MILLISECOND, SECOND
from cluster.spec import ResourceRequirements, Resources
from cluster.states import TaskState
from manager.allocator import Allocator
from manager.allocator.claims import claims
from manager.scheduler import Scheduler
from manager.store import Store, Transaction
from tests.fakes.clock import ManualClock, settle
from tests.fakes.proposer import LocalProposer
from tests.unit.allocator.world import network, port, service, task
from tests.unit.scheduler.cluster_of import CORE, node


def needing_a_core(one: Task) -> Task:
    resources = ResourceRequirements(reservations=Resources(nano_cpus=CORE))
    return replace(one, spec=replace(one.spec, resources=resources))


def somebody_elses_write(rng: random.Random, web: Service, number: int) -> object:
    """What users, orchestrators and agents do meanwhile."""

    def change(tx: Transaction) -> None:
        tasks = list(tx.all(Task))
        live = [one for one in tasks if not one.status.state.terminal]
        match rng.randrange(5):
            case 0 | 1:
                tx.create(needing_a_core(task(f"t{number}", web, number)))
            case 2 if live:
                ended = rng.choice(live)
                tx.update(
                    replace(
                        ended, status=TaskStatus(state=TaskState.FAILED), desired_state=TaskState.SHUTDOWN
                    )
                )
            case 3 if tasks:
                tx.delete(Task, rng.choice(tasks).id)
            case _:
                changed = rng.choice(list(tx.all(Node)))
                tx.update(replace(changed, data_path_address=str(number)))

    return change


@pytest.mark.parametrize("seed", range(25))
async def test_everything_ends_where_it_should(seed: int) -> None:
    rng = random.Random(seed)
    clock = ManualClock()
    store = Store(clock, random.Random(seed))
    trouble = True

    def fail(_: int) -> str | None:
        return rng.choice([None] * 8 + ["lost", "unknown"]) if trouble else None

    LocalProposer(store)
    await store.update(lambda tx: tx.create(Cluster(id="c")))
    web = service("s", "web", "net", ports=[port(80, 8080)])
    await store.batch(
        [
            lambda tx, obj=obj: tx.create(obj)
            for obj in (network("net", subnet="10.9.0.0/27"), web, *(node(f"n{i}", cpus=5) for i in range(3)))
        ]
    )
    LocalProposer(store, clock=clock, delay=3 * MILLISECOND, fail=fail)
    controllers = [
        asyncio.ensure_future(Allocator(store, clock, random.Random(seed)).run()),
        asyncio.ensure_future(Scheduler(store, clock).run()),
    ]
    writers: list[asyncio.Future[None]] = []
    for number in range(60):
        writers.append(asyncio.ensure_future(store.update(somebody_elses_write(rng, web, number))))
        await clock.advance(rng.randrange(5) * MILLISECOND)
    trouble = False
    await clock.advance(3 * SECOND)
    for result in await asyncio.gather(*writers, return_exceptions=True):
        assert result is None or isinstance(result, Unavailable | OutOfSequence), result
    await settle()
    assert not any(controller.done() for controller in controllers)

    view = store.view()
    live = [one for one in view.all(Task) if not one.status.state.terminal]
    placed = [one for one in live if one.status.state is TaskState.ASSIGNED]
    assert len(placed) == min(len(live), 15)
    for one in live:
        if one not in placed:
            assert one.status.state is TaskState.PENDING
            assert one.status.error == "no suitable node (insufficient resources on 3 nodes)"
    for each in view.all(Node):
        assert len([one for one in view.tasks_on_node(each.id) if one in placed]) <= 5
    held = [claim for obj in (*live, *view.all(Service), *view.all(Node)) for claim in claims(obj)]
    assert len(held) == len(set(held))
    for controller in controllers:
        controller.cancel()
    await asyncio.gather(*controllers, return_exceptions=True)
