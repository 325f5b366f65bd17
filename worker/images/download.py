"""Download one blob to a file: verified, resumed where it broke off."""

from pathlib import Path
from types import TracebackType
from typing import Self

from worker.images.background import Report, Threads
from worker.images.digest import hasher, hex_of
from worker.images.errors import DigestMismatch, TLSFailure, TransportError
from worker.images.manifest import Descriptor
from worker.images.registry import RangeRefused, RegistryClient

_WRITE_BYTES = 1 << 20


class _Sink:
    """The file so far, and the hash of it."""

    def __init__(self, path: Path, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._file = path.open("wb")
        self._hash = hasher(descriptor.digest)
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self.size += len(content)

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hash = hasher(self._descriptor.digest)
        self.size = 0

    def check(self) -> None:
        """Raise DigestMismatch unless this is what was asked for."""
        if self._hash.hexdigest() != hex_of(self._descriptor.digest):
            algorithm = self._descriptor.digest.partition(":")[0]
            raise DigestMismatch("layer", self._descriptor.digest, f"{algorithm}:{self._hash.hexdigest()}")


async def download(
    client: RegistryClient, descriptor: Descriptor, path: Path, threads: Threads, report: Report
) -> None:
    """Fetch a blob into `path`. Raises DigestMismatch, or what the registry's failure means.

    An attempt that got further than the last one starts the count of failures anew.
    """
    failures, resumed = 0, False
    with _Sink(path, descriptor) as sink:
        while True:
            before = sink.size
            try:
                await _attempt(client, descriptor, sink, threads, report)
                report("Verifying Checksum", 0, 0)
                sink.check()
                return
            except DigestMismatch:
                # What was resumed may have come from two different servers; a whole download is final.
                if not resumed:
                    raise
                resumed = False
                await threads.run(sink.restart)
            except TransportError as error:
                failures = 1 if sink.size > before + _WRITE_BYTES else failures + 1
                if failures >= client.attempts or isinstance(error, TLSFailure):
                    raise
                if isinstance(error, RangeRefused):
                    await threads.run(sink.restart)
                report("Retrying", 0, 0)
                await client.back_off(failures, error)
                resumed = sink.size > 0


async def _attempt(
    client: RegistryClient, descriptor: Descriptor, sink: _Sink, threads: Threads, report: Report
) -> None:
    """One request's worth; what arrives before a failure is kept."""
    async with client.blob(descriptor, sink.size) as (start, response):
        if start != sink.size:
            await threads.run(sink.restart)
        pending = bytearray()
        try:
            async for chunk in response.chunks():
                pending += chunk
                received = sink.size + len(pending)
                if received > descriptor.size:
                    raise DigestMismatch("layer", descriptor.digest, f"more than its {descriptor.size} bytes")
                report("Downloading", received, descriptor.size)
                if len(pending) >= _WRITE_BYTES:
                    full, pending = bytes(pending), bytearray()
                    await threads.run(lambda content=full: sink.write(content))  # type: ignore[misc]
        finally:
            if pending and sink.size + len(pending) <= descriptor.size:
                await threads.run(lambda: sink.write(bytes(pending)))
    if sink.size < descriptor.size:
        raise TransportError(f"{client.reference.domain}: layer was cut short at {sink.size} bytes")
