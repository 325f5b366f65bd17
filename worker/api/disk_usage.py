"""`/system/df` and `/build/prune`: what takes space on this node."""

import asyncio
from collections import Counter
from typing import Any

from aiohttp import web

from cluster.errors import InvalidArgument, ShoalError
from cluster.seams import Clock
from worker.api.container_json import container_summary
from worker.api.http import add_route, answer
from worker.api.volumes import volume_json
from worker.engine import Engine
from worker.images.engine_json import image_summary
from worker.runtime.model import ContainerConfig
from worker.volumes.store import Volume, size_of

KINDS = ("container", "image", "volume", "build-cache")


def routes(app: web.Application, engine: Engine, clock: Clock) -> None:
    """Add the handlers."""

    async def usage(request: web.Request) -> web.Response:
        kinds = [kind for text in request.query.getall("type", []) for kind in text.split(",")]
        for kind in kinds:
            if kind not in KINDS:
                raise InvalidArgument(f"unknown object type: {kind}")
        return answer(await disk_usage(engine, set(kinds or KINDS), clock.now()))

    async def prune(_: web.Request) -> web.Response:
        """There is no build cache, and nothing to remove."""
        return answer({"CachesDeleted": None, "SpaceReclaimed": 0})

    add_route(app, "GET", "/system/df", usage)
    add_route(app, "POST", "/build/prune", prune)


async def disk_usage(engine: Engine, kinds: set[str], now: int) -> dict[str, Any]:
    """GET /system/df. Kinds that were not asked for are null."""
    return {
        "LayersSize": engine.images.disk_usage() if "image" in kinds else 0,
        "Images": _images(engine) if "image" in kinds else None,
        "Containers": await _containers(engine, now) if "container" in kinds else None,
        "Volumes": await _volumes(engine) if "volume" in kinds else None,
        "BuildCache": [] if "build-cache" in kinds else None,
    }


def _images(engine: Engine) -> list[dict[str, Any]]:
    used = Counter(config.image_id for config, _ in engine.runtime.list())
    return [
        image_summary(image, containers=used[image.id], shared_size=engine.images.shared_size(image))
        for image in engine.images.list()
    ]


async def _containers(engine: Engine, now: int) -> list[dict[str, Any]]:
    found = []
    for config, state in engine.runtime.list():
        summary = container_summary(engine, config, state, now)
        found.append({**summary, **await container_sizes(engine, config)})
    return found


async def container_sizes(engine: Engine, config: ContainerConfig) -> dict[str, int]:
    """The bytes that a container has written, and with those of its image."""
    written = await asyncio.to_thread(size_of, engine.runtime.upper(config.id))
    try:
        beneath = engine.images.get(config.image_id).size
    except ShoalError:  # the image was removed by force
        beneath = 0
    return {"SizeRw": written, "SizeRootFs": written + beneath}


async def _volumes(engine: Engine) -> list[dict[str, Any]]:
    return [
        {
            **volume_json(volume),
            "UsageData": {"RefCount": len(engine.volumes.users(volume.name)), "Size": await _size(volume)},
        }
        for volume in engine.volumes.all()
    ]


async def _size(volume: Volume) -> int:
    """-1 for one that is another file system: that one's size is not this node's, and it may not answer."""
    return -1 if volume.options else await asyncio.to_thread(size_of, volume.path)
