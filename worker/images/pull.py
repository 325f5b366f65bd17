"""Fetch an image's parts from a registry into the layer store."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ShoalError
from cluster.seams import Clock, Random
from worker.images.auth import RegistryAuth
from worker.images.background import Report, SharedWork, Stopped, Threads
from worker.images.config import ConfigDocument, decode_config
from worker.images.download import download
from worker.images.endpoints import Endpoints
from worker.images.errors import InvalidImage, ManifestUnknown, RegistryError, TransportError
from worker.images.layers import Layer, LayerStore
from worker.images.manifest import (
    Descriptor,
    Document,
    Index,
    Manifest,
    Platform,
    choose,
    host_platform,
    parse_platform,
    satisfies,
)
from worker.images.progress import LayerProgress, Progress
from worker.images.reference import Reference
from worker.images.registry import ATTEMPTS, RegistryClient
from worker.images.transport import RegistryTransport
from worker.images.unpack import Limits, unpack_layer

Resolver = Callable[[str], Awaitable[Sequence[str]]]
"""Resolves a host name to addresses; an empty answer when it can't."""


@dataclass(frozen=True, slots=True)
class Found:
    """A reference looked up: the document it names, the manifest chosen from it, who to ask for the rest."""

    client: RegistryClient
    document: Document
    manifest: Manifest


class Puller:
    """Downloads at most `downloads` and unpacks at most `unpacks` layers at once, over all pulls."""

    def __init__(
        self,
        transport: RegistryTransport,
        endpoints: Endpoints,
        resolver: Resolver,
        layers: LayerStore,
        threads: Threads,
        clock: Clock,
        random: Random,
        *,
        limits: Limits,
        downloads: int = 3,
        unpacks: int = 2,
    ) -> None:
        self._transport = transport
        self._endpoints = endpoints
        self._resolver = resolver
        self._layers = layers
        self._threads = threads
        self._clock = clock
        self._random = random
        self._limits = limits
        self._downloads = asyncio.Semaphore(downloads)
        self._unpacks = asyncio.Semaphore(unpacks)
        self._shared = SharedWork()

    async def close(self) -> None:
        """Give up everything under way."""
        await self._shared.close()

    async def locate(
        self, reference: Reference, auth: RegistryAuth | None
    ) -> tuple[RegistryClient, Document]:
        """The document at a reference, from the first endpoint that has it."""
        addresses: Sequence[str] = ()
        if self._endpoints.has_networks:
            addresses = await self._resolver(reference.domain)
        endpoints = self._endpoints.lookup(reference.domain, addresses)
        failures: list[ShoalError] = []
        for endpoint in endpoints:
            last = endpoint is endpoints[-1]
            client = RegistryClient(
                self._transport,
                reference,
                endpoint,
                None if endpoint.mirror else auth,
                self._clock,
                self._random,
                attempts=ATTEMPTS if last else 1,
            )
            try:
                document = await client.manifest(reference.selector)
            except ShoalError as error:
                failures.append(error)
                if not endpoint.mirror and not isinstance(error, TransportError):
                    raise
                continue
            client.attempts = ATTEMPTS
            return client, document
        if len(failures) == 1 or not all(isinstance(failure, TransportError) for failure in failures):
            raise failures[-1]
        raise RegistryError("; ".join(dict.fromkeys(map(str, failures))))

    async def login(self, reference: Reference, auth: RegistryAuth) -> None:
        """Show credentials to the reference's registry. Raises RegistryUnauthorized, TransportError."""
        failures: list[TransportError] = []
        for endpoint in self._endpoints.lookup(reference.domain):
            if endpoint.mirror:
                continue
            client = RegistryClient(
                self._transport, reference, endpoint, auth, self._clock, self._random, attempts=1
            )
            try:
                async with client.request("GET", f"{endpoint.url}/v2/") as response:
                    if response.status == 200:
                        return
                    raise await client.failure(response, f"login to {reference.domain} failed")
            except TransportError as error:
                failures.append(error)
        raise failures[-1]

    async def find(self, reference: Reference, auth: RegistryAuth | None, platform: str | None) -> Found:
        """The manifest for a platform (this machine's unless given)."""
        client, document = await self.locate(reference, auth)
        if isinstance(document.parsed, Manifest):
            return Found(client, document, document.parsed)
        wanted = parse_platform(platform) if platform else host_platform()
        inner = (await client.manifest(choose(document.parsed, wanted).digest)).parsed
        if isinstance(inner, Index):
            raise InvalidImage(f"{reference.familiar}: an index in an index is not supported")
        return Found(client, document, inner)

    async def config(self, found: Found, platform: str | None) -> tuple[bytes, ConfigDocument]:
        """The configuration, checked to be for the platform and to fit the manifest."""
        content = await found.client.config(found.manifest.config)
        document = decode_config(content)
        check_platform(found.client.reference, document, platform)
        if len(document.rootfs.diff_ids) != len(found.manifest.layers):
            raise InvalidImage("image manifest and configuration disagree on the number of layers")
        return content, document

    async def layers(self, found: Found, document: ConfigDocument, progress: Progress) -> None:
        """Bring all layers here; those that are here already are not fetched again."""
        wanted = dict(zip(document.rootfs.diff_ids, found.manifest.layers, strict=True))
        try:
            async with asyncio.TaskGroup() as group:
                for diff_id, descriptor in wanted.items():
                    told = LayerProgress(descriptor.digest.partition(":")[2][:12], progress, self._clock)
                    if self._layers.get(diff_id) is not None:
                        told("Already exists")
                        continue
                    told("Pulling fs layer")
                    group.create_task(self._layer(found.client, descriptor, diff_id, told))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _layer(
        self, client: RegistryClient, descriptor: Descriptor, diff_id: str, report: LayerProgress
    ) -> None:
        await self._shared.do(
            f"{diff_id} {descriptor.digest}",
            lambda shared: self._fetch(client, descriptor, diff_id, shared),
            report,
        )

    async def _fetch(
        self, client: RegistryClient, descriptor: Descriptor, diff_id: str, report: Report
    ) -> None:
        staging = self._layers.stage()
        try:
            async with self._downloads:
                await download(client, descriptor, staging / "blob", self._threads, report)
            report("Download complete", 0, 0)
            async with self._unpacks:
                await self._unpack(staging, descriptor, diff_id, report)
            report("Pull complete", 0, 0)
        finally:
            await self._threads.run(lambda: self._layers.discard(staging))

    async def _unpack(self, staging: Path, descriptor: Descriptor, diff_id: str, report: Report) -> None:
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        told = -1

        def progress(position: int) -> None:
            nonlocal told
            if stop.is_set():
                raise Stopped
            if position != told:
                told = position
                loop.call_soon_threadsafe(report, "Extracting", position, descriptor.size)

        def work() -> None:
            with (staging / "blob").open("rb") as source:
                unpacked = unpack_layer(
                    source, staging / "d", expected=diff_id, limits=self._limits, progress=progress
                )
            layer = Layer(diff_id, unpacked.tar_bytes, unpacked.size, descriptor.digest, descriptor.size)
            self._layers.commit(staging, layer)

        await self._threads.run(work, stop)


def check_platform(reference: Reference, document: ConfigDocument, platform: str | None) -> None:
    """Refuse an image for another operating system, or for another platform than was asked for."""
    actual = Platform(architecture=document.architecture, os=document.os, variant=document.variant)
    wanted = parse_platform(platform) if platform else None
    if wanted is not None and not satisfies(wanted, actual):
        raise ManifestUnknown(
            f"image with reference {reference.familiar} was found but its platform ({actual}) does not match "
            f"the specified platform ({wanted})"
        )
    if document.os != "linux":
        raise ManifestUnknown(f"image {reference.familiar} is for {actual}; this machine runs linux")
