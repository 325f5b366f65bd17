"""Commands in a running container, through the OCI runtime's exec."""

import asyncio
import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from cluster.seams import Clock
from worker.runtime.directory import Layout
from worker.runtime.exec_process import exec_process
from worker.runtime.model import ExecResult
from worker.runtime.process import send_signal
from worker.runtime.spawn import Programs

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_KILL = 9
_REAP_SECONDS = 1.0


class Executor:
    """Runs commands without a terminal or input and collects their output (health checks)."""

    def __init__(self, programs: Programs, layout: Layout) -> None:
        self._programs, self._layout = programs, layout
        self._numbers = count()
        self._running: set[_Exec] = set()

    async def close(self) -> None:
        """Stop reading; the commands are killed."""
        for running in list(self._running):
            await running.kill()

    async def run(
        self,
        id: str,
        argv: Sequence[str],
        *,
        env: Sequence[str],
        user: str,
        cwd: str,
        output_limit: int,
        timeout: int,
        clock: Clock,
    ) -> ExecResult:
        """Run a command; kill it after `timeout` ns (0: never)."""
        bundle = self._layout.of(id).bundle
        name = f"exec-{next(self._numbers)}"
        spec, pid_file = bundle / f"{name}.json", bundle / f"{name}.pid"
        process = exec_process(self._layout.of(id), argv, env=env, user=user, cwd=cwd)
        spec.write_bytes(process)
        command = self._programs.command("exec", "--process", str(spec), "--pid-file", str(pid_file), id)
        running = _Exec(command, pid_file, output_limit)
        self._running.add(running)
        try:
            return await running.result(timeout, clock)
        finally:
            await running.kill()
            self._running.discard(running)
            spec.unlink(missing_ok=True)
            pid_file.unlink(missing_ok=True)


class _Exec:
    """One run of the OCI runtime's exec: output by a pipe, end by a pidfd."""

    def __init__(self, command: list[str], pid_file: Path, limit: int) -> None:
        self._pid_file, self._limit = pid_file, limit
        self._parts: list[bytes] = []
        self._size = 0
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._output_ended: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._pipe, write_end = os.pipe()
        os.set_blocking(self._pipe, False)
        try:
            self._pid = os.posix_spawn(
                command[0],
                command,
                _ENVIRONMENT,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, write_end, 1),
                    (os.POSIX_SPAWN_DUP2, write_end, 2),
                ],
            )
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(write_end)
        self._pidfd = os.pidfd_open(self._pid)
        self._loop.add_reader(self._pipe, self._read)
        self._loop.add_reader(self._pidfd, self._reap)

    async def result(self, timeout: int, clock: Clock) -> ExecResult:
        """Wait for the end of the command and of its output."""
        timed_out = False
        if timeout > 0:
            bound = asyncio.ensure_future(clock.sleep(timeout))
            try:
                await asyncio.wait((self._ended, bound), return_when=asyncio.FIRST_COMPLETED)
            finally:
                bound.cancel()
            timed_out = not self._ended.done()
        if timed_out:
            await self.kill()
        await asyncio.shield(self._ended)
        output = b"".join(self._parts)
        code = -1 if timed_out else self._exit.result()
        return ExecResult(
            exit_code=code,
            output=output[: self._limit],
            timed_out=timed_out,
            truncated=self._size > self._limit,
        )

    async def kill(self) -> None:
        """Kill the command inside the container, then the runtime's exec process; wait until both are gone.

        The exec process gets a moment to reap its child: a zombie left to the machine's init would hold up
        the end of the container's process namespace.
        """
        if not self._exit.done() and self._kill_inner():
            await asyncio.wait((self._exit,), timeout=_REAP_SECONDS)
        if not self._exit.done():
            send_signal(self._pidfd, _KILL)
        await asyncio.shield(self._exit)
        self._end_output()

    def _kill_inner(self) -> bool:
        try:
            inner = os.pidfd_open(int(self._pid_file.read_text()))
        except (OSError, ValueError):
            return False
        # Our exec process has not ended, so its child's pid is still the child's.
        send_signal(inner, _KILL)
        os.close(inner)
        return True

    def _read(self) -> None:
        try:
            data = os.read(self._pipe, 65536)
        except BlockingIOError:
            return
        if not data:
            self._end_output()
            return
        if self._size < self._limit:
            self._parts.append(data)
        self._size += len(data)

    def _end_output(self) -> None:
        if not self._output_ended.done():
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._output_ended.set_result(None)
            self._check_ended()

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status = os.waitpid(self._pid, 0)
        self._exit.set_result(os.waitstatus_to_exitcode(status))
        self._check_ended()

    def _check_ended(self) -> None:
        if self._exit.done() and self._output_ended.done() and not self._ended.done():
            self._ended.set_result(None)
