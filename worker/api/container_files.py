"""Files of containers: archive (`docker cp`), changes (`docker diff`), export."""

import asyncio
import base64
import io
import json
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from aiohttp import web

from cluster.engine_json import rfc3339
from cluster.errors import InvalidArgument
from worker.api.http import add_route, answer, flag
from worker.containers import archive
from worker.containers.changes import changes
from worker.containers.containers import Containers
from worker.engine import Engine
from worker.runtime.model import ContainerConfig
from worker.runtime.rootfs import Root
from worker.runtime.users import resolve_user

_CHUNK = 256 << 10
_GZIP = b"\x1f\x8b"


def routes(app: web.Application, engine: Engine, containers: Containers) -> None:
    """Add the handlers."""
    handlers = _Handlers(engine, containers)
    for method, path, handler in (
        ("HEAD", "/containers/{name:.+}/archive", handlers.stat),
        ("GET", "/containers/{name:.+}/archive", handlers.get),
        ("PUT", "/containers/{name:.+}/archive", handlers.put),
        ("GET", "/containers/{name:.+}/changes", handlers.changes),
        ("GET", "/containers/{name:.+}/export", handlers.export),
    ):
        add_route(app, method, path, handler)


class _Handlers:
    def __init__(self, engine: Engine, containers: Containers) -> None:
        self._engine, self._containers = engine, containers
        self._runtime = engine.runtime

    async def stat(self, request: web.Request) -> web.Response:
        config, path = self._asked(request)
        async with self._containers.still(config.id):
            header = await asyncio.to_thread(self._stat, config.id, path)
        return web.Response(headers={"X-Docker-Container-Path-Stat": header})

    def _stat(self, id: str, path: str) -> str:
        with self._runtime.opened_root(id) as root:
            found = archive.path_stat(root, path)
        told = {
            "name": found.name,
            "size": found.size,
            "mode": found.mode,
            "mtime": rfc3339(found.mtime),
            "linkTarget": found.link,
        }
        return base64.b64encode(json.dumps(told).encode()).decode()

    async def get(self, request: web.Request) -> web.StreamResponse:
        config, path = self._asked(request)
        async with self._containers.still(config.id):
            header = await asyncio.to_thread(self._stat, config.id, path)
            self._engine.events.container("archive-path", config)

            def produce(root: Root, write: archive.Write) -> None:
                archive.write_tar(root, path, write)

            return await self._send(
                request, config.id, produce, {"X-Docker-Container-Path-Stat": header}, mounts=True
            )

    async def export(self, request: web.Request) -> web.StreamResponse:
        config, _ = self._containers.find(request.match_info["name"])
        async with self._containers.still(config.id):
            self._engine.events.container("export", config)
            return await self._send(request, config.id, archive.write_tree, {}, mounts=False)

    async def _send(
        self,
        request: web.Request,
        id: str,
        produce: Callable[[Root, archive.Write], None],
        headers: dict[str, str],
        *,
        mounts: bool,
    ) -> web.StreamResponse:
        """Stream what `produce` writes in a thread, through a pipe: a slow client slows it down."""
        read_end, write_end = os.pipe()

        def work() -> None:
            files = self._runtime.opened_root(id, mounts=mounts)
            with suppress(BrokenPipeError), open(write_end, "wb", buffering=_CHUNK) as pipe, files as root:
                produce(root, pipe.write)

        thread = ThreadPoolExecutor(1, "archive")
        working = asyncio.get_running_loop().run_in_executor(thread, work)
        response = web.StreamResponse(headers={"Content-Type": "application/x-tar", **headers})
        try:
            await response.prepare(request)
            while data := await asyncio.to_thread(os.read, read_end, _CHUNK):
                await response.write(data)
            await working
            await response.write_eof()
        finally:
            os.close(read_end)
            await asyncio.gather(working, return_exceptions=True)
            thread.shutdown()
        return response

    async def put(self, request: web.Request) -> web.Response:
        config, path = self._asked(request)
        self._writable(config, path)
        keep = flag(request, "noOverwriteDirNonDir")
        own = flag(request, "copyUIDGID")

        def work(read_end: int) -> None:
            with open(read_end, "rb", buffering=0) as pipe, self._runtime.opened_root(config.id) as root:
                owner = self._owner(root, config) if own else None
                archive.extract(root, path, _reader(pipe.read), archive.Extraction(keep, owner))

        async with self._containers.still(config.id):
            thread = ThreadPoolExecutor(1, "archive")
            read_end, write_end = os.pipe()
            working = asyncio.get_running_loop().run_in_executor(thread, work, read_end)
            try:
                await self._receive(request, write_end)
                await working
            finally:
                await asyncio.gather(working, return_exceptions=True)
                thread.shutdown()
        self._engine.events.container("extract-to-dir", config)
        return web.Response(status=200)

    @staticmethod
    async def _receive(request: web.Request, write_end: int) -> None:
        """Pass the body on. A broken pipe says that the other side has failed: it has the reason."""
        try:
            with suppress(BrokenPipeError):
                async for chunk in request.content.iter_chunked(_CHUNK):
                    view = memoryview(chunk)
                    while view:
                        view = view[await asyncio.to_thread(os.write, write_end, view) :]
        finally:
            os.close(write_end)

    @staticmethod
    def _owner(root: Root, config: ContainerConfig) -> tuple[int, int]:
        who = resolve_user(config.user, (), root.read_text("/etc/passwd"), root.read_text("/etc/group"))
        return who.uid, who.gid

    @staticmethod
    def _writable(config: ContainerConfig, path: str) -> None:
        if not config.read_only:
            return
        inside = [mount for mount in config.mounts if f"{path}/".startswith(f"{mount.target.rstrip('/')}/")]
        if not inside or all(mount.read_only for mount in inside):
            raise InvalidArgument("container rootfs is marked read-only")

    async def changes(self, request: web.Request) -> web.Response:
        config, _ = self._containers.find(request.match_info["name"])
        places = [mount.target for mount in config.mounts]
        found = await asyncio.to_thread(changes, self._runtime.upper(config.id), config.layers, places)
        return answer([{"Path": path, "Kind": kind} for path, kind in found])

    def _asked(self, request: web.Request) -> tuple[ContainerConfig, str]:
        config, _ = self._containers.find(request.match_info["name"])
        path = request.query.get("path", "")
        if not path or "\0" in path:
            raise InvalidArgument("missing or impossible path")
        return config, path if path.startswith("/") else f"/{path}"


def _reader(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """The plain tar in what comes, which may be compressed by gzip: a piece at a time, however well it is
    compressed. Raises InvalidArgument."""
    raw = read(_CHUNK)
    unpack = zlib.decompressobj(31) if raw.startswith(_GZIP) else None
    held = io.BytesIO(raw if unpack is None else b"")

    def next_piece() -> bytes:
        nonlocal raw
        if unpack is None:
            return read(_CHUNK)
        piece = b""
        while raw and not piece:
            if unpack.eof:  # what follows is read, and means nothing
                raw = read(_CHUNK)
                continue
            try:
                piece = unpack.decompress(raw, _CHUNK)
            except zlib.error as error:
                raise InvalidArgument(f"the archive can't be unpacked: {error}") from error
            raw = unpack.unconsumed_tail or read(_CHUNK)
        return piece or unpack.flush()

    def plain(size: int) -> bytes:
        nonlocal held
        data = held.read(size)
        if not data:
            held = io.BytesIO(next_piece())
            data = held.read(size)
        return data

    return plain
