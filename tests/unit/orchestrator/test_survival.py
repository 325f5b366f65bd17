"""Whatever a write may meet, a leader's controllers go on; a defect ends them."""

import asyncio
import random
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from cluster.errors import Conflict, NotFound, OutOfSequence, ShoalError, Unavailable
from cluster.messages import DescriptionChanged
from cluster.objects import Cluster, Node, NodeDescription, Service, StoreObject, Task
from cluster.seams import SECOND
from cluster.spec import ReplicatedMode, ServiceMode, ServiceSpec
from cluster.states import Role, TaskState
from manager.allocator import Allocator
from manager.ca.roles import RoleManager
from manager.dispatcher import Dispatcher
from manager.leader import Runnable
from manager.orchestrator.node_down import OrphanKeeper
from manager.orchestrator.orchestrator import GlobalOrchestrator, JobOrchestrator, ReplicatedOrchestrator
from manager.orchestrator.reaper import Reaper
from manager.orchestrator.resource_enforcer import ResourceEnforcer
from manager.raft.errors import NotLeader, OutcomeUnknown, Overloaded, TooLarge
from manager.scheduler import Scheduler
from manager.store import Store, Transaction
from tests.fakes.agent import FakeAgent
from tests.fakes.clock import ManualClock, settle
from tests.fakes.proposer import LocalProposer
from tests.unit.scheduler.cluster_of import node, task

REFUSALS: list[Callable[[], ShoalError]] = [
    lambda: NotFound("task t is gone"),
    lambda: Conflict("taken"),
    lambda: OutOfSequence("task t"),
    lambda: OutcomeUnknown(),
    lambda: NotLeader("m2"),
    lambda: Overloaded(),
    lambda: Unavailable("no quorum"),
    lambda: TooLarge(5 << 20, 4 << 20),
]


class Refusing(LocalProposer):
    """Raises `error` for every proposal while it is set."""

    error: Callable[[], Exception] | None = None
    refused = 0

    async def propose(self, entry: bytes) -> object:
        """As `LocalProposer`, unless it refuses."""
        if self.error is not None:
            self.refused += 1
            raise self.error()
        return await super().propose(entry)


class Leader:
    """All that a leader runs, on virtual time."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = Store(self.clock, random.Random(1))
        self.proposer = Refusing(self.store)
        self.dispatcher = Dispatcher(self.store, self.clock, random.Random(2), lambda: "10.0.0.1:2377")

    def controllers(self) -> list[Runnable]:
        store, clock, rng = self.store, self.clock, random.Random(3)
        return [
            Allocator(store, clock, rng),
            ReplicatedOrchestrator(store, clock, rng),
            GlobalOrchestrator(store, clock, rng),
            JobOrchestrator(store, clock, rng),
            ResourceEnforcer(store, clock),
            OrphanKeeper(store, clock),
            Reaper(store, clock),
            Scheduler(store, clock),
            self.dispatcher,
            RoleManager(store, dict, self.no_member, clock),
        ]

    async def no_member(self, node_id: str) -> None:
        raise AssertionError(f"{node_id} is not a member")

    async def found(self) -> None:
        """A cluster with a ready node, a service, tasks of services that are gone, and a node to promote."""
        promoted = node("n2")
        web = Service(
            id="web",
            spec=ServiceSpec(name="web", mode=ServiceMode(replicated=ReplicatedMode(replicas=3))),
        )
        things: list[StoreObject] = [
            Cluster(id="c"),
            node("n1"),
            replace(promoted, spec=replace(promoted.spec, role=Role.MANAGER)),
            web,
            Task(id="late", service_id="gone", node_id="n1"),
            Task(id="lost", service_id="gone", node_id="removed"),
            task("pending", "gone"),
        ]

        def create(tx: Transaction) -> None:
            for thing in things:
                tx.create(thing)

        await self.store.update(create)

    def settled(self) -> bool:
        view = self.store.view()
        tasks = list(view.tasks_of_service("web"))
        promoted = view.get(Node, "n2")
        return (
            len(tasks) == 3
            and all(each.status.state is TaskState.ASSIGNED for each in tasks)
            and view.get(Task, "lost") is None
            and promoted is not None
            and promoted.role is Role.MANAGER
        )


async def ended(tasks: list[asyncio.Task[None]]) -> None:
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def started(controllers: list[Runnable]) -> list[asyncio.Task[None]]:
    return [asyncio.ensure_future(controller.run()) for controller in controllers]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: type(refusal()).__name__)
async def test_every_controller_survives_whatever_a_write_may_raise(
    refusal: Callable[[], ShoalError],
) -> None:
    leader = Leader()
    await leader.found()
    leader.proposer.error = refusal
    running = started(leader.controllers())
    await leader.clock.advance(2 * SECOND)
    assert leader.proposer.refused > 5
    assert not [each.exception() for each in running if each.done()]
    leader.proposer.error = None
    # No session was opened, so that nodes would be down in the end; long before, all is as it should be.
    await leader.clock.advance(SECOND)
    assert leader.settled()
    await ended(running)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: type(refusal()).__name__)
async def test_the_dispatcher_survives_refused_reports_descriptions_and_downs(
    refusal: Callable[[], ShoalError],
) -> None:
    leader = Leader()
    await leader.found()
    running = started([leader.dispatcher])
    await settle()
    agent = FakeAgent(leader.dispatcher, "n1", Role.WORKER)
    await settle()
    agent.listen()
    leader.proposer.error = refusal
    agent.say(DescriptionChanged(description=NodeDescription(hostname="new")))
    agent.report("late", state=TaskState.FAILED)
    await leader.clock.advance(20 * SECOND)
    assert leader.proposer.refused > 2
    assert not running[0].done()
    await ended(running)


@pytest.mark.parametrize("number", range(10))
async def test_a_defect_ends_a_controller_loudly(number: int) -> None:
    leader = Leader()
    await leader.found()
    leader.proposer.error = lambda: TypeError("a defect")
    controller = leader.controllers()[number]
    running = asyncio.ensure_future(controller.run())
    if isinstance(controller, GlobalOrchestrator | JobOrchestrator | ResourceEnforcer):
        await leader.clock.advance(SECOND)
        assert not leader.proposer.refused  # it has no work here
        running.cancel()
        return
    await leader.clock.advance(20 * SECOND)
    assert controller_ended(running)


def controller_ended(running: "asyncio.Future[None]") -> bool:
    """Whether it ended with the defect's own error."""
    assert running.done()
    error = running.exception()
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return isinstance(error, TypeError)
