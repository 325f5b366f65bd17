"""A command in a running container with somebody at its streams: the OCI runtime's exec as our child.

Without a terminal its streams are pipes; with one, the runtime hands us the terminal over a socket. If the
daemon is killed, the command goes on until it meets its broken pipe, or its container ends.
"""

import array
import asyncio
import fcntl
import os
import socket
import struct
import termios
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from worker.runtime.process import send_signal
from worker.runtime.spawn import Programs, explain, start_exit_code

STDOUT, STDERR = 1, 2
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_CHUNK = 32 << 10
_LINGER = 2.0
"""Seconds that output may take after the command's end: what it left in the background may hold it open."""
_KILL = 9


class Session:
    """One exec. `exit_code` is a future; read `output` to its end, or let go with `close`.

    When that is done, `failure` says why the command could not be run, if so.
    """

    def __init__(
        self, programs: Programs, id: str, bundle: Path, name: str, process: bytes, *, tty: bool, stdin: bool
    ) -> None:
        """Start it; `process` is OCI JSON, `name` one that no other exec of the container has."""
        self._loop = asyncio.get_running_loop()
        self._files = tuple(bundle / f"{name}.{kind}" for kind in ("json", "pid", "tty", "log"))
        spec, self._pid_file, console, self._log = self._files
        spec.write_bytes(process)
        command = programs.command(
            "--log", str(self._log), "exec", "--process", str(spec), "--pid-file", str(self._pid_file)
        )
        self.failure = ""
        self.exit_code: asyncio.Future[int] = self._loop.create_future()
        self._tty = tty
        self._console: socket.socket | None = None
        self._input: int | None = None
        self._outputs: dict[int, int] = {}
        self._size: tuple[int, int] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._passed = 0
        self._terminal: asyncio.Future[None] = self._loop.create_future()
        if tty:
            self._console = _listen(console)
            command.append(f"--console-socket=/proc/self/fd/9/{console.name}")
        self._pid = self._spawn([*command, id], bundle, stdin=stdin)
        self._pidfd = os.pidfd_open(self._pid)
        self._loop.add_reader(self._pidfd, self._reap)
        if self._console is not None:
            self._loop.add_reader(self._console, self._accept)

    def _spawn(self, command: list[str], bundle: Path, *, stdin: bool) -> int:
        ours: list[int] = []
        theirs: list[int] = []
        directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        theirs.append(directory)
        actions: list[tuple[object, ...]] = []
        try:
            if stdin and not self._tty:
                read_end, write_end = os.pipe()
                theirs.append(read_end)
                ours.append(write_end)
                actions.append((os.POSIX_SPAWN_DUP2, read_end, 0))
                self._input = write_end
            else:
                actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
            for stream in (STDOUT, STDERR):
                if self._tty:
                    actions.append((os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0))
                    continue
                read_end, write_end = os.pipe()
                ours.append(read_end)
                theirs.append(write_end)
                actions.append((os.POSIX_SPAWN_DUP2, write_end, stream))
                self._outputs[stream] = read_end
            actions.append((os.POSIX_SPAWN_DUP2, directory, 9))
            for descriptor in ours:
                os.set_blocking(descriptor, False)
            return os.posix_spawn(command[0], command, _ENVIRONMENT, file_actions=actions)
        except BaseException:
            for descriptor in ours:
                os.close(descriptor)
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    @property
    def pid(self) -> int:
        """The command's process on this machine; 0 when there is none (yet)."""
        if self.exit_code.done():
            return 0
        try:
            return int(self._pid_file.read_text())
        except (OSError, ValueError):
            return 0

    async def started(self) -> None:
        """Return when the command runs, or the attempt has ended."""
        while not self.pid and not self.exit_code.done():
            await asyncio.wait((self.exit_code,), timeout=0.005)

    # --- streams ----------------------------------------------------------------------------------------

    async def output(self) -> AsyncGenerator[tuple[int, bytes], None]:
        """Stream and data, until the command has ended and all is read."""
        if self._tty:
            await asyncio.wait((self._terminal, self.exit_code), return_when=asyncio.FIRST_COMPLETED)
        queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(4)
        readers = [
            asyncio.create_task(self._pass_on(stream, descriptor, queue))
            for stream, descriptor in self._outputs.items()
        ]
        ended = asyncio.create_task(self._all_said(readers, queue))
        getting = asyncio.create_task(queue.get())
        try:
            while True:
                await asyncio.wait((getting, ended), return_when=asyncio.FIRST_COMPLETED)
                if not getting.done() and queue.empty():
                    return
                await getting
                yield getting.result()
                getting = asyncio.create_task(queue.get())
        finally:
            for task in (*readers, ended, getting):
                task.cancel()
            await asyncio.gather(*readers, ended, getting, return_exceptions=True)

    async def _all_said(
        self, readers: Sequence["asyncio.Task[None]"], queue: "asyncio.Queue[tuple[int, bytes]]"
    ) -> None:
        """Return when all is read, or nothing has come for a while after the command's end."""
        await asyncio.wait((self.exit_code,))
        passed = -1
        while not all(reader.done() for reader in readers):
            if passed == self._passed and queue.empty():
                return
            passed = self._passed
            await asyncio.wait(readers, timeout=_LINGER)

    async def _pass_on(self, stream: int, descriptor: int, queue: "asyncio.Queue[tuple[int, bytes]]") -> None:
        while data := await self._read(descriptor):
            await self.started()
            if self.failure:
                return  # these are the OCI runtime's words, which `failure` holds
            await queue.put((stream, data))
            self._passed += 1

    async def _read(self, descriptor: int) -> bytes:
        while True:
            try:
                return os.read(descriptor, _CHUNK)
            except BlockingIOError:
                await self._ready(descriptor, self._loop.add_reader, self._loop.remove_reader)
            except OSError:  # EIO: nobody has the terminal any more
                return b""

    def drain(self) -> None:
        """Read and forget what it writes: nobody is there."""
        self._draining = asyncio.create_task(self._drain())

    async def leave(self) -> None:
        """Whoever was at its streams has gone; a command that still runs goes on, as with dockerd."""
        if self.exit_code.done():
            self.close()
        else:
            await self.close_input()
            self.drain()

    async def release(self) -> None:
        """The daemon ends: nobody reads any more what it writes."""
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.gather(self._draining, return_exceptions=True)

    async def _drain(self) -> None:
        async for _ in self.output():
            pass
        self.close()

    async def write(self, data: bytes) -> None:
        """Input for the command; lost when it reads no more."""
        if self._tty:
            await asyncio.wait((self._terminal, self.exit_code), return_when=asyncio.FIRST_COMPLETED)
        while data and self._input is not None:
            try:
                data = data[os.write(self._input, data) :]
            except BlockingIOError:
                await self._ready(self._input, self._loop.add_writer, self._loop.remove_writer)
            except OSError:
                return

    @staticmethod
    async def _ready(descriptor: int, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        add(descriptor, _settle, ready)
        try:
            await ready
        finally:
            remove(descriptor)

    async def close_input(self) -> None:
        """There will be no more input. A terminal stays open."""
        if not self._tty and self._input is not None:
            os.close(self._input)
            self._input = None

    def resize(self, height: int, width: int) -> None:
        """Set the terminal's size, now or when there is one."""
        self._size = (height, width)
        terminal = self._outputs.get(STDOUT) if self._tty else None
        if terminal is not None:
            with suppress(OSError):
                fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    # --- end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of its streams; a command that still runs goes on without."""
        descriptors = set(self._outputs.values())
        if self._input is not None:
            descriptors.add(self._input)
        for descriptor in descriptors:
            os.close(descriptor)
        self._outputs.clear()
        self._input = None
        self._close_console()

    def kill(self) -> None:
        """End the OCI runtime's process; the command ends with its container."""
        if not self.exit_code.done():
            send_signal(self._pidfd, _KILL)

    def _accept(self) -> None:
        assert self._console is not None
        connection, _ = self._console.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(struct.calcsize("i")))
        self._close_console()
        descriptors = array.array("i")
        for _, _, data in ancillary:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        if not descriptors:
            return
        terminal = descriptors[0]
        os.set_blocking(terminal, False)
        os.set_inheritable(terminal, False)
        self._outputs[STDOUT] = self._input = terminal
        if self._size is not None:
            self.resize(*self._size)
        self._terminal.set_result(None)

    def _close_console(self) -> None:
        if self._console is not None:
            self._loop.remove_reader(self._console)
            self._console.close()
            self._console = None

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code and not self._pid_file.exists():
            code = self._explain_failure()
        self.exit_code.set_result(128 - code if code < 0 else code)
        for path in self._files:
            path.unlink(missing_ok=True)

    def _explain_failure(self) -> int:
        """Why there never was a process; dockerd's exit code for it."""
        try:
            said = explain(self._log.read_text(errors="replace"))
        except OSError:
            said = ""
        self.failure = said or "the OCI runtime gave no reason"
        return start_exit_code(self.failure)


def _settle(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def _listen(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.bind(f"/proc/self/fd/{directory}/{path.name}")
        sock.listen(1)
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(directory)
    sock.setblocking(False)
    return sock
