"""`docker save`: an archive of images, bit for bit as they were received."""

import tarfile
from collections.abc import Iterator, Sequence

from worker.images.decompress import decompressed
from worker.images.errors import DigestMismatch
from worker.images.layers import Layer, LayerStore
from worker.images.layout import LaidOut, blob_name, documents

_COPY = 1 << 20


def write_images(layers: LayerStore, images: Sequence[LaidOut]) -> Iterator[bytes]:
    """The archive in pieces; blocks while it reads. The layers must stay until it is done."""
    wanted = dict.fromkeys(diff_id for image in images for diff_id, _ in image.layers)
    for diff_id in wanted:
        layer = layers.get(diff_id)
        if layer is not None:
            yield _header(blob_name(diff_id), layer.tar_bytes)
            yield from _content(layers, layer)
            yield _padding(layer.tar_bytes)
    for name, content in documents(images).items():
        yield _header(name, len(content)) + content + _padding(len(content))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _content(layers: LayerStore, layer: Layer) -> Iterator[bytes]:
    """A layer's tar, from the blob that was kept."""
    written = 0
    with layers.blob(layer.diff_id).open("rb") as blob:
        read = decompressed(blob)
        while chunk := read(_COPY):
            written += len(chunk)
            yield chunk
    if written != layer.tar_bytes:
        raise DigestMismatch(
            "stored layer", f"{layer.diff_id} of {layer.tar_bytes} bytes", f"{written} bytes"
        )


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
