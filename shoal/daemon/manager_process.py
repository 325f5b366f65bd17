"""The manager as a child process: started on manager nodes, watched, started again when it dies."""

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import aiohttp

from cluster.errors import ShoalError
from cluster.seams import SECOND, Clock
from manager.exits import EXIT_FAIL_STOP, EXIT_REFUSED, last_words
from shoal.daemon.lock_pipe import Locks, serve_locks

log = logging.getLogger("shoal.daemon.manager")

READY_TIMEOUT = 30.0
READY_POLL = 0.02
STOP_TIMEOUT = 10.0
RESTART_DELAY = SECOND // 5
RESTART_DELAY_MAX = 10 * SECOND
REFUSED_DELAY_MAX = 60 * SECOND
"""For a manager that says that it can't run: only a person helps, but a disk may have been emptied since."""
REMEMBERED = 3600 * SECOND
"""For so long `docker info` tells why a manager failed, although another runs: a disk may be dying."""
STEADY = 30 * SECOND  # after this long a manager counts as having started well
_PR_SET_PDEATHSIG = 1


class ManagerFailed(ShoalError):
    """The manager process ended before it answered."""


class Files(Locks, Protocol):
    """What the process needs on the disk, and what unlocks it."""

    socket: Path

    def hand_over(self) -> None:
        """Before each start: make it, and give it to the manager's user."""

    def share_certificates(self) -> None:
        """Let the manager read renewed certificates."""


class ManagerProcess:
    """One manager process at a time. It ends with shoald, however that ends: Raft's files have one owner."""

    def __init__(self, command: Callable[[], Sequence[str]], files: Files, clock: Clock) -> None:
        """`command` gives the arguments of `python -m manager` for each (re)start; `files` go to it."""
        self._command = command
        self._files = files
        self._socket = files.socket
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._pipe: asyncio.Task[None] | None = None
        self._stopping = False
        self.error = ""
        """Why the manager does not run at present; empty when it does, as far as is known."""
        self._ended = (0, "")

    @property
    def epitaph(self) -> str:
        """Why the manager that ran before this one ended, when it failed lately; else empty."""
        at, reason = self._ended
        ago = self._clock.monotonic() - at
        if not reason or ago > REMEMBERED:
            return ""
        return f"{ago // SECOND} s ago the manager ended and was started again: {reason}"

    @property
    def pid(self) -> int | None:
        """The running process, for those who measure or kill it."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self, extra: Sequence[str] = ()) -> None:
        """Start and wait until it answers. `extra` arguments are for this start alone (--init).

        Raises ManagerFailed with the process's last words.
        """
        self._stopping = False
        await self._start(extra)
        reason = self.error
        if reason:
            await self.stop()
            raise ManagerFailed(reason)
        self._watch = asyncio.create_task(self._keep(), name="manager process")

    async def resume(self) -> None:
        """Start it after a restart of the daemon, and keep trying: `error` says why it does not run."""
        self._stopping = False
        await self._start(())
        if self.error:
            log.error("the manager does not start", extra={"reason": self.error})
        self._watch = asyncio.create_task(self._keep(), name="manager process")

    def reload(self) -> None:
        """The certificate was renewed: let the manager read it again."""
        if self.pid is not None:
            self._files.share_certificates()
            os.kill(self.pid, signal.SIGHUP)

    async def stop(self) -> None:
        """End it: it hands leadership over first. Killed after a while."""
        last_words(self._socket).unlink(missing_ok=True)
        self._stopping = True
        self.error = ""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait((self._watch,))
            self._watch = None
        await self._end()
        if self._pipe is not None:
            self._pipe.cancel()
            await asyncio.wait((self._pipe,))
            self._pipe = None

    async def _end(self) -> None:
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

    async def _start(self, extra: Sequence[str]) -> None:
        last_words(self._socket).unlink(missing_ok=True)
        self._process = None
        try:
            await self._spawn(extra)
            await self._ready()
        except (ManagerFailed, OSError) as error:
            self.error = str(error)
        else:
            self.error = ""

    async def _spawn(self, extra: Sequence[str]) -> None:
        self._files.hand_over()
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "manager",
                *self._command(),
                *extra,
                f"--lock-fd={theirs.fileno()}",
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                preexec_fn=_die_with_parent,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        if self._pipe is not None:
            self._pipe.cancel()
        self._pipe = asyncio.create_task(serve_locks(ours, self._files), name="manager's lock")
        log.info("manager started", extra={"pid": self._process.pid})

    async def _ready(self) -> None:
        process = self._process
        assert process is not None, "_spawn came first"
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(self._socket))) as http:
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
        raise ManagerFailed(self._reason(process.returncode))

    def _reason(self, status: int | None) -> str:
        try:
            return f"the manager can't run: {last_words(self._socket).read_text()}"
        except OSError:
            return f"the manager ended with status {status}; its log is in shoald's"

    async def _keep(self) -> None:
        delay = RESTART_DELAY
        while True:
            begun = self._clock.monotonic()
            status = await self._process.wait() if self._process is not None else None
            if self._stopping:
                return
            self.error = self.error or self._reason(status)
            if status == EXIT_FAIL_STOP:
                self._ended = (self._clock.monotonic(), self.error)
            if self._clock.monotonic() - begun > STEADY:
                delay = RESTART_DELAY
            else:
                longest = REFUSED_DELAY_MAX if status == EXIT_REFUSED else RESTART_DELAY_MAX
                delay = min(2 * delay, longest)
            log.error(
                "the manager does not run: starting it again",
                extra={"reason": self.error, "after_seconds": delay / SECOND},
            )
            await self._clock.sleep(delay)
            await self._start(())


def _die_with_parent() -> None:
    """Runs in the child: the kernel sends SIGTERM when shoald's main thread is gone (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
