"""`/volumes`: this node's named volumes."""

from typing import Any

import msgspec
from aiohttp import web

from cluster.engine_json import rfc3339
from worker.api.http import add_route, answer, body, boolean_filter, filters, flag, matches_labels
from worker.engine import Engine
from worker.volumes.store import Volume

_FILTERS = {"dangling", "driver", "label", "name"}


class CreateRequest(msgspec.Struct, frozen=True, rename="pascal"):
    """POST /volumes/create."""

    name: str = ""
    driver: str = ""
    labels: dict[str, str] | None = None
    driver_opts: dict[str, str] | None = None


def routes(app: web.Application, engine: Engine) -> None:
    """Add the handlers."""
    volumes = engine.volumes

    async def listing(request: web.Request) -> web.Response:
        wanted = filters(request, _FILTERS)
        dangling = boolean_filter(wanted, "dangling")
        found = [
            volume_json(volume)
            for volume in volumes.all()
            if matches_labels(volume.labels, wanted.get("label", []))
            and ("name" not in wanted or any(name in volume.name for name in wanted["name"]))
            and ("driver" not in wanted or "local" in wanted["driver"])
            and dangling in (None, not volumes.users(volume.name))
        ]
        return answer({"Volumes": found, "Warnings": None})

    async def create(request: web.Request) -> web.Response:
        asked = await body(request, CreateRequest)
        volume = volumes.create(
            asked.name, labels=asked.labels, driver=asked.driver, options=asked.driver_opts
        )
        return answer(volume_json(volume), status=201)

    async def inspect(request: web.Request) -> web.Response:
        return answer(volume_json(volumes.get(request.match_info["name"])))

    async def remove(request: web.Request) -> web.Response:
        volumes.remove(request.match_info["name"], force=flag(request, "force"))
        return web.Response(status=204)

    add_route(app, "GET", "/volumes", listing)
    add_route(app, "POST", "/volumes/create", create)
    add_route(app, "GET", "/volumes/{name}", inspect)
    add_route(app, "DELETE", "/volumes/{name}", remove)


def volume_json(volume: Volume) -> dict[str, Any]:
    """A volume in the Engine API's JSON."""
    return {
        "CreatedAt": rfc3339(volume.created_at),
        "Driver": volume.driver,
        "Labels": volume.labels or None,
        "Mountpoint": str(volume.path),
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": "local",
    }
