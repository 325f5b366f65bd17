"""POST /containers/prune: every container that does not run, if it matches the filters.

Those of tasks are left to their services, which keep them for their logs.
"""

import asyncio
from typing import Any

from aiohttp import web

from cluster.errors import ShoalError
from cluster.seams import SystemClock
from worker.api.http import filters
from worker.api.prune_filters import labels_pass, until
from worker.containers.containers import Containers
from worker.engine import Engine
from worker.volumes.store import size_of

_FILTERS = {"until", "label", "label!"}


async def pruned(engine: Engine, containers: Containers, request: web.Request) -> dict[str, Any]:
    """Remove them; the answer."""
    wanted = filters(request, _FILTERS)
    before = until(wanted, SystemClock().now())
    removed, freed = [], 0
    for config, state in list(engine.runtime.list()):
        if not config.record or state.running or not labels_pass(config.labels, wanted):
            continue
        if containers.restarting(config.id) or (before is not None and config.created_at >= before):
            continue
        size = await asyncio.to_thread(size_of, engine.runtime.upper(config.id))
        try:
            await containers.remove(config.id)
        except ShoalError:
            continue  # it was started meanwhile, or removed by somebody else
        removed.append(config.id)
        freed += size
    engine.events.tell("container", "prune", "", {"reclaimed": str(freed)})
    return {"ContainersDeleted": removed, "SpaceReclaimed": freed}
