"""Push an image archive to a registry (OCI distribution spec, "Pushing")."""

import asyncio
import gzip
import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import IO
from urllib.parse import quote

import msgspec

from cluster.seams import Clock, Random, system_random
from worker.images.archive import Archive, ArchivedImage
from worker.images.auth import RegistryAuth
from worker.images.config import MAX_CONFIG_BYTES
from worker.images.digest import digest_of
from worker.images.endpoints import Endpoints
from worker.images.errors import InvalidImage, RegistryError, TransportError
from worker.images.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest
from worker.images.reference import Reference
from worker.images.registry import RegistryClient
from worker.images.transport import RegistryTransport

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_COPY = 1 << 20
_MAX_ARCHIVE = 64 << 30
_GZIP_LEVEL = 4


async def push_archive(
    archive: Path,
    ref: str,
    *,
    transport: RegistryTransport,
    clock: Clock,
    random: Random | None = None,
    auth: RegistryAuth | None = None,
    insecure_registries: Iterable[str] = (),
) -> str:
    """Push the only image of an uncompressed archive (write_archive, docker save) as `ref`.

    Layers are sent gzipped; those the registry has are not sent again. Gives the manifest's digest. Raises
    RegistryError, RegistryUnauthorized, AccessDenied, InvalidImage.
    """
    reference = Reference.parse(ref)
    client = await _connect(
        reference, Endpoints(insecure_registries), transport, clock, random or system_random(), auth
    )
    with archive.open("rb") as file:
        opened = await asyncio.to_thread(Archive, file, _MAX_ARCHIVE)
        images = await asyncio.to_thread(opened.images)
        if len(images) != 1:
            raise InvalidImage(f"{archive} holds {len(images)} images; expected one")
        layers = [await _push_layer(client, opened, name) for name in images[0].layers]
    return await _push_manifest(client, images[0], layers)


async def _connect(
    reference: Reference,
    endpoints: Endpoints,
    transport: RegistryTransport,
    clock: Clock,
    random: Random,
    auth: RegistryAuth | None,
) -> RegistryClient:
    """A client of the first endpoint that answers, authorised to push."""
    failure: TransportError | None = None
    for endpoint in endpoints.lookup(reference.domain):
        client = RegistryClient(transport, reference, endpoint, auth, clock, random, actions="pull,push")
        try:
            await client.authorize()
        except TransportError as error:
            failure = error
            continue
        return client
    raise failure or RegistryError(f"{reference.domain}: no endpoint")


async def _push_layer(client: RegistryClient, archive: Archive, name: str) -> Descriptor:
    with tempfile.TemporaryFile() as packed:

        def pack() -> Descriptor:
            with (
                archive.open(name) as layer,
                gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, compresslevel=_GZIP_LEVEL) as out,
            ):
                while chunk := layer.read(_COPY):
                    out.write(chunk)
            size = packed.tell()
            packed.seek(0)
            digest = hashlib.file_digest(packed, "sha256").hexdigest()
            return Descriptor(_LAYER, f"sha256:{digest}", size)

        descriptor = await asyncio.to_thread(pack)
        await _push_blob(client, descriptor, packed)
    return descriptor


async def _push_blob(client: RegistryClient, descriptor: Descriptor, content: IO[bytes] | bytes) -> None:
    async def attempt() -> None:
        async with client.request("HEAD", f"blobs/{descriptor.digest}") as response:
            if response.status == 200:
                return
        async with client.request("POST", "blobs/uploads/") as response:
            if response.status != 202:
                raise await client.failure(response, "can't begin an upload")
            location = response.headers.get("Location", "")
        if not location:
            raise RegistryError(f"{client.reference.domain}: upload has no location")
        url = f"{location}{'&' if '?' in location else '?'}digest={quote(descriptor.digest)}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)}
        body = content if isinstance(content, bytes) else _stream(content)
        async with client.request("PUT", url, headers, body) as response:
            if response.status != 201:
                raise await client.failure(response, "upload was refused")

    await client.retrying(attempt)


async def _push_manifest(client: RegistryClient, image: ArchivedImage, layers: list[Descriptor]) -> str:
    config = Descriptor(OCI_CONFIG, digest_of(image.config), len(image.config))
    if config.size > MAX_CONFIG_BYTES:
        raise InvalidImage(f"image configuration is larger than {MAX_CONFIG_BYTES} bytes")
    await _push_blob(client, config, image.config)
    # Docker and OCI want these two always, which the structs' defaults would leave out.
    parts = msgspec.to_builtins(Manifest(config=config, layers=layers))
    content = msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, **parts})

    async def attempt() -> None:
        headers = {"Content-Type": OCI_MANIFEST}
        async with client.request(
            "PUT", f"manifests/{client.reference.selector}", headers, content
        ) as response:
            if response.status != 201:
                raise await client.failure(response, "manifest was refused")

    await client.retrying(attempt)
    return digest_of(content)


async def _stream(file: IO[bytes]) -> AsyncIterator[bytes]:
    await asyncio.to_thread(file.seek, 0)
    while chunk := await asyncio.to_thread(file.read, _COPY):
        yield chunk
