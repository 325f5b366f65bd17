"""Keeping logs small: Docker's options `max-size` and `max-file`, without losing a line.

conmon itself can only cut a log off. Instead the file is renamed, to which conmon goes on writing, and conmon
is told to open a new one (`2 0 0` on its control FIFO), as the kubelet does it.
"""

import asyncio
import errno
import gzip
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from cluster.log_options import check_log_options, is_true, parse_size
from cluster.seams import SECOND, Clock
from worker.logs.files import COMPRESSED, log_files
from worker.runtime.model import LogConfig

log = logging.getLogger("shoal.logs")

INTERVAL = SECOND


class RotationPolicy(msgspec.Struct, frozen=True):
    """Rotate at `max_size` bytes, keep `max_files` files, the current one included; `compress` the others."""

    max_size: int
    max_files: int
    compress: bool = False


def rotation_policy(config: LogConfig) -> RotationPolicy | None:
    """How to rotate this log; None: never. Refuses unknown drivers and options.

    Logs that go to journald are kept here, too, as those of the driver `local`: to be read by `docker logs`.
    """
    check_log_options(config.driver, config.options)
    if config.driver == "none":
        return None
    options = config.options
    size, files = options.get("max-size", ""), options.get("max-file", "")
    if config.driver in ("local", "journald"):
        size, files = size or "20m", files or "5"
    if not size or size == "-1":
        return None
    usual = "true" if config.driver in ("local", "journald") else "false"
    count = int(files or "1")
    return RotationPolicy(parse_size(size), count, count > 1 and is_true(options.get("compress", usual)))


def reopen(control: Path) -> bool:
    """Tell conmon to open its log anew; False when conmon has ended."""
    try:
        descriptor = os.open(control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        raise
    try:
        os.write(descriptor, b"2 0 0\n")
    finally:
        os.close(descriptor)
    return True


def rotate(path: Path, control: Path, max_files: int) -> None:
    """Start a new log file. With one file to keep, what was written is dropped, as Docker does."""
    if max_files > 1:
        for number in range(max_files - 1, 0, -1):
            for suffix in ("", COMPRESSED):
                older = path.with_name(f"{path.name}.{number}{suffix}")
                newer = path.with_name(f"{path.name}.{number - 1}{suffix}") if number > 1 else path
                older.unlink(missing_ok=True)
                if newer.exists() and not (suffix and newer == path):
                    newer.rename(older)
    reopen(control)


def compress(path: Path) -> None:
    """Compress the log's older files that are not yet. Blocks. What is interrupted is done again."""
    for file in log_files(path):
        if file == path or file.name.endswith(COMPRESSED):
            continue
        packed = file.with_name(f"{file.name}{COMPRESSED}")
        temporary = packed.with_name(f"{packed.name}.new")
        with file.open("rb") as plain, gzip.open(temporary, "wb", compresslevel=6) as target:
            shutil.copyfileobj(plain, target, 1 << 18)
        temporary.chmod(file.stat().st_mode & 0o777)
        temporary.rename(packed)
        file.unlink()


class LogRotator:
    """Looks at the sizes of all limited logs once a second.

    `running` names what to look at: log file, conmon's control FIFO, policy.
    """

    def __init__(
        self, clock: Clock, running: Callable[[], Iterable[tuple[Path, Path, RotationPolicy]]]
    ) -> None:
        self._clock, self._running = clock, running
        self._told: set[Path] = set()  # logs that conmon was told to reopen and has not yet

    async def run(self) -> None:
        """Rotate, for ever."""
        while True:
            await self._clock.sleep(INTERVAL)
            self.tick()
            await self._compress()

    async def _compress(self) -> None:
        """Compress what was rotated away, once nobody writes to it any more."""
        for path, _, policy in list(self._running()):
            if policy.compress and path not in self._told and path.exists():
                try:
                    await asyncio.to_thread(compress, path)
                except OSError as error:
                    log.error("can't compress a log", extra={"path": str(path), "error": str(error)})

    def tick(self) -> None:
        """Look once."""
        for path, control, policy in self._running():
            try:
                self._look(path, control, policy)
            except OSError as error:  # the others' logs must not grow without bound for it
                log.error("can't rotate a log", extra={"path": str(path), "error": str(error)})

    def _look(self, path: Path, control: Path, policy: RotationPolicy) -> None:
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            # The daemon died between renaming and telling conmon, or conmon has not come to it. Told
            # twice, it would drop what it wrote in between.
            if path not in self._told:
                self._told.add(path)
                reopen(control)
            return
        self._told.discard(path)
        if size >= policy.max_size:
            log.debug("rotating a log", extra={"path": str(path), "bytes": size})
            self._told.add(path)
            rotate(path, control, policy.max_files)
