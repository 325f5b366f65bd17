"""One run: a cluster forms, clients work while things go wrong; then all heals, and it must converge."""

import asyncio
import time
from dataclasses import dataclass, field
from random import Random

from cluster.seams import SECOND
from tests.simulator.convergence import lacking, paused, steady
from tests.simulator.faults import Faults
from tests.simulator.jobs import JobClient
from tests.simulator.loop import START, Failed, Stuck
from tests.simulator.operator import Operator
from tests.simulator.workload import Client
from tests.simulator.world import Violation, World

CONVERGES_WITHIN = 150.0
"""Virtual seconds after the last fault in which the cluster must be as its specs say."""
STEADY_FOR = 14
"""Looks in a row, each half a second after the other: longer than a silent node is still called ready."""
RESTS_FOR = 60.0
WORKS_FOR, WORKS_AT = 20.0, 0.15


@dataclass
class Result:
    """What came of a seed."""

    seed: int
    digest: str = ""
    violation: str = ""
    story: list[str] = field(default_factory=list)
    virtual: float = 0.0
    cpu: float = 0.0
    index: int = 0
    kinds: tuple[str, ...] = ()


def simulate(
    seed: int, *, kinds: frozenset[str] | None = None, verbose: bool = False, busy_for: float | None = None
) -> Result:
    """Run a seed. kinds: only these faults."""
    begun = time.process_time()
    plan = Random(f"{seed} plan")
    managers = plan.choice((3, 3, 3, 3, 3, 3, 5, 1))
    world = World(seed, managers=managers, workers=plan.randrange(1, 4), verbose=verbose)
    busy = busy_for if busy_for is not None else plan.choice((20.0, 40.0, 80.0))
    calm = plan.random() < 0.1
    faults = Faults(world, frozenset() if calm else kinds)
    faults.pace = plan.choice((5.0, 10.0, 20.0)) / busy
    world.pace = plan.choice((4.0, 10.0)) / busy
    changes = plan.random() < 0.4
    clients = plan.randrange(1, 3)
    result = Result(seed)

    async def main() -> None:
        await world.form()
        workers = [*(Client(world, number) for number in range(1, clients + 1)), JobClient(world)]
        operator = Operator(world, changes=changes)
        await workers[0].process.start(workers[0].make_network("net"))
        tasks = [client.process.start(client.work(), client.name) for client in workers]
        tasks.append(operator.client.process.start(operator.work(), "operator"))
        process = world.process("faults")
        trouble = process.start(faults.work(), "faults")
        await asyncio.sleep(busy)
        world.healing = True
        operator.resting = True
        trouble.cancel()
        faults.heal()
        for node in world.nodes:
            node.disk.on_operation = lambda operation, path, process: None
            node.disk.sync_fails = 0
            node.boot()
        world.story.note("-", "everything heals")
        for task in tasks[:-1]:
            task.cancel()
        await workers[0].process.start(workers[0].activate(), "activate")
        await _converge(world)
        await _rest(world)
        # Now that nothing goes wrong, the promises about what Shoal does by itself hold strictly.
        again = [client.process.start(client.work(), client.name) for client in workers]
        world.pace = WORKS_AT
        await asyncio.sleep(WORKS_FOR)
        for task in again:
            task.cancel()
        await workers[0].process.start(workers[0].activate(), "activate")
        await _converge(world)

    try:
        world.run(main())
    except (Violation, Failed, Stuck) as error:
        result.violation = str(error) or type(error).__name__
    result.digest = world.story.digest()
    result.story = list(world.story.lines)
    result.virtual = (world.loop.now - START) / SECOND
    result.index = world.checks.last_index
    result.cpu = time.process_time() - begun
    return result


async def _rest(world: World) -> None:
    """A cluster that has converged and is left alone elects nobody, writes nothing, and stays as it is."""
    before = world.checks.last_index, len(world.checks.leaders)
    quiet = steady(world) and not paused(world)
    await asyncio.sleep(RESTS_FOR)
    if quiet and (world.checks.last_index, len(world.checks.leaders)) != before:
        raise Violation(
            f"at rest the log grew from {before[0]} to {world.checks.last_index}, or leaders changed"
        )
    why = lacking(world)
    if why and steady(world):
        raise Violation(f"converged, and not any more: {why}")


async def _converge(world: World) -> None:
    deadline = world.loop.now + int(CONVERGES_WITHIN * SECOND)
    good, last = 0, ""
    while good < (STEADY_FOR if steady(world) else 2):
        why = lacking(world)
        good = 0 if why else good + 1
        last = why or last
        if world.loop.now > deadline:
            raise Violation(f"not converged {CONVERGES_WITHIN:g} s after the last fault: {last}")
        await asyncio.sleep(0.5)
