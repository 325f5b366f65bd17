"""Images that leave and come as a whole: `docker save`, `docker push`, `docker import`."""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from cluster.errors import Forbidden, InvalidArgument, NotImplementedHere, ShoalError, Unauthorized
from worker import node
from worker.api.http import JSONStream, add_route
from worker.engine import Engine
from worker.images.auth import RegistryAuth
from worker.images.changes import apply_changes
from worker.images.config import HistoryEntry, ImageConfig
from worker.images.engine_json import error_line
from worker.images.errors import NoSuchImage
from worker.images.reference import Reference

_PIECE = 1 << 18


def routes(app: web.Application, engine: Engine) -> None:
    """Add the handlers."""
    handlers = _Handlers(engine)
    add_route(app, "GET", "/images/get", handlers.save_several)
    add_route(app, "GET", "/images/{name:.+}/get", handlers.save)
    add_route(app, "POST", "/images/{name:.+}/push", handlers.push)


class _Handlers:
    def __init__(self, engine: Engine) -> None:
        self._images = engine.images

    async def save_several(self, request: web.Request) -> web.StreamResponse:
        """GET /images/get."""
        names = [name for text in request.query.getall("names", []) for name in text.split(",") if name]
        if not names:
            raise InvalidArgument("no image is named: give names")
        return await self._send(request, names)

    async def save(self, request: web.Request) -> web.StreamResponse:
        """GET /images/{name}/get."""
        return await self._send(request, [request.match_info["name"]])

    async def _send(self, request: web.Request, names: list[str]) -> web.StreamResponse:
        async with contextlib.aclosing(self._images.save(self._all_tags(names))) as pieces:
            first = await anext(pieces, b"")  # an image that isn't there is an error of its own
            response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
            await response.prepare(request)
            await response.write(first)
            async for piece in pieces:
                await response.write(piece)
        await response.write_eof()
        return response

    def _all_tags(self, names: list[str]) -> list[str]:
        """A repository without a tag means all its tags, if `latest` is not there."""
        found: list[str] = []
        for name in names:
            try:
                self._images.get(name)
                found.append(name)
            except NoSuchImage:
                tags = self._tags_of(name)
                if not tags:
                    raise
                found += tags
        return found

    def _tags_of(self, name: str) -> list[str]:
        tags = [tag for image in self._images.list() for tag in image.repo_tags]
        return sorted(tag for tag in tags if tag.rpartition(":")[0] == name)

    async def push(self, request: web.Request) -> web.StreamResponse:
        """POST /images/{name}/push: one tag, or all of a repository."""
        name, tag = request.match_info["name"], request.query.get("tag", "")
        if request.query.get("platform"):
            raise NotImplementedHere("pushing one platform of several is not supported: leave platform out")
        reference = Reference.parse(f"{name}:{tag}" if tag else name)
        if reference.digest:
            raise InvalidArgument("cannot push a digest reference")
        tags = [reference.familiar] if tag else self._tags_of(reference.familiar_name)
        if not tags:
            raise NoSuchImage(name)
        for each in tags:
            self._images.get(each)
        auth = RegistryAuth.decode(request.headers.get("X-Registry-Auth", ""))
        stream = JSONStream(request)
        await stream.send({"status": f"The push refers to repository [{reference.name}]"})
        for each in tags:
            try:
                digest = await self._images.push(each, auth)
            except Unauthorized as error:
                await stream.fail(Forbidden(str(error)), error_line(error))
                break
            except (ShoalError, OSError) as error:
                await stream.fail(error, error_line(error))
                break
            await stream.send({"status": f"{each.rpartition(':')[2]}: digest: {digest}"})
            pushed: dict[str, Any] = {"Tag": each.rpartition(":")[2], "Digest": digest, "Size": 0}
            await stream.send({"progressDetail": {}, "aux": pushed})
        return await stream.finish()


async def import_image(engine: Engine, request: web.Request) -> web.StreamResponse:
    """POST /images/create?fromSrc=-: an image of the files in the body."""
    if request.query["fromSrc"] != "-":
        raise NotImplementedHere("imports from a URL are not supported: download it, and import the file")
    name, tag = request.query.get("repo", ""), request.query.get("tag", "")
    if name and tag:
        name = f"{name}:{tag}"
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    message = request.query.get("message", "")
    platform = request.query.get("platform", "").split("/")
    base = ImageConfig(
        architecture=platform[1] if len(platform) > 1 else node.architecture(),
        created=now,
        comment=message,
        history=(HistoryEntry(created=now, comment=message or "Imported from -"),),
    )
    config = apply_changes(base, request.query.getall("changes", []))

    async def body() -> AsyncIterator[bytes]:
        async for chunk in request.content.iter_chunked(_PIECE):
            yield chunk

    image = await engine.images.import_files(body(), config, name)
    stream = JSONStream(request)
    await stream.send({"status": image.id})
    return await stream.finish()
