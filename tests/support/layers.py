"""Layers and images made in memory, for tests of what reads them."""

import gzip
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import zstandard

from worker.images.config import ImageConfig, encode_config
from worker.images.digest import digest_of
from worker.images.manifest import OCI_CONFIG, OCI_MANIFEST


def member(name: str, content: bytes | None = None, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A tar member: a file with content, else what `type` says; other TarInfo fields as given."""
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    info.mtime = 1_700_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    info.size = len(content or b"")
    return info, content or b""


def directory(name: str, mode: int = 0o755, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A directory member."""
    return member(name, type=tarfile.DIRTYPE, mode=mode, **fields)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    """A symbolic link member."""
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    """A hard link member."""
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def make_tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """An uncompressed tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content) if content else None)
    return out.getvalue()


def compress(tar: bytes, how: str) -> bytes:
    """gzip, zstd or none."""
    if how == "gzip":
        return gzip.compress(tar, mtime=0)
    return zstandard.ZstdCompressor().compress(tar) if how == "zstd" else tar


@dataclass(frozen=True)
class MadeImage:
    """An image in parts, as a registry keeps them."""

    manifest: bytes
    config: bytes
    blobs: tuple[bytes, ...]

    @property
    def id(self) -> str:
        return digest_of(self.config)


def make_image(layers: Iterable[bytes], how: str = "gzip", config: ImageConfig | None = None) -> MadeImage:
    """An OCI image of uncompressed layer tars, compressed as said."""
    tars = list(layers)
    blobs = tuple(compress(tar, how) for tar in tars)
    document = encode_config(config or ImageConfig(cmd=("sh",)), [digest_of(tar) for tar in tars])
    suffix = {"gzip": "+gzip", "zstd": "+zstd"}.get(how, "")
    manifest = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest_of(document), "size": len(document)},
            "layers": [
                {
                    "mediaType": f"application/vnd.oci.image.layer.v1.tar{suffix}",
                    "digest": digest_of(blob),
                    "size": len(blob),
                }
                for blob in blobs
            ],
        }
    )
    return MadeImage(manifest, document, blobs)
