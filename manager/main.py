"""The manager process: `python -m manager`, started by shoald on manager nodes."""

import asyncio
import contextlib
import logging
import signal
import sys

from cluster import logs
from cluster.errors import ShoalError
from cluster.seams import SystemClock, system_random
from manager import garbage
from manager.confinement import confine
from manager.exits import EXIT_REFUSED, last_words
from manager.guard import calm_accepts, frugal_tls
from manager.locking import DaemonPipe
from manager.manager import Manager
from manager.settings import Settings, parse_settings

log = logging.getLogger("shoal.manager")


async def run(settings: Settings) -> None:
    """Run one manager until SIGTERM or SIGINT. SIGHUP: use the renewed certificate."""
    pipe = None if settings.lock_fd is None else await DaemonPipe.open(settings.lock_fd)
    manager = Manager(settings, SystemClock(), system_random(), pipe)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    calm_accepts(loop)
    frugal_tls()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(manager.reload_identity())
        reloads.add(task)
        task.add_done_callback(_report_reload)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    garbage.keep_collections_short()
    try:
        await manager.run(stop)
    finally:
        if pipe is not None:
            pipe.close()


def _report_reload(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the renewed certificate can't be used", extra={"reason": str(error)})


def main(arguments: list[str] | None = None) -> int:
    """Run; returns the exit status."""
    settings = parse_settings(sys.argv[1:] if arguments is None else arguments)
    logs.configure(settings.log_level, settings.log_format)
    try:
        settings = confine(settings)
        asyncio.run(run(settings))
    except (ShoalError, OSError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        log.critical("the manager can't run: %s", reason)
        with contextlib.suppress(OSError):  # it is in the log
            last_words(settings.socket).write_text(reason)
        return EXIT_REFUSED
    return 0
