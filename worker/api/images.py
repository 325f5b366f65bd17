"""`/images` and `/distribution`: list, pull, load, inspect, tag, remove."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from aiohttp import web

from cluster.errors import InvalidArgument, ShoalError
from worker.api.http import JSONStream, add_route, filters, flag, matches_labels
from worker.engine import Engine
from worker.images.auth import RegistryAuth
from worker.images.engine_json import (
    distribution_json,
    history_json,
    image_json,
    image_summary,
)
from worker.images.reference import Reference

_FILTERS = {"before", "dangling", "label", "reference", "since", "until"}
_END = object()


def routes(app: web.Application, engine: Engine) -> None:
    """Add the handlers."""
    handlers = _Handlers(engine)
    for method, path, handler in (
        ("GET", "/images/json", handlers.list),
        ("POST", "/images/create", handlers.pull),
        ("POST", "/images/load", handlers.load),
        ("POST", "/images/prune", handlers.prune),
        ("GET", "/images/{name:.+}/json", handlers.inspect),
        ("GET", "/images/{name:.+}/history", handlers.history),
        ("POST", "/images/{name:.+}/tag", handlers.tag),
        ("DELETE", "/images/{name:.+}", handlers.remove),
        ("GET", "/distribution/{name:.+}/json", handlers.distribution),
    ):
        add_route(app, method, path, handler)


class _Handlers:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._images = engine.images

    async def list(self, request: web.Request) -> web.Response:
        wanted = filters(request, _FILTERS)
        images = [
            image
            for image in self._images.list()
            if matches_labels(image.config.labels, wanted.get("label", []))
            and (
                "dangling" not in wanted or (not image.repo_tags) == (wanted["dangling"][0] in ("1", "true"))
            )
            and ("reference" not in wanted or any(_refers(image.repo_tags, r) for r in wanted["reference"]))
        ]
        used = self._used()
        return web.json_response([image_summary(image, used.get(image.id, 0)) for image in images])

    async def pull(self, request: web.Request) -> web.StreamResponse:
        name = request.query.get("fromImage", "")
        if not name:
            raise InvalidArgument("only pulling is offered: give fromImage (fromSrc imports are not served)")
        tag = request.query.get("tag", "")
        if tag:
            name = f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"
        auth = RegistryAuth.decode(request.headers.get("X-Registry-Auth", ""))
        platform = request.query.get("platform") or None
        stream = JSONStream(request)
        messages: asyncio.Queue[Any] = asyncio.Queue()

        async def work() -> ShoalError | None:
            try:
                await self._images.pull(name, auth=auth, platform=platform, progress=messages.put_nowait)
            except ShoalError as error:
                return error
            finally:
                messages.put_nowait(_END)
            return None

        return await _stream(stream, messages, asyncio.create_task(work()))

    async def load(self, request: web.Request) -> web.StreamResponse:
        stream = JSONStream(request)
        messages: asyncio.Queue[Any] = asyncio.Queue()

        async def body() -> AsyncIterator[bytes]:
            async for chunk in request.content.iter_chunked(1 << 18):
                yield chunk

        async def work() -> ShoalError | None:
            try:
                await self._images.load(body(), messages.put_nowait)
            except ShoalError as error:
                return error
            finally:
                messages.put_nowait(_END)
            return None

        return await _stream(stream, messages, asyncio.create_task(work()))

    async def inspect(self, request: web.Request) -> web.Response:
        return web.json_response(image_json(self._images.get(request.match_info["name"])))

    async def history(self, request: web.Request) -> web.Response:
        return web.json_response(history_json(self._images.get(request.match_info["name"])))

    async def tag(self, request: web.Request) -> web.Response:
        image = self._images.get(request.match_info["name"])
        repo, tag = request.query.get("repo", ""), request.query.get("tag", "")
        await self._images.tag(image.id, f"{repo}:{tag}" if tag else repo)
        return web.Response(status=201)

    async def remove(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        deleted = await self._images.remove(name, force=flag(request, "force"), in_use=set(self._used()))
        return web.json_response(deleted)

    async def prune(self, request: web.Request) -> web.Response:
        wanted = filters(request, {"dangling", "label", "label!", "until"})
        dangling = wanted.get("dangling", ["true"])[0] in ("1", "true")
        return web.json_response(await self._images.prune(dangling_only=dangling, in_use=set(self._used())))

    async def distribution(self, request: web.Request) -> web.Response:
        reference = Reference.parse(request.match_info["name"])
        auth = RegistryAuth.decode(request.headers.get("X-Registry-Auth", ""))
        return web.json_response(distribution_json(await self._images.resolve(str(reference), auth)))

    def _used(self) -> Mapping[str, int]:
        counts: dict[str, int] = {}
        for config, _ in self._engine.runtime.list():
            counts[config.image_id] = counts.get(config.image_id, 0) + 1
        return counts


async def _stream(
    stream: JSONStream, messages: "asyncio.Queue[Any]", work: "asyncio.Task[ShoalError | None]"
) -> web.StreamResponse:
    """Send progress until the work is done; a client that goes away ends its own pull."""
    try:
        while (message := await messages.get()) is not _END:
            await stream.send(message)
        error = await work
        if error is not None:
            await stream.fail(error)
        return await stream.finish()
    finally:
        if not work.done():
            work.cancel()
            await asyncio.wait((work,))


def _refers(tags: "tuple[str, ...]", pattern: str) -> bool:
    return any(fnmatchcase(tag, pattern) or fnmatchcase(tag.rpartition(":")[0], pattern) for tag in tags)
