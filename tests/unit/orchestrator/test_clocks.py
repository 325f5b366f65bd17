"""What is to be done a while after something is done then, whatever becomes of the wall clocks."""

import asyncio
import random

import pytest

from cluster.objects import Cluster, StoreObject
from cluster.seams import SECOND
from cluster.spec import ReplicatedMode, ServiceMode
from cluster.states import TaskState
from manager.orchestrator.controller import Controller
from manager.orchestrator.plan import Plan
from manager.store import Event, Store, View
from tests.fakes.clock import ManualClock, settle
from tests.fakes.proposer import LocalProposer
from tests.unit.orchestrator.test_controllers import Manager, running

DELAY = 5 * SECOND
HOUR = 3600 * SECOND


class Alarm(Controller):
    """Rings once, so long after a moment that a wall clock told."""

    name = "alarm"
    watches: tuple[type[StoreObject], ...] = (Cluster,)
    since = 0
    rung = 0

    def subjects(self, view: View) -> set[str]:
        return {"x"}

    def touched(self, view: View, event: Event) -> set[str]:
        return {"x"}

    def decide(self, view: View, subject: str) -> Plan:
        plan = Plan()
        if self.now(subject) < self.since + DELAY:
            plan.wake(self.since + DELAY, DELAY)
        elif not self.rung:
            self.rung = self.clock.monotonic()
        return plan


def alarm(clock: ManualClock) -> Alarm:
    store = Store(clock, random.Random(1))
    LocalProposer(store)
    return Alarm(store, clock)


@pytest.mark.parametrize("behind", [0, 1, 30, 3600, 10**9])
async def test_one_whose_clock_is_behind_waits_as_long_as_it_takes_and_no_longer(behind: int) -> None:
    clock = ManualClock()
    found = alarm(clock)
    found.since = clock.now()
    clock.jump(-behind * SECOND)
    task = asyncio.create_task(found.run())
    await clock.advance(DELAY - 1)
    assert not found.rung
    await clock.advance(SECOND)
    assert DELAY <= found.rung <= DELAY + SECOND
    task.cancel()
    await settle()


async def test_a_clock_that_is_set_back_costs_one_more_wait() -> None:
    clock = ManualClock()
    found = alarm(clock)
    found.since = clock.now()
    task = asyncio.create_task(found.run())
    await clock.advance(4 * SECOND)
    clock.jump(-HOUR)
    await clock.advance(DELAY + SECOND)
    assert found.rung
    task.cancel()
    await settle()


@pytest.mark.parametrize("new_leader", [False, True])
async def test_a_task_is_restarted_after_its_delay_when_the_clock_is_set_back(new_leader: bool) -> None:
    manager = Manager()
    await manager.node("a")
    async with running(manager):
        await manager.create(ServiceMode(replicated=ReplicatedMode(replicas=1)))
        await settle()
        await manager.report(manager.tasks[0], TaskState.RUNNING)
        await manager.report(manager.tasks[0], TaskState.FAILED)
        await settle()
        assert [task.desired_state for task in manager.tasks] == [TaskState.SHUTDOWN, TaskState.READY]
        if not new_leader:
            manager.clock.jump(-HOUR)
            await manager.clock.advance(2 * DELAY)
    if new_leader:
        manager.clock.jump(-HOUR)
        async with running(manager):
            await manager.clock.advance(DELAY)
    assert manager.tasks[1].desired_state is TaskState.RUNNING
