"""`docker load`: bring an archive's layers into the layer store."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

import zstandard

from cluster.seams import Clock
from worker.images.archive import Archive, ArchivedImage, inflate
from worker.images.background import Report, Stopped, Threads
from worker.images.digest import short
from worker.images.errors import InvalidImage
from worker.images.layers import Layer, LayerStore
from worker.images.progress import LayerProgress, Progress
from worker.images.unpack import Limits, unpack_layer

_SPOOL = 1 << 20
_LEVEL = 1


class Loader:
    """Spools archives below the layer store, and unpacks what they hold."""

    def __init__(self, layers: LayerStore, threads: Threads, clock: Clock, limits: Limits) -> None:
        self._layers = layers
        self._threads = threads
        self._clock = clock
        self._limits = limits

    async def spool(self, stream: AsyncIterator[bytes], staging: Path) -> Path:
        """Write an archive to a file, uncompressed; memory stays bounded."""
        packed, plain = staging / "archive", staging / "archive.tar"
        pending, size = bytearray(), 0
        with packed.open("wb") as file:
            async for chunk in stream:
                pending += chunk
                size += len(chunk)
                if size > self._limits.tar_bytes:
                    raise InvalidImage("image archive is too large")
                if len(pending) >= _SPOOL:
                    full, pending = bytes(pending), bytearray()
                    await self._threads.run(lambda content=full: file.write(content))  # type: ignore[misc]
            await self._threads.run(lambda: file.write(bytes(pending)))
        await self._threads.run(lambda: inflate(packed, plain, self._limits.tar_bytes))
        return plain

    async def open(self, file: IO[bytes]) -> tuple[Archive, list[ArchivedImage]]:
        """Read what a spooled archive holds."""

        def read() -> tuple[Archive, list[ArchivedImage]]:
            archive = Archive(file, self._limits.tar_bytes)
            return archive, archive.images()

        return await self._threads.run(read)

    async def layers(self, archive: Archive, image: ArchivedImage, progress: Progress) -> None:
        """Unpack the layers of an image that are not here yet."""
        for diff_id, name in zip(image.document.rootfs.diff_ids, image.layers, strict=True):
            if self._layers.get(diff_id) is None:
                await self._layer(
                    archive, name, diff_id, LayerProgress(short(diff_id), progress, self._clock)
                )

    async def _layer(self, archive: Archive, name: str, diff_id: str, report: Report) -> None:
        staging = self._layers.stage()
        loop = asyncio.get_running_loop()
        stop = threading.Event()

        def work() -> None:
            total = archive.size(name)

            def progress(position: int) -> None:
                if stop.is_set():
                    raise Stopped
                loop.call_soon_threadsafe(report, "Loading layer", position, total)

            with archive.open(name) as source:
                unpacked = unpack_layer(
                    source, staging / "d", expected=diff_id, limits=self._limits, progress=progress
                )
                digest, size = _keep(source, staging / "blob")
            self._layers.commit(staging, Layer(diff_id, unpacked.tar_bytes, unpacked.size, digest, size))

        try:
            await self._threads.run(work, stop)
        finally:
            await self._threads.run(lambda: self._layers.discard(staging))


def _keep(source: IO[bytes], target: Path) -> tuple[str, int]:
    """Keep a layer compressed: as it is when it is so already, else with zstd. Gives digest and size."""
    source.seek(0)
    plain = source.read(4)[:2] not in (b"\x1f\x8b", b"\x28\xb5")
    source.seek(0)
    with target.open("wb+") as file:
        if plain:
            zstandard.ZstdCompressor(level=_LEVEL).copy_stream(source, file)
        else:
            while chunk := source.read(_SPOOL):
                file.write(chunk)
        size = file.tell()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"sha256:{digest}", size
