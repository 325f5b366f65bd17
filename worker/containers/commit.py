"""`docker commit`: what a container has changed, as a layer on its image."""

import os
import stat
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from msgspec.structs import replace

from worker.containers.changes import OURS, is_whiteout
from worker.containers.request import Settings
from worker.images.build import anonymous
from worker.images.config import HistoryEntry, ImageConfig

_OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"
_COPY = 1 << 20


def write_changes(upper: Path, places: Iterable[str], out: IO[bytes]) -> None:
    """Write a writable layer as a tar of the OCI image specification; blocks.

    `places` are where the container has mounts: they hold nothing of it.
    """
    made = OURS | {target.rstrip("/") for target in places}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as layer:
        for directory, subdirectories, files in os.walk(upper):
            base = Path(directory)
            within = base.relative_to(upper)
            if within.parts and _hides_all(base):
                layer.addfile(tarfile.TarInfo(str(within / ".wh..wh..opq")))
            subdirectories[:] = sorted(each for each in subdirectories if f"/{within / each}" not in made)
            for name in sorted([*subdirectories, *files]):
                path, inner = base / name, within / name
                if f"/{inner}" in made:
                    continue
                info = path.lstat()
                if is_whiteout(info):
                    layer.addfile(tarfile.TarInfo(str(within / f".wh.{name}")))
                elif not stat.S_ISSOCK(info.st_mode):
                    layer.add(path, str(inner), recursive=False, filter=anonymous(path))


def _hides_all(directory: Path) -> bool:
    try:
        return os.getxattr(directory, _OPAQUE_ATTRIBUTE, follow_symlinks=False) == b"y"
    except OSError:
        return False


@contextmanager
def spooled() -> Iterator[IO[bytes]]:
    """A file for a layer, gone afterwards."""
    with tempfile.TemporaryFile() as file:
        yield file


async def pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    """A file's content from its beginning."""
    file.seek(0)
    while chunk := file.read(_COPY):
        yield chunk


def changed_config(
    image: ImageConfig,
    own: Settings | None,
    wanted: Settings,
    *,
    now: str,
    author: str,
    comment: str,
    did: str,
) -> ImageConfig:
    """The image's configuration with the container's settings (`own`; None for a task's), then those that the
    request names. `did` is the command that the container ran."""
    for settings in (own, wanted):
        if settings is not None:
            image = _with(image, settings)
    step = HistoryEntry(created=now, created_by=did, author=author, comment=comment)
    return replace(image, created=now, author=author, comment=comment, history=(*image.history, step))


def _with(image: ImageConfig, settings: Settings) -> ImageConfig:
    return replace(
        image,
        cmd=_words(settings.cmd) or image.cmd,
        entrypoint=_words(settings.entrypoint) or image.entrypoint,
        env=tuple(settings.env or image.env),
        labels={**image.labels, **settings.labels},
        user=settings.user or image.user,
        working_dir=settings.working_dir or image.working_dir,
        exposed_ports=tuple(sorted({*image.exposed_ports, *(settings.exposed_ports or ())})),
        volumes=tuple(sorted({*image.volumes, *(settings.volumes or ())})),
        stop_signal=settings.stop_signal or image.stop_signal,
        stop_timeout=image.stop_timeout if settings.stop_timeout is None else settings.stop_timeout,
        healthcheck=settings.healthcheck or image.healthcheck,
        shell=tuple(settings.shell or image.shell),
        on_build=tuple(settings.on_build or image.on_build),
    )


def _words(text: list[str] | str | None) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) and text else tuple(text or ())
