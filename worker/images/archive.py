"""Read image archives: `docker save` tars (docker-archive) and OCI layouts, plain or compressed.

The archive lies spooled on disk, so that its members can be read in any order in little memory.
"""

import io
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from cluster.errors import InvalidArgument
from worker.images.config import MAX_CONFIG_BYTES, MAX_LAYERS, ConfigDocument, decode_config
from worker.images.decompress import decompressed
from worker.images.digest import hex_of
from worker.images.errors import InvalidImage
from worker.images.manifest import (
    MAX_MANIFEST_BYTES,
    Descriptor,
    Index,
    Manifest,
    Platform,
    choose,
    decode_document,
    host_platform,
)
from worker.images.reference import Reference
from worker.images.registry import verify
from worker.images.tarstream import Kind, TarReader

_MAX_MEMBERS = 100_000
_MAX_LINKS = 16
_MAX_IMAGES = 1000
_MAX_CONFIGS_BYTES = 64 << 20
"""Of all images together: many may share one file."""
_COPY = 1 << 20
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class _DockerImage(msgspec.Struct):
    config: str = msgspec.field(name="Config")
    layers: list[str] = msgspec.field(name="Layers")
    repo_tags: list[str] | None = msgspec.field(name="RepoTags", default=None)


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image of an archive: its configuration, its names, and where its layers are, lowest first."""

    config: bytes
    document: ConfigDocument
    references: tuple[Reference, ...]
    layers: tuple[str, ...]


class Archive:
    """A spooled, uncompressed archive. Use from one thread at a time. Raises InvalidImage for bad content."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._file = file
        self._members: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        file.seek(0)
        for entry in TarReader(file.read):
            name = _normal(entry.name)
            if file.tell() > max_bytes or len(self._members) + len(self._links) > _MAX_MEMBERS:
                raise InvalidImage("image archive is too large")
            if entry.kind is Kind.FILE:
                self._members[name] = (file.tell(), entry.size)
            elif entry.kind is Kind.SYMLINK:
                self._links[name] = _normal(posixpath.join(posixpath.dirname(name), entry.link))
            elif entry.kind is Kind.HARD_LINK:
                self._links[name] = _normal(entry.link)

    def images(self) -> list[ArchivedImage]:
        """What the archive holds."""
        if "manifest.json" in self._members:
            return _bounded(self._docker_images())
        if "index.json" in self._members:
            return _bounded(self._oci_images())
        raise InvalidImage(
            "not an image archive: it has neither manifest.json (docker save) nor index.json (OCI layout)"
        )

    def open(self, name: str) -> io.BufferedReader:
        """A member's content, seekable."""
        name = _normal(name)
        for _ in range(_MAX_LINKS):
            if name in self._members:
                offset, size = self._members[name]
                return io.BufferedReader(_Window(self._file, offset, size), _COPY)
            if name not in self._links:
                break
            name = self._links[name]
        raise InvalidImage(f"image archive has no {name[:200]!r}")

    def size(self, name: str) -> int:
        """A member's size in bytes."""
        with self.open(name) as member:
            return member.seek(0, io.SEEK_END)

    def _read(self, name: str, limit: int) -> bytes:
        with self.open(name) as member:
            content = member.read(limit + 1)
        if len(content) > limit:
            raise InvalidImage(f"{name[:200]!r} in the image archive is larger than {limit} bytes")
        return content

    def _docker_images(self) -> Iterator[ArchivedImage]:
        try:
            listed = msgspec.json.decode(
                self._read("manifest.json", MAX_MANIFEST_BYTES), type=list[_DockerImage]
            )
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidImage(f"manifest.json of the image archive can't be read: {error}") from error
        for item in listed:
            config = self._read(item.config, MAX_CONFIG_BYTES)
            names = tuple(Reference.parse(tag) for tag in item.repo_tags or ())
            yield _archived(config, names, item.layers)

    def _oci_images(self) -> Iterator[ArchivedImage]:
        document = decode_document(self._read("index.json", MAX_MANIFEST_BYTES)).parsed
        if not isinstance(document, Index):
            raise InvalidImage("index.json of the image archive is not an index")
        for descriptor in document.manifests:
            if descriptor.platform is None or descriptor.platform.os != "unknown":
                yield self._oci_image(descriptor)

    def _oci_image(self, descriptor: Descriptor) -> ArchivedImage:
        manifest = self._document(descriptor)
        if isinstance(manifest, Index):
            manifest = self._document(self._choose(manifest))
        if isinstance(manifest, Index):
            raise InvalidImage("image archive nests indexes too deep")
        config = self._blob(manifest.config, MAX_CONFIG_BYTES)
        return _archived(config, _names(descriptor), [_blob_name(layer) for layer in manifest.layers])

    @staticmethod
    def _choose(index: Index) -> Descriptor:
        known = [entry for entry in index.manifests if entry.platform is None or entry.platform == Platform()]
        return known[0] if len(index.manifests) == 1 and known else choose(index, host_platform())

    def _document(self, descriptor: Descriptor) -> Manifest | Index:
        return decode_document(self._blob(descriptor, MAX_MANIFEST_BYTES), descriptor.media_type).parsed

    def _blob(self, descriptor: Descriptor, limit: int) -> bytes:
        content = self._read(_blob_name(descriptor), limit)
        verify("image archive", descriptor.digest, content)
        return content


class _Window(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file = file
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        self._file.seek(self._start + self._position)
        content = self._file.read(wanted)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position


def _bounded(images: Iterator[ArchivedImage]) -> list[ArchivedImage]:
    found: list[ArchivedImage] = []
    held = 0
    for image in images:
        found.append(image)
        held += len(image.config)
        if len(found) > _MAX_IMAGES or held > _MAX_CONFIGS_BYTES:
            raise InvalidImage("image archive holds too many images")
    return found


def inflate(source: Path, target: Path, max_bytes: int) -> None:
    """Write the uncompressed content of `source` to `target`; a plain one is moved. Blocks."""
    with source.open("rb") as packed:
        read = decompressed(packed)
        if read == packed.read:
            source.replace(target)
            return
        written = 0
        with target.open("wb") as plain:
            while chunk := read(_COPY):
                written += len(chunk)
                if written > max_bytes:
                    raise InvalidImage("image archive is too large")
                plain.write(chunk)
    source.unlink()


def _archived(config: bytes, names: tuple[Reference, ...], layers: list[str]) -> ArchivedImage:
    document = decode_config(config)
    if len(layers) != len(document.rootfs.diff_ids) or len(layers) > MAX_LAYERS:
        raise InvalidImage("image archive and image configuration disagree on the number of layers")
    return ArchivedImage(config, document, names, tuple(layers))


def _names(descriptor: Descriptor) -> tuple[Reference, ...]:
    """The name an OCI layout gives an image; a bare tag is none."""
    for key in _NAMES:
        text = (descriptor.annotations or {}).get(key, "")
        if "/" in text or ":" in text:
            try:
                return (Reference.parse(text),)
            except InvalidArgument:
                continue
    return ()


def _blob_name(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.partition(':')[0]}/{hex_of(descriptor.digest)}"


def _normal(name: str) -> str:
    normal = posixpath.normpath(name.lstrip("/") or ".")
    if normal.startswith("../") or normal == "..":
        raise InvalidImage(f"path {name[:200]!r} leaves the image archive")
    return normal
