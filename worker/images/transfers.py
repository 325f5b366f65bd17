"""Images that are made of files here, and images that are sent away."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from cluster.errors import InvalidArgument
from cluster.seams import Clock
from worker.images.auth import RegistryAuth
from worker.images.background import Threads
from worker.images.catalog import Catalog
from worker.images.config import ImageConfig
from worker.images.importing import archive_of_files
from worker.images.layers import LayerStore
from worker.images.load import Loader
from worker.images.model import Image
from worker.images.progress import Progress
from worker.images.push import push_archive
from worker.images.reference import Reference
from worker.images.transport import RegistryTransport

Notice = Callable[[str, str, Mapping[str, str]], None]
"""Told what was done to images: the action in Docker's words, the image, attributes."""


class Transfers:
    """The base of ImageStore, which makes what is declared here."""

    notice: Notice
    _layers: LayerStore
    _threads: Threads
    _loader: Loader
    _catalog: Catalog
    _transport: RegistryTransport
    _clock: Clock
    _insecure: tuple[str, ...]

    def get(self, ref_or_id: str) -> Image:
        """An image that is here."""
        raise NotImplementedError

    async def load(self, stream: AsyncIterator[bytes], progress: Progress | None = None) -> Sequence[Image]:
        """Read an archive."""
        raise NotImplementedError

    def save(self, refs: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """Write an archive."""
        raise NotImplementedError

    def _lease(self, diff_ids: Sequence[str]) -> AbstractAsyncContextManager[None]:
        raise NotImplementedError

    async def _change(self, change: Callable[[], None]) -> None:
        raise NotImplementedError

    def _name(self, image_id: str, names: Sequence[Reference]) -> None:
        raise NotImplementedError

    async def import_files(
        self,
        stream: AsyncIterator[bytes],
        config: ImageConfig,
        name: str = "",
        below: Image | None = None,
    ) -> Image:
        """Make an image of the files in a tar, as one layer, on those of another image if one is given.

        Raises InvalidArgument, InvalidImage, OSError.
        """
        reference = Reference.parse(name) if name else None
        if reference is not None and reference.digest:
            raise InvalidArgument("cannot import digest reference")
        staging = self._layers.stage()
        lower = below.diff_ids if below is not None else ()
        try:
            archive = archive_of_files(stream, staging, self._loader, self._threads, config, reference, lower)
            async with self._lease(lower):
                (image,) = await self.load(archive)
        finally:
            await self._threads.run(lambda: self._layers.discard(staging))
        if below is None:
            self.notice("import", image.id, {"name": name or image.id})
            return image
        await self._change(lambda: self._catalog.made_of(image.id, below.id))
        return self.get(image.id)

    async def push(self, ref: str, auth: RegistryAuth | None = None) -> str:
        """Send a named image to its registry; the manifest's digest. Raises NoSuchImage, RegistryError, …"""
        reference = Reference.parse(ref)
        staging = self._layers.stage()
        try:
            path = staging / "archive"
            with path.open("wb") as file:
                async for piece in self.save([ref]):
                    await self._threads.run(lambda content=piece: file.write(content))  # type: ignore[misc]
            digest = await push_archive(
                path,
                ref,
                transport=self._transport,
                clock=self._clock,
                auth=auth,
                insecure_registries=self._insecure,
            )
        finally:
            await self._threads.run(lambda: self._layers.discard(staging))
        image_id = self._catalog.find(ref).id
        await self._change(lambda: self._name(image_id, [reference.with_digest(digest)]))
        self.notice("push", reference.familiar, {"name": reference.familiar_name})
        return digest
