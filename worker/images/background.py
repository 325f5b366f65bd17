"""Blocking work in threads, and work that several callers share."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cluster.errors import ShoalError

_T = TypeVar("_T")
Report = Callable[[str, int, int], None]
"""Hears a status, bytes done and bytes to do."""


class Stopped(Exception):
    """Raised in a thread whose caller no longer wants the result."""


class Threads:
    """A bounded pool. A cancelled caller waits until its thread has ended, so that files can be removed."""

    def __init__(self, size: int) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="images")

    async def run(self, work: Callable[[], _T], stop: threading.Event | None = None) -> _T:
        """Run `work` in a thread; `stop` is set when the caller is cancelled, for long work to look at."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if stop is not None:
                stop.set()
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()
            raise

    def close(self) -> None:
        """Wait for the threads to end."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Job:
    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.listeners: list[Report] = []
        self.last: tuple[str, int, int] | None = None

    def report(self, status: str, current: int = 0, total: int = 0) -> None:
        self.last = (status, current, total)
        for listener in tuple(self.listeners):
            listener(status, current, total)


class SharedWork:
    """Runs one task per key however many callers want it; the task ends early when the last one leaves."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}

    async def do(
        self, key: str, start: Callable[[Report], Coroutine[object, object, None]], listener: Report
    ) -> None:
        """Wait until the work for `key` is done, starting it unless it runs already.

        When work that someone else started fails, the caller tries by itself: the failure may lie in the
        other's credentials or registry.
        """
        while True:
            job = self._jobs.get(key)
            mine = job is None
            if job is None:
                job = self._jobs[key] = _Job()
                job.task = asyncio.create_task(start(job.report), name=f"image layer {key}")
            elif job.last is not None:
                listener(*job.last)
            try:
                await self._wait(key, job, listener)
                return
            except (ShoalError, OSError):
                if mine:
                    raise

    async def _wait(self, key: str, job: _Job, listener: Report) -> None:
        assert job.task is not None
        job.listeners.append(listener)
        try:
            await asyncio.shield(job.task)
        finally:
            job.listeners.remove(listener)
            if self._jobs.get(key) is job and (job.task.done() or not job.listeners):
                del self._jobs[key]
            if not job.listeners and not job.task.done():
                await _end(job.task)

    async def close(self) -> None:
        """Cancel everything and wait for it."""
        for job in list(self._jobs.values()):
            if job.task is not None:
                await _end(job.task)
        self._jobs.clear()


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task nobody waits for any more, and wait until it has cleaned up."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
