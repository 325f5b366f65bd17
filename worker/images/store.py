"""The images of one node: pull, load, look up, tag, remove.

One asyncio loop owns a store; its methods are not thread-safe. What is on disk (below `root`):

    images.json   names and layers of every image (catalog.py), written last
    configs/      the configurations, by digest
    l/, tmp/      the layers (layers.py)
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from cluster.errors import InvalidArgument, ShoalError
from cluster.seams import Clock, Random, system_random
from worker.images.auth import RegistryAuth
from worker.images.background import Threads
from worker.images.catalog import Catalog, ImageRecord
from worker.images.config import ConfigDocument, decode_config, image_config
from worker.images.digest import digest_of, hex_of
from worker.images.endpoints import Endpoints, host_of
from worker.images.errors import InvalidImage, NoSuchImage
from worker.images.layers import LayerStore, write_durably
from worker.images.layout import LaidOut
from worker.images.load import Loader
from worker.images.manifest import Descriptor, Index, Platform, platforms
from worker.images.model import Image, ImageUser, Removal, ResolvedDescriptor
from worker.images.progress import Progress, ignore
from worker.images.pull import Puller, Resolver, check_platform
from worker.images.query import select
from worker.images.reference import Reference, familiar
from worker.images.registry import verify
from worker.images.removal import RemovalPlan, plan_everything, plan_removal
from worker.images.save import write_images
from worker.images.transfers import Notice, Transfers
from worker.images.transport import RegistryTransport
from worker.images.unpack import Limits

_log = logging.getLogger("shoal.images")
_THREADS = 4


async def system_resolver(domain: str) -> Sequence[str]:
    """The addresses of a registry's host by the system's resolver; none when it has none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host_of(domain).strip("[]"), None)
    except OSError:
        return ()
    return [str(address[0]) for *_, address in found]


def _nothing() -> None:
    pass


def _untold(action: str, image: str, attributes: Mapping[str, str]) -> None:
    pass


class ImageStore(Transfers):
    """Everything below `root` belongs to one open store."""

    def __init__(
        self,
        root: Path,
        *,
        transport: RegistryTransport,
        clock: Clock,
        random: Random | None = None,
        insecure_registries: Iterable[str] = (),
        mirrors: Iterable[str] = (),
        resolver: Resolver = system_resolver,
        limits: Limits | None = None,
    ) -> None:
        """Raises InvalidArgument for registry settings that can't be meant."""
        bounds = limits or Limits()
        self.root = root
        self._transport = transport
        self._clock = clock
        self._threads = Threads(_THREADS)
        self._layers = LayerStore(root)
        self._catalog = Catalog(root / "images.json")
        self._documents: dict[str, ConfigDocument] = {}
        self._made: dict[str, tuple[ImageRecord, Image]] = {}
        self._leases: Counter[str] = Counter()
        self._changing = asyncio.Lock()
        self._insecure = tuple(insecure_registries)
        self._puller = Puller(
            transport,
            Endpoints(self._insecure, mirrors),
            resolver,
            self._layers,
            self._threads,
            clock,
            random or system_random(),
            limits=bounds,
        )
        self._loader = Loader(self._layers, self._threads, clock, bounds)
        self.notice: Notice = _untold

    async def open(self) -> None:
        """Clean up what a crash left, and read what is there. Raises ShoalError when the catalogue is bad."""

        def read() -> None:
            self._configs.mkdir(parents=True, exist_ok=True, mode=0o711)
            self._layers.open()
            self._catalog.load()
            for record in self._catalog.all():
                self._check(record)

        await self._threads.run(read)
        await self._sweep()
        await self._threads.run(self._sweep_configs)

    async def close(self) -> None:
        """Give up what is under way and let go of the network and the threads."""
        await self._puller.close()
        await self._transport.close()
        self._threads.close()

    # Lookups

    def get(self, ref_or_id: str) -> Image:
        """By name[:tag], name@digest, id or unique beginning of an id; raises NoSuchImage."""
        return self._image(self._catalog.find(ref_or_id))

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> Sequence[Image]:
        """Images, newest first, that pass Docker's filters (query.py); raises InvalidArgument for others."""
        images = [self._image(record) for record in self._catalog.all()]
        return select(images, filters or {}, self.get, self._clock.now())

    def document(self, image_id: str) -> ConfigDocument:
        """The configuration of an image that is here."""
        return self._documents[image_id]

    def layer_sizes(self, image: Image) -> Sequence[int]:
        """Bytes of the files of each of an image's layers, lowest first."""
        return [layer.size for diff_id in image.diff_ids if (layer := self._layers.get(diff_id))]

    def shared_size(self, image: Image) -> int:
        """Bytes of the layers that other images have too."""
        users = Counter(diff_id for record in self._catalog.all() for diff_id in {*record.diff_ids})
        return sum(
            layer.size
            for diff_id in {*image.diff_ids}
            if users[diff_id] > 1 and (layer := self._layers.get(diff_id)) is not None
        )

    def disk_usage(self) -> int:
        """Bytes of the files of all layers, each counted once."""
        return sum(layer.size for layer in self._layers.all())

    async def resolve(self, ref: str, auth: RegistryAuth | None = None) -> ResolvedDescriptor:
        """Ask the registry what a reference means at present. Raises the puller's errors."""
        reference = Reference.parse(ref)
        client, document = await self._puller.locate(reference, auth)
        if isinstance(document.parsed, Index):
            served = platforms(document.parsed)
        else:
            config = decode_config(await client.config(document.parsed.config))
            served = [Platform(config.architecture, config.os, config.variant, config.os_version)]
        descriptor = Descriptor(document.media_type, document.digest, len(document.content))
        return ResolvedDescriptor(reference.familiar, descriptor, tuple(served))

    async def login(self, server: str, auth: RegistryAuth) -> None:
        """Check credentials with a registry: host, host:port or a URL. Raises RegistryUnauthorized."""
        domain = server.removeprefix("https://").removeprefix("http://").partition("/")[0]
        if not domain or domain in ("index.docker.io", "registry-1.docker.io"):
            domain = "docker.io"
        await self._puller.login(Reference.parse(f"{domain}/library/login"), auth)

    # Changes

    async def pull(
        self,
        ref: str,
        *,
        auth: RegistryAuth | None = None,
        platform: str | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Fetch an image; whatever happens, nothing half-made stays.

        Raises ManifestUnknown, AccessDenied, RegistryUnauthorized, RegistryError (also when it can't
        be reached), DigestMismatch, InvalidImage; OSError when the disk is full.
        """
        reference, tell = Reference.parse(ref), progress or ignore
        found = await self._puller.find(reference, auth, platform)
        tell({"status": f"Pulling from {reference.familiar_name}", "id": reference.selector})
        image_id = found.manifest.config.digest
        known = self._catalog.get(image_id)
        digest = found.document.digest
        names = [reference.with_digest(digest), *([] if reference.digest else [reference])]
        current = known is not None and {str(name) for name in names} <= {*known.tags, *known.digests}
        if known is None:
            content, document = await self._puller.config(found, platform)
            async with self._lease(document.rootfs.diff_ids):
                await self._puller.layers(found, document, tell)
                await self._add(content, document, names)
        else:
            check_platform(reference, self._documents[image_id], platform)
            if not current:
                await self._change(lambda: self._name(image_id, names))
        tell({"status": f"Digest: {digest}"})
        verdict = "Image is up to date for" if current else "Downloaded newer image for"
        tell({"status": f"Status: {verdict} {reference.familiar}"})
        image = self.get(image_id)
        self.notice("pull", reference.familiar, {**image.config.labels, "name": reference.familiar_name})
        return image

    async def load(self, stream: AsyncIterator[bytes], progress: Progress | None = None) -> Sequence[Image]:
        """Read an archive made by `docker save`, or an OCI layout's tar; plain, gzip or zstd.

        Raises InvalidImage, DigestMismatch, OSError. Images before a bad one stay.
        """
        tell = progress or ignore
        staging = self._layers.stage()
        try:
            spooled = await self._loader.spool(stream, staging)
            with spooled.open("rb") as file:
                archive, archived = await self._loader.open(file)
                loaded: list[Image] = []
                for item in archived:
                    async with self._lease(item.document.rootfs.diff_ids):
                        await self._loader.layers(archive, item, tell)
                        await self._add(item.config, item.document, item.references)
                    loaded.append(self.get(digest_of(item.config)))
                    self.notice("load", loaded[-1].id, {**loaded[-1].config.labels, "name": loaded[-1].id})
                    for name in item.references:
                        tell({"stream": f"Loaded image: {name.familiar}\n"})
                    if not item.references:
                        tell({"stream": f"Loaded image ID: {loaded[-1].id}\n"})
                return loaded
        finally:
            await self._threads.run(lambda: self._layers.discard(staging))

    async def save(self, refs: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """The archive that `docker save` writes, for `load` here or elsewhere. Raises NoSuchImage at first.

        An image named by id, or by a digest, is saved without names.
        """
        laid_out = [self._laid_out(self._catalog.find(ref), ref) for ref in refs]
        async with self._lease([diff_id for image in laid_out for diff_id, _ in image.layers]):
            pieces = write_images(self._layers, laid_out)
            while (piece := await self._threads.run(lambda: next(pieces, None))) is not None:
                yield piece

    async def tag(self, source: str, target: str) -> None:
        """Give an image one more name. Raises NoSuchImage, InvalidArgument."""
        record, reference = self._catalog.find(source), Reference.parse(target)
        if reference.digest:
            raise InvalidArgument(f"{target!r}: a tag can't have a digest")
        await self._change(lambda: self._name(record.id, [reference]))
        self.notice("tag", record.id, {**self._labels(record.id), "name": reference.familiar})

    async def remove(
        self, ref_or_id: str, *, users: Iterable[ImageUser] = (), force: bool = False
    ) -> Removal:
        """Untag, and delete when no name is left. Raises NoSuchImage, and Conflict when containers (`users`)
        or other names stand against it."""
        plan = plan_removal(self._catalog, ref_or_id, list(users), force)
        return await self._remove(plan)

    async def prune(
        self,
        *,
        users: Iterable[ImageUser] = (),
        dangling: bool = True,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> Removal:
        """Delete images that no container uses: those without a name, or all with `dangling=False`."""
        used = {user.image_id for user in users}
        plans = [
            plan_everything(record)
            for image in self.list(filters)
            if image.id not in used and (image.dangling or not dangling)
            if (record := self._catalog.get(image.id)) is not None
        ]
        removals = [await self._remove(plan) for plan in plans]
        steps = tuple(step for removal in removals for step in removal.steps)
        return Removal(steps, sum(removal.reclaimed for removal in removals))

    # The parts

    @property
    def _configs(self) -> Path:
        return self.root / "configs"

    def _config_path(self, image_id: str) -> Path:
        return self._configs / f"{hex_of(image_id)}.json"

    def config_bytes(self, image_id: str) -> bytes:
        """The exact bytes of an image's configuration; blocks."""
        return self._config_path(image_id).read_bytes()

    def _labels(self, image_id: str) -> dict[str, str]:
        document = self._documents.get(image_id)
        return image_config(document).labels if document is not None else {}

    def _image(self, record: ImageRecord) -> Image:
        """The image of a record, made once: every task that starts asks for one."""
        made = self._made.get(record.id)
        if made is None or made[0] is not record:
            made = self._made[record.id] = (record, self._make(record))
        return made[1]

    def _make(self, record: ImageRecord) -> Image:
        # A layer may occur twice (empty ones do); overlayfs refuses that, and only the upper one counts.
        diff_ids = tuple(reversed(dict.fromkeys(reversed(record.diff_ids))))
        sizes = [layer.size for diff_id in diff_ids if (layer := self._layers.get(diff_id))]
        return Image(
            id=record.id,
            repo_tags=tuple(familiar(tag) for tag in record.tags),
            repo_digests=tuple(familiar(digest) for digest in record.digests),
            config=image_config(self._documents[record.id]),
            size=sum(sizes),
            diff_ids=tuple(record.diff_ids),
            layers=tuple(self._layers.path(diff_id) for diff_id in diff_ids),
            layer_names=tuple(self._layers.relative(diff_id) for diff_id in diff_ids),
            tagged_at=record.tagged_at,
            parent=record.parent,
        )

    def _laid_out(self, record: ImageRecord, ref: str) -> LaidOut:
        names = () if self._catalog.is_id(ref) else (Reference.parse(ref),)
        sizes = {layer.diff_id: layer.tar_bytes for layer in self._layers.all()}
        return LaidOut(
            self.config_bytes(record.id),
            tuple(name for name in names if not name.digest),
            tuple((diff_id, sizes[diff_id]) for diff_id in record.diff_ids),
        )

    def _check(self, record: ImageRecord) -> None:
        """Read an image's configuration; an image that is not whole is forgotten, loudly. Blocks."""
        try:
            content = self.config_bytes(record.id)
            verify("stored image configuration", record.id, content)
            self._documents[record.id] = decode_config(content)
            missing = [diff_id for diff_id in record.diff_ids if self._layers.get(diff_id) is None]
            if missing:
                raise InvalidImage(f"layers are missing: {', '.join(missing)}")
        except (OSError, ShoalError) as error:
            _log.error("forgetting a damaged image", extra={"image": record.id, "error": str(error)})
            self._documents.pop(record.id, None)
            self._catalog.drop(record.id)

    async def _add(self, config: bytes, document: ConfigDocument, names: Sequence[Reference]) -> None:
        """Record an image whose layers are all here."""
        image_id = digest_of(config)

        def change() -> None:
            self._documents[image_id] = document
            self._catalog.put(image_id, document.rootfs.diff_ids)
            self._name(image_id, names)

        await self._change(change, first=lambda: write_durably(self._config_path(image_id), config))

    def _name(self, image_id: str, names: Sequence[Reference]) -> None:
        if self._catalog.get(image_id) is None:
            raise NoSuchImage(image_id)
        for name in names:
            self._catalog.name(image_id, name, self._clock.now())

    async def _change(
        self,
        change: Callable[[], None],
        *,
        first: Callable[[], None] = _nothing,
        then: Callable[[], None] = _nothing,
    ) -> None:
        """Change the catalogue and make that durable, or do neither; `first` and `then` touch other files
        before and after, in a thread."""
        async with self._changing:
            records, documents = self._catalog.copy(), dict(self._documents)
            try:
                await self._threads.run(first)
                change()
                snapshot = self._catalog.snapshot()
                await self._threads.run(lambda: self._catalog.save(snapshot))
                await self._threads.run(then)
            except OSError:
                self._catalog.restore(records)
                self._documents = documents
                raise

    async def _remove(self, plan: RemovalPlan) -> Removal:
        def change() -> None:
            if self._catalog.get(plan.image_id) is None:
                raise NoSuchImage(plan.image_id)
            for name in plan.names:
                self._catalog.unname(plan.image_id, name)
            if plan.delete:
                self._catalog.drop(plan.image_id)
                self._documents.pop(plan.image_id, None)

        before = {layer.diff_id: layer.size for layer in self._layers.all()}
        steps = [("Untagged", familiar(name)) for name in plan.names]
        told = {**self._labels(plan.image_id), "name": plan.image_id}
        path = self._config_path(plan.image_id)
        if plan.delete:
            await self._change(change, then=lambda: path.unlink(missing_ok=True))
        else:
            await self._change(change)
        for action in (*("untag" for _ in plan.names), *(["delete"] if plan.delete else [])):
            self.notice(action, plan.image_id, told)
        if not plan.delete:
            return Removal(tuple(steps))
        gone = await self._sweep()
        steps += [("Deleted", plan.image_id), *(("Deleted", diff_id) for diff_id in reversed(gone))]
        return Removal(tuple(steps), sum(before.get(diff_id, 0) for diff_id in gone))

    @asynccontextmanager
    async def _lease(self, diff_ids: Sequence[str]) -> AsyncIterator[None]:
        """Keep layers, here or coming, from being swept until the image that needs them is recorded."""
        held = set(diff_ids)
        self._leases.update(held)
        try:
            yield
        finally:
            self._leases.subtract(held)
            self._leases += Counter()
            await self._sweep()

    async def _sweep(self) -> Sequence[str]:
        """Delete the layers that nothing needs; gives their diff ids."""
        needed = self._catalog.layers() | set(self._leases)
        unneeded = [layer.diff_id for layer in self._layers.all() if layer.diff_id not in needed]
        doomed = [self._layers.detach(diff_id) for diff_id in unneeded]
        for path in doomed:
            await self._threads.run(partial(self._layers.discard, path))
        return unneeded

    def _sweep_configs(self) -> None:
        """Delete configurations whose image was never recorded, or is forgotten; blocks."""
        known = {self._config_path(record.id) for record in self._catalog.all()}
        for path in list(self._configs.iterdir()):
            if path not in known:
                path.unlink()
