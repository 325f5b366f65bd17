"""`/commit`: an image of a container."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime

from aiohttp import web

from cluster.errors import Conflict, InvalidArgument
from worker.api.http import add_route, answer, body, flag
from worker.containers.commit import changed_config, pieces, spooled, write_changes
from worker.containers.containers import Containers
from worker.containers.record import record_of
from worker.containers.request import Settings
from worker.engine import Engine
from worker.images.changes import apply_changes
from worker.images.config import image_config
from worker.runtime.model import ContainerStatus
from worker.runtime.spawn import RuntimeFailed


def routes(app: web.Application, engine: Engine, containers: Containers) -> None:
    """Add the handler."""

    async def commit(request: web.Request) -> web.Response:
        query = request.query
        name = query.get("container", "")
        if not name:
            raise InvalidArgument("no container is named: give container")
        config, state = containers.find(name)
        image = engine.images.get(config.image_id)
        record = record_of(config)
        made = changed_config(
            image_config(engine.images.document(image.id)),
            record.settings if record is not None else None,
            await body(request, Settings),
            now=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            author=query.get("author", ""),
            comment=query.get("comment", ""),
            did=" ".join(config.args),
        )
        made = apply_changes(made, query.getall("changes", []))
        repo, tag = query.get("repo", ""), query.get("tag", "")
        reference = f"{repo}:{tag}" if repo and tag else repo
        freeze = flag(request, "pause", default=True) and state.status is ContainerStatus.RUNNING
        places = [mount.target for mount in config.mounts]
        with spooled() as layer:
            async with _frozen(engine, config.id) if freeze else nullcontext():
                await asyncio.to_thread(write_changes, engine.runtime.upper(config.id), places, layer)
            committed = await engine.images.import_files(pieces(layer), made, reference, below=image)
        told = {"comment": made.comment, "imageID": committed.id, "imageRef": reference}
        engine.events.container("commit", config, told)
        return answer({"Id": committed.id}, status=201)

    add_route(app, "POST", "/commit", commit)


@asynccontextmanager
async def _frozen(engine: Engine, id: str) -> AsyncIterator[None]:
    """Hold a container still. One that has just ended is still anyway."""
    with suppress(RuntimeFailed, Conflict):
        await engine.runtime.pause(id)
    try:
        yield
    finally:
        with suppress(RuntimeFailed, Conflict):
            await engine.runtime.resume(id)
