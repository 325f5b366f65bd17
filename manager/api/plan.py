"""POST /shoal/plan: what a change would do. Any manager answers; nothing is written."""

from aiohttp import web

from cluster.errors import InvalidArgument
from cluster.seams import SECOND
from manager.api.access import ACCESS
from manager.api.reads import state
from manager.api.request import answer, body
from manager.planning import Proposal, Simulation, outcome, propose
from manager.planning.proposal import Applied
from manager.planning.sentences import sentences

PATIENCE = 10 * SECOND
"""A plan that takes longer is told as far as it has come: the manager has a cluster to look after."""

MOST_TASKS = 10_000
"""A round of more would keep the manager's loop for too long."""


async def make_plan(request: web.Request) -> web.Response:
    """The outcome of a proposal: see `manager.planning.proposal` and `outcome`."""
    access = request.app[ACCESS]
    proposal = await body(request, Proposal)
    before = await state(request)
    simulation = Simulation(before, access.clock.now(), access.rng)
    applied: list[Applied] = []
    simulation.write([lambda tx: applied.append(propose(tx, proposal, simulation.now, access.rng))])
    size = simulation.size(applied[0].services)
    if size > MOST_TASKS:
        raise InvalidArgument(f"the services would have {size} tasks, and a plan takes {MOST_TASKS} at most")
    deadline = access.clock.monotonic() + PATIENCE
    await simulation.run(set(applied[0].services), lambda: access.clock.monotonic() < deadline)
    found = outcome(before, simulation, applied[0])
    found.sentences = sentences(found)
    return answer(found)
