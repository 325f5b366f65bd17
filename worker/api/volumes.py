"""`/volumes`: this node's volumes."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from cluster.engine_json import rfc3339
from cluster.errors import InvalidArgument, NotFound, NotImplementedHere, Unavailable
from cluster.pattern import compiled
from worker.api.http import (
    add_route,
    answer,
    api_version,
    body,
    boolean_filter,
    filters,
    flag,
    matches_labels,
)
from worker.api.prune_filters import labels_pass
from worker.engine import Engine
from worker.volumes.store import Volume, size_of

_FILTERS = {"dangling", "driver", "label", "name"}
_PRUNE_FILTERS = {"all", "label", "label!"}
_ONLY_ANONYMOUS = (1, 42)
"""Older clients expect a prune to remove named volumes, too."""


class CreateRequest(msgspec.Struct, frozen=True, rename="pascal"):
    """POST /volumes/create."""

    name: str = ""
    driver: str = ""
    labels: dict[str, str] | None = None
    driver_opts: dict[str, str] | None = None
    cluster_volume_spec: dict[str, Any] | None = None


def routes(app: web.Application, engine: Engine, is_manager: Callable[[], bool]) -> None:
    """Add the handlers."""
    handlers = _Handlers(engine, is_manager)
    add_route(app, "GET", "/volumes", handlers.index)
    add_route(app, "POST", "/volumes/create", handlers.create)
    add_route(app, "POST", "/volumes/prune", handlers.prune)
    add_route(app, "GET", "/volumes/{name:.+}", handlers.inspect)
    add_route(app, "PUT", "/volumes/{name:.+}", handlers.update)
    add_route(app, "DELETE", "/volumes/{name:.+}", handlers.remove)


class _Handlers:
    def __init__(self, engine: Engine, is_manager: Callable[[], bool]) -> None:
        self._engine = engine
        self._volumes = engine.volumes
        self._is_manager = is_manager

    async def index(self, request: web.Request) -> web.Response:
        wanted = {key: values for key, values in filters(request, _FILTERS).items() if values}
        dangling = boolean_filter(wanted, "dangling")
        names = [(text, compiled(text)) for text in wanted.get("name", ())]
        found = [
            volume_json(volume)
            for volume in self._volumes.all()
            if matches_labels(volume.labels, wanted.get("label", []))
            and (not names or any(text == volume.name or name.search(volume.name) for text, name in names))
            and ("driver" not in wanted or volume.driver in wanted["driver"])
            and dangling in (None, not self._volumes.users(volume.name))
        ]
        return answer({"Volumes": found, "Warnings": None})

    async def create(self, request: web.Request) -> web.Response:
        asked = await body(request, CreateRequest)
        if asked.cluster_volume_spec is not None:
            raise NotImplementedHere(
                "cluster volumes (CSI) are not supported: leave ClusterVolumeSpec out for a local volume"
            )
        volume = self._volumes.create(
            asked.name, labels=asked.labels, driver=asked.driver, options=asked.driver_opts
        )
        return answer(volume_json(volume), status=201)

    async def inspect(self, request: web.Request) -> web.Response:
        return answer(volume_json(self._volumes.get(request.match_info["name"])))

    async def update(self, request: web.Request) -> web.Response:
        """Only cluster volumes can be updated, of which there are none."""
        if not self._is_manager():
            raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")
        if not request.query.get("version", "").isdecimal():
            raise InvalidArgument("invalid swarm object version: give the volume's version")
        raise NotFound(f"volume {request.match_info['name']} not found: there are no cluster volumes")

    async def remove(self, request: web.Request) -> web.Response:
        self._volumes.remove(request.match_info["name"], force=flag(request, "force"))
        return web.Response(status=204)

    async def prune(self, request: web.Request) -> web.Response:
        wanted = filters(request, _PRUNE_FILTERS)
        everything = boolean_filter(wanted, "all") or api_version(request) < _ONLY_ANONYMOUS
        removed, freed = [], 0
        for volume in self._volumes.all():
            if not (everything or volume.anonymous) or not labels_pass(volume.labels, wanted):
                continue
            if self._volumes.users(volume.name):
                continue
            size = 0 if volume.options else await asyncio.to_thread(size_of, volume.path)
            if self._volumes.users(volume.name):  # a container has come meanwhile
                continue
            self._volumes.remove(volume.name, force=True)
            removed.append(volume.name)
            freed += size
        self._engine.events.tell("volume", "prune", "", {"reclaimed": str(freed)})
        return answer({"VolumesDeleted": removed or None, "SpaceReclaimed": freed})


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
