"""Watches the manager process: one whose loops no longer turn is ended, and so started again.

A manager that has died is seen at once (manager_process.py); one that hangs looks alive to the kernel, and to
the other managers when it is not the leader. Asking it is the only way to know.
"""

import logging
import os
import signal
from collections.abc import Callable

from cluster.errors import ShoalError
from cluster.seams import SECOND, Clock
from shoal.daemon.proxy import ManagerProxy

log = logging.getLogger("shoal.daemon.manager")

EVERY = 5 * SECOND
ANSWER_TIMEOUT = 10.0
"""Seconds; a manager under the heaviest load answers in one."""
HANGS = 60 * SECOND
"""Silence after which it is ended."""
KILLED = 30 * SECOND
"""A process that the kernel has not ended after this waits for hardware."""


class ManagerWatch:
    """Asks the manager of this node whether it lives, when there is one."""

    def __init__(self, pid: Callable[[], int | None], proxy: ManagerProxy, clock: Clock) -> None:
        self._pid = pid
        self._proxy = proxy
        self._clock = clock
        self._heard: tuple[int | None, int] = (None, 0)
        self._killed: tuple[int, int] | None = None

    async def run(self) -> None:
        """Watch; never returns."""
        while True:
            await self._look()
            await self._clock.sleep(EVERY)

    def well(self) -> bool:
        """False when the manager hangs and can't be ended."""
        if self._killed is None:
            return True
        pid, at = self._killed
        return self._pid() != pid or self._clock.monotonic() - at < KILLED

    async def _look(self) -> None:
        pid = self._pid()
        if pid is None or not self._proxy.attached or await self._answers() or pid != self._heard[0]:
            self._heard = (pid, self._clock.monotonic())  # a new process has as long to begin to answer
            return
        silent = self._clock.monotonic() - self._heard[1]
        if silent < HANGS or self._pid() != pid:
            return
        if self._killed is None or self._killed[0] != pid:
            log.error("the manager hangs: ending it", extra={"pid": pid, "silent_seconds": silent / SECOND})
            self._killed = (pid, self._clock.monotonic())
        os.kill(pid, signal.SIGKILL)

    async def _answers(self) -> bool:
        try:
            await self._proxy.call("GET", "/internal/alive", timeout=ANSWER_TIMEOUT)
        except ShoalError as error:
            log.warning("the manager does not answer", extra={"reason": str(error)})
            return False
        return True
