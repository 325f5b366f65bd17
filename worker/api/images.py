"""`/images` and `/distribution`: list, pull, load, inspect, tag, remove."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from aiohttp import web

from cluster.errors import Forbidden, InvalidArgument, ShoalError, Unauthorized
from worker.api import image_archives
from worker.api.http import JSONStream, add_route, answer, filters, flag
from worker.api.image_archives import import_image
from worker.engine import Engine
from worker.images.auth import RegistryAuth
from worker.images.engine_json import (
    distribution_inspect,
    error_line,
    image_history,
    image_inspect,
    image_summary,
    prune_report,
    removal_items,
)
from worker.images.model import ImageUser

_FILTERS = {"before", "dangling", "label", "label!", "reference", "since", "until"}
MAX_LINES = 256
"""Lines of progress that wait for a slow client."""
_END = object()


def routes(app: web.Application, engine: Engine) -> None:
    """Add the handlers."""
    handlers = _Handlers(engine)
    image_archives.routes(app, engine)
    for method, path, handler in (
        ("GET", "/images/json", handlers.index),
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

    async def index(self, request: web.Request) -> web.Response:
        wanted = filters(request, _FILTERS)
        used = Counter(user.image_id for user in self._users())
        found = self._images.list(wanted)
        return answer([image_summary(image, containers=used[image.id]) for image in found])

    async def pull(self, request: web.Request) -> web.StreamResponse:
        name = request.query.get("fromImage", "")
        if not name and request.query.get("fromSrc", ""):
            return await import_image(self._engine, request)
        if not name:
            raise InvalidArgument("give fromImage, to pull an image, or fromSrc, to import one")
        tag = request.query.get("tag", "")
        if tag:
            name = f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"
        auth = RegistryAuth.decode(request.headers.get("X-Registry-Auth", ""))
        platform = request.query.get("platform") or None
        stream = JSONStream(request)
        messages: asyncio.Queue[Any] = asyncio.Queue()

        async def work() -> Exception | None:
            try:
                await self._images.pull(name, auth=auth, platform=platform, progress=_into(messages))
            except Unauthorized as error:
                # To a 401 the docker CLI answers with a prompt for a password, in which a script hangs.
                return Forbidden(str(error))
            except (ShoalError, OSError) as error:
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

        async def work() -> Exception | None:
            try:
                await self._images.load(body(), _into(messages))
            except (ShoalError, OSError) as error:
                return error
            finally:
                messages.put_nowait(_END)
            return None

        return await _stream(stream, messages, asyncio.create_task(work()), as_a_line=True)

    async def inspect(self, request: web.Request) -> web.Response:
        image = self._images.get(request.match_info["name"])
        return answer(image_inspect(image, self._images.document(image.id)))

    async def history(self, request: web.Request) -> web.Response:
        image = self._images.get(request.match_info["name"])
        document, sizes = self._images.document(image.id), self._images.layer_sizes(image)
        return answer(image_history(image, document, sizes))

    async def tag(self, request: web.Request) -> web.Response:
        repo, tag = request.query.get("repo", ""), request.query.get("tag", "")
        await self._images.tag(request.match_info["name"], f"{repo}:{tag}" if tag else repo)
        return web.Response(status=201)

    async def remove(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        removal = await self._images.remove(name, users=self._users(), force=flag(request, "force"))
        return answer(removal_items(removal))

    async def prune(self, request: web.Request) -> web.Response:
        wanted = filters(request, {"dangling", "label", "label!", "until"})
        dangling = wanted.pop("dangling", ["true"])[0].lower() in ("1", "true")
        removal = await self._images.prune(users=self._users(), dangling=dangling, filters=wanted)
        self._engine.events.tell("image", "prune", "", {"reclaimed": str(removal.reclaimed)})
        return answer(prune_report(removal))

    async def distribution(self, request: web.Request) -> web.Response:
        auth = RegistryAuth.decode(request.headers.get("X-Registry-Auth", ""))
        return answer(distribution_inspect(await self._images.resolve(request.match_info["name"], auth)))

    def _users(self) -> Sequence[ImageUser]:
        return [
            ImageUser(container_id=config.id, image_id=image_id, running=state.running)
            for config, state in self._engine.runtime.list()
            for image_id in dict.fromkeys(
                (config.image_id, *(m.image_id for m in config.mounts if m.image_id))
            )
        ]


def _into(messages: "asyncio.Queue[Any]") -> Callable[[dict[str, Any]], None]:
    """Queue lines for a client that may be slow, or not read at all: how far a layer is, it can miss."""

    def put(line: dict[str, Any]) -> None:
        if messages.qsize() < MAX_LINES or not line.get("progressDetail"):
            messages.put_nowait(line)

    return put


async def _stream(
    stream: JSONStream,
    messages: "asyncio.Queue[Any]",
    work: "asyncio.Task[Exception | None]",
    *,
    as_a_line: bool = False,
) -> web.StreamResponse:
    """Send progress until the work is done; a client that goes away ends its own pull.

    `as_a_line`: tell a failure in the stream in any case, as dockerd does where clients look for it there.
    """
    try:
        while (message := await messages.get()) is not _END:
            await stream.send(message)
        error = await work
        if error is not None and as_a_line:
            await stream.send(error_line(error))
        elif error is not None:
            await stream.fail(error, error_line(error))
        return await stream.finish()
    finally:
        if not work.done():
            work.cancel()
            await asyncio.wait((work,))
