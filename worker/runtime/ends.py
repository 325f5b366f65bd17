"""How a container's end is noticed, and what it held given back.

conmon writes the exit code to a file, which inotify tells of; a pidfd tells when the process is gone, in case
its monitor was killed and will never write.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from cluster.seams import SECOND, Clock
from worker.runtime.exits import read_exit_code
from worker.runtime.launch import Launcher
from worker.runtime.model import ContainerState, ContainerStatus, HealthStatus, ProcessIdentity
from worker.runtime.table import ContainerTable, Entry

log = logging.getLogger("shoal.runtime")

UNKNOWN_EXIT_CODE = 255
"""For a container that ended unseen (power loss, killed monitor); dockerd's number."""

_MONITOR_GRACE = 2 * SECOND
"""How long after its process's end a container's monitor may take to write the exit code."""


class Ends:
    """Watches over the running containers of a table.

    `record` sets a container's state, `clear` gives back what an ended container holds.
    """

    def __init__(
        self,
        table: ContainerTable,
        launcher: Launcher,
        clock: Clock,
        record: Callable[[Entry, ContainerState], None],
        clear: Callable[[str], Coroutine[Any, Any, None]],
    ) -> None:
        self._table = table
        self._launcher = launcher
        self._clock = clock
        self._record = record
        self._clear_container = clear
        self._pidfds: dict[str, int] = {}
        self._clearing: dict[str, asyncio.Task[None]] = {}
        self._waiting: set[asyncio.Task[None]] = set()

    def pidfd(self, id: str) -> int | None:
        """The first process of a running container."""
        return self._pidfds.get(id)

    def hold(self, id: str, pidfd: int) -> None:
        """A container runs; the pidfd is closed when it has ended."""
        self._pidfds[id] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._process_gone, id)

    async def close(self) -> None:
        """Let go of all containers, which keep running; what has ended is still cleared."""
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, *self._clearing.values(), return_exceptions=True)
        for id in list(self._pidfds):
            self._let_go(id)

    def look(self) -> None:
        """Look for all exit codes: notices were lost."""
        for entry in list(self._table):
            self.exit_written(entry.config.id)

    def exit_written(self, id: str) -> None:
        """There may be an exit code for this container."""
        if not self._table.known(id):
            return
        entry = self._table.find(id)
        if not entry.state.running or id in self._clearing:
            return
        try:
            code = read_exit_code(self._launcher.layout.of(id).exit_file)
        except OSError as error:  # too many open files, say; the end of the process brings us here again
            log.error("can't read an exit code", extra={"container": id, "error": str(error)})
            return
        if code is not None:
            self.ended(entry, code, "")

    def ended(self, entry: Entry, code: int | None, error: str) -> None:
        """A container has ended; None: nobody knows with which code."""
        id = entry.config.id
        self._let_go(id)
        health = msgspec.structs.replace(entry.state.health, status=HealthStatus.NONE)
        state = msgspec.structs.replace(
            entry.state,
            status=ContainerStatus.EXITED,
            pid=0,
            process=None,
            exit_code=UNKNOWN_EXIT_CODE if code is None else code,
            oom_killed=self._launcher.out_of_memory(id),
            finished_at=self._clock.now(),
            error=error,
            health=health if entry.config.healthcheck is None else entry.state.health,
        )
        self._record(entry, state)
        self.begin_clearing(id)

    def begin_clearing(self, id: str) -> None:
        """Give back what an ended container holds."""
        self._clearing[id] = self._spawn(self._clear(id))

    async def cleared(self, id: str) -> None:
        """Wait until what an ended container held is given back."""
        task = self._clearing.get(id)
        if task is not None:
            await asyncio.shield(task)

    def _let_go(self, id: str) -> None:
        pidfd = self._pidfds.pop(id, None)
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def _process_gone(self, id: str) -> None:
        """The first process ended. Its exit code follows from conmon, unless conmon was killed."""
        asyncio.get_running_loop().remove_reader(self._pidfds[id])
        process = self._table.find(id).state.process if self._table.known(id) else None
        task = self._spawn(self._await_exit_code(id, process))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _await_exit_code(self, id: str, process: ProcessIdentity | None) -> None:
        """`process` is the one that is gone: meanwhile the container may have been started again."""
        await self._clock.sleep(_MONITOR_GRACE)
        if not self._table.known(id) or self._table.find(id).state.process != process:
            return
        self.exit_written(id)
        if self._table.known(id) and self._table.find(id).state.running:
            self.ended(self._table.find(id), None, "its monitor ended first; the exit code is lost")

    async def _clear(self, id: str) -> None:
        try:
            await self._clear_container(id)
        finally:
            del self._clearing[id]

    @staticmethod
    def _spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(_report)
        return task


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("clearing up after a container failed", exc_info=task.exception())
