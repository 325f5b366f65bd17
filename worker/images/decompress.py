"""Decompress a layer as a stream: gzip, zstd or none, told apart by their first bytes as docker does."""

import zlib
from collections.abc import Callable
from typing import IO

import zstandard

from worker.images.errors import InvalidImage

_GZIP = b"\x1f\x8b\x08"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = tuple(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60))
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_CHUNK = 64 << 10  # zlib copies what follows a member: with many small ones, larger costs more
_MAX_WINDOW = 128 << 20
"""Memory that a zstd frame may ask for, in bytes: what `zstd --long` needs at most by default."""


def decompressed(source: IO[bytes]) -> Callable[[int], bytes]:
    """A function that reads up to n uncompressed bytes, nothing only at the end; raises InvalidImage.

    `source` must be seekable; it is read from where it stands.
    """
    start = source.tell()
    magic = source.read(6)
    source.seek(start)
    if magic.startswith(_GZIP):
        return _Gzip(source).read
    if magic.startswith(_ZSTD) or magic.startswith(_SKIPPABLE):
        return _zstd(source)
    for prefix, name in _OTHERS.items():
        if magic.startswith(prefix):
            raise InvalidImage(f"compressed with {name}, which is not supported; use gzip or zstd")
    return source.read


class _Gzip:
    """All members of a gzip file. A chunk never inflates to more than what was asked for."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._member = zlib.decompressobj(wbits=31)
        self._input = b""

    def read(self, size: int) -> bytes:
        while True:
            if not self._input:
                self._input = self._source.read(_CHUNK)
            if self._member.eof:
                self._input = self._input.lstrip(b"\0")
                if not self._input:
                    self._input = self._source.read(_CHUNK).lstrip(b"\0")
                if not self._input:
                    return b""
                self._member = zlib.decompressobj(wbits=31)
            exhausted = not self._input
            try:
                output = self._member.decompress(self._input, size)
            except zlib.error as error:
                raise InvalidImage(f"gzip stream is damaged: {error}") from error
            self._input = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if output:
                return output
            if exhausted and not self._member.eof:
                raise InvalidImage("gzip stream is cut short")


def _zstd(source: IO[bytes]) -> Callable[[int], bytes]:
    reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(
        source, read_size=_CHUNK, read_across_frames=True, closefd=False
    )

    def read(size: int) -> bytes:
        try:
            return reader.read(size)
        except zstandard.ZstdError as error:
            raise InvalidImage(f"zstd stream is damaged: {error}") from error

    return read
