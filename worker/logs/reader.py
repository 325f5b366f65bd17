"""Reading a container's log: the last lines, a span of time, or on and on."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from pathlib import Path

import msgspec

from worker.logs.files import Tail, last_lines, log_files
from worker.logs.format import STDERR, STDOUT, Joiner, LogEntry, parse_line
from worker.runtime.inotify import IN_MODIFY, IN_MOVED_TO, Inotify


class LogQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to read. `since` and `until` in ns since the epoch (0: unbounded), `tail` entries (-1: all)."""

    since: int = 0
    until: int = 0
    tail: int = -1
    follow: bool = False
    stdout: bool = True
    stderr: bool = True

    def wants(self, entry: LogEntry) -> bool:
        """True when the entry is in the span and of a wanted stream."""
        if entry.timestamp < self.since:
            return False
        return (self.stdout and entry.stream == STDOUT) or (self.stderr and entry.stream == STDERR)

    def past(self, entry: LogEntry) -> bool:
        """True when the entry and all later ones are too late."""
        return bool(self.until) and entry.timestamp > self.until


async def read_log(
    path: Path,
    query: LogQuery,
    inotify: Inotify | None = None,
    ended: Callable[[], Awaitable[object]] | None = None,
) -> AsyncGenerator[LogEntry, None]:
    """The entries of a log. With `follow` it goes on until `ended()` is done (the container has ended).

    As in Docker, `tail` counts the entries of both streams, before any other filter.
    """
    joiner = Joiner()
    if query.tail >= 0:
        tail = Tail(path, (log_files(path) or [path])[-1], at_end=True)
        first = [entry for line in last_lines(path, query.tail) if (entry := joiner.add(line))]
    else:
        tail = Tail(path)
        first = []
    try:
        for entry in first:
            if query.past(entry):
                return
            if query.wants(entry):
                yield entry
        async with aclosing(_entries(path, tail, joiner, query, inotify, ended)) as entries:
            async for entry in entries:
                if query.past(entry):
                    return
                if query.wants(entry):
                    yield entry
    finally:
        tail.close()


async def _entries(
    path: Path,
    tail: Tail,
    joiner: Joiner,
    query: LogQuery,
    inotify: Inotify | None,
    ended: Callable[[], Awaitable[object]] | None,
) -> AsyncGenerator[LogEntry, None]:
    if not query.follow or inotify is None:
        async for entry in _available(tail, joiner):
            yield entry
        for entry in joiner.rest():
            yield entry
        return
    written = asyncio.Event()
    end_watch = inotify.watch(path.parent, IN_MODIFY | IN_MOVED_TO, lambda mask, name: written.set())
    over = asyncio.ensure_future(ended()) if ended is not None else None
    if over is not None:
        over.add_done_callback(lambda _: written.set())
    try:
        while True:
            written.clear()
            finished = over is not None and over.done()
            async for entry in _available(tail, joiner):
                yield entry
            if finished:
                break
            await written.wait()
        for entry in joiner.rest():
            yield entry
    finally:
        end_watch()
        if over is not None:
            over.cancel()


async def _available(tail: Tail, joiner: Joiner) -> AsyncGenerator[LogEntry, None]:
    while lines := tail.read():
        for entry in _joined(lines, joiner):
            yield entry
        await asyncio.sleep(0)  # others want the loop, too


def _joined(lines: Iterable[bytes], joiner: Joiner) -> Iterable[LogEntry]:
    for raw in lines:
        line = parse_line(raw)
        if line is not None and (entry := joiner.add(line)) is not None:
            yield entry
