"""The manager as a child process: started on manager nodes, watched, started again when it dies."""

import asyncio
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

import aiohttp

from cluster.errors import ShoalError
from cluster.seams import SECOND, Clock

log = logging.getLogger("shoal.daemon.manager")

READY_TIMEOUT = 30.0
READY_POLL = 0.02
STOP_TIMEOUT = 10.0
RESTART_DELAY = SECOND // 5
RESTART_DELAY_MAX = 10 * SECOND
STEADY = 30 * SECOND  # after this long a manager counts as having started well
_PR_SET_PDEATHSIG = 1


class ManagerFailed(ShoalError):
    """The manager process ended before it answered."""


class ManagerProcess:
    """One manager process at a time. It ends with shoald, however that ends: Raft's files have one owner."""

    def __init__(self, command: Callable[[], Sequence[str]], socket: str, clock: Clock) -> None:
        """`command` gives the arguments of `python -m manager` for each (re)start."""
        self._command = command
        self._socket = socket
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The running process, for those who measure or kill it."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self, extra: Sequence[str] = ()) -> None:
        """Start and wait until it answers. `extra` arguments are for this start alone (--init, --join).

        Raises ManagerFailed with the process's last words.
        """
        self._stopping = False
        await self._spawn(extra)
        try:
            await self._ready()
        except ManagerFailed:
            await self.stop()
            raise
        self._watch = asyncio.create_task(self._keep(), name="manager process")

    def reload(self) -> None:
        """The certificate was renewed: let the manager read it again."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGHUP)

    async def stop(self) -> None:
        """End it: it hands leadership over first. Killed after a while."""
        self._stopping = True
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait((self._watch,))
            self._watch = None
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await process.wait()
        except TimeoutError:
            log.warning("the manager did not stop in time: killing it", extra={"pid": process.pid})
            process.kill()
            await process.wait()

    async def watched(self) -> None:
        """Wait for ever, or raise what ended the watch."""
        while self._watch is not None:
            await asyncio.shield(self._watch)

    async def _spawn(self, extra: Sequence[str]) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "manager",
            *self._command(),
            *extra,
            stdin=asyncio.subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
        )
        log.info("manager started", extra={"pid": self._process.pid})

    async def _ready(self) -> None:
        process = self._process
        assert process is not None, "_spawn came first"
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=self._socket)) as http:
            try:
                async with asyncio.timeout(READY_TIMEOUT):
                    while process.returncode is None:
                        try:
                            async with http.get("http://manager/_ping"):
                                return
                        except (aiohttp.ClientError, OSError):
                            await asyncio.sleep(READY_POLL)
            except TimeoutError:
                raise ManagerFailed(
                    f"the manager did not answer within {READY_TIMEOUT:.0f} s; its log is in shoald's"
                ) from None
        raise ManagerFailed(f"the manager ended with status {process.returncode}; its log is in shoald's")

    async def _keep(self) -> None:
        delay = RESTART_DELAY
        while True:
            assert self._process is not None, "_spawn came first"
            begun = self._clock.monotonic()
            status = await self._process.wait()
            if self._stopping:
                return
            log.error("the manager ended: starting it again", extra={"status": status})
            delay = (
                RESTART_DELAY
                if self._clock.monotonic() - begun > STEADY
                else min(2 * delay, RESTART_DELAY_MAX)
            )
            await self._clock.sleep(delay)
            await self._spawn(())


def _die_with_parent() -> None:
    """Runs in the child: the kernel sends SIGTERM when shoald's main thread is gone (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
