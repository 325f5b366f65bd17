"""POST /containers/prune: every container that does not run, if it matches the filters."""

from typing import Any

from aiohttp import web

from cluster.seams import SystemClock
from worker.api.http import filters, matches_labels
from worker.api.timestamps import parse_moment
from worker.containers.containers import Containers
from worker.engine import Engine
from worker.runtime.model import ContainerConfig
from worker.volumes.store import size_of

_FILTERS = {"until", "label", "label!"}


async def pruned(engine: Engine, containers: Containers, request: web.Request) -> dict[str, Any]:
    """Remove them; the answer."""
    wanted = filters(request, _FILTERS)
    now = SystemClock().now()
    until = [parse_moment(text, now) for text in wanted.get("until", ())]

    def matches(config: ContainerConfig) -> bool:
        return (
            all(config.created_at < moment for moment in until)
            and matches_labels(config.labels, wanted.get("label", []))
            and not any(matches_labels(config.labels, [text]) for text in wanted.get("label!", ()))
        )

    removed, freed = [], 0
    for config, state in list(engine.runtime.list()):
        ours = bool(config.record)
        if ours and not state.running and not containers.restarting(config.id) and matches(config):
            freed += size_of(engine.runtime.upper(config.id))
            await containers.remove(config.id)
            removed.append(config.id)
    engine.events.tell("container", "prune", "", {"reclaimed": str(freed)})
    return {"ContainersDeleted": removed, "SpaceReclaimed": freed}
