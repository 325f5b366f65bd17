"""`docker import` and `commit`: an image whose last, or only, layer is made of the files in a tar."""

import hashlib
import tarfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from worker.images.background import Threads
from worker.images.config import ImageConfig, encode_config
from worker.images.layout import LaidOut, blob_name, documents
from worker.images.load import Loader
from worker.images.reference import Reference

_COPY = 1 << 20


async def archive_of_files(
    stream: AsyncIterator[bytes],
    staging: Path,
    loader: Loader,
    threads: Threads,
    config: ImageConfig,
    reference: Reference | None,
    below: Sequence[str] = (),
) -> AsyncIterator[bytes]:
    """The archive, as `docker save` writes it, of an image whose last layer is the tar in `stream` (plain,
    gzip, zstd), on those `below`, which the store has and the archive leaves out. Raises InvalidImage."""
    plain = await loader.spool(stream, staging)
    diff_id = await threads.run(lambda: _digest(plain))
    size = plain.stat().st_size
    document = encode_config(config, [*below, diff_id])
    layers = (*((each, 0) for each in below), (diff_id, size))
    image = LaidOut(document, (reference,) if reference is not None else (), layers)
    yield _header(blob_name(diff_id), size)
    with plain.open("rb") as file:
        while chunk := await threads.run(lambda: file.read(_COPY)):
            yield chunk
    yield bytes(-size % tarfile.BLOCKSIZE)
    for name, content in documents([image]).items():
        yield _header(name, len(content)) + content + bytes(-len(content) % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member.tobuf(tarfile.PAX_FORMAT)
