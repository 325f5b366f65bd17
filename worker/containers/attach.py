"""A container's standard streams, through its monitor's socket.

conmon serves one SEQPACKET socket for each container: every message that it sends is a byte (2 stdout,
3 stderr) and output; what it is sent is the container's input. Who attaches before the container runs
misses nothing, because he is connected between its creation and its start.
"""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

from worker.containers.stream import STDERR, STDOUT
from worker.runtime.oci import OCIRuntime

_LARGEST = 64 << 10
_INPUT = 8 << 10
"""conmon cuts longer messages off."""
_STREAMS = {2: STDOUT, 3: STDERR}


class Attached:
    """Somebody's connection to a container's streams; at first perhaps only the wish for one."""

    def __init__(self) -> None:
        self.connected: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()

    async def output(self) -> AsyncGenerator[tuple[int, bytes], None]:
        """What the container writes from now on: stream and data, until it has ended."""
        sock = await asyncio.shield(self.connected)
        loop = asyncio.get_running_loop()
        while message := await _receive(loop, sock):
            yield _STREAMS.get(message[0], STDOUT), message[1:]

    async def write(self, data: bytes) -> None:
        """Input for the container."""
        sock = await asyncio.shield(self.connected)
        loop = asyncio.get_running_loop()
        for start in range(0, len(data), _INPUT):
            await loop.sock_sendall(sock, data[start : start + _INPUT])

    async def close_input(self) -> None:
        """There will be no more input."""
        sock = await asyncio.shield(self.connected)
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # its monitor has gone already

    def close(self) -> None:
        """Let go of the container."""
        if self.connected.done() and not self.connected.cancelled():
            self.connected.result().close()
        else:
            self.connected.cancel()


async def _receive(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    try:
        return await loop.sock_recv(sock, _LARGEST)
    except ConnectionError:
        return b""


class Attachments:
    """Everybody's connections. A container that is about to run gets those that wait for it."""

    def __init__(self, runtime: OCIRuntime) -> None:
        self._runtime = runtime
        self._waiting: dict[str, list[Attached]] = {}

    def attach(self, id: str, *, running: bool) -> Attached:
        """Connect to a running container; to any other as soon as it is started."""
        attached = Attached()
        if running:
            attached.connected.set_result(_connect(self._runtime.attach_path(id)))
        else:
            self._waiting.setdefault(id, []).append(attached)
        return attached

    def forget(self, id: str, attached: Attached) -> None:
        """Nobody wants it any more."""
        waiting = self._waiting.get(id, [])
        if attached in waiting:
            waiting.remove(attached)
        if not waiting:
            self._waiting.pop(id, None)
        attached.close()

    def created(self, id: str, loop: asyncio.AbstractEventLoop) -> None:
        """A container is there and does not run yet: connect who waits for it. Any thread may call it."""
        for attached in self._waiting.pop(id, ()):
            sock = _connect(self._runtime.attach_path(id))
            loop.call_soon_threadsafe(_hand_over, attached, sock)

    def removed(self, id: str) -> None:
        """A container is gone: nobody will ever be connected to it."""
        for attached in self._waiting.pop(id, ()):
            attached.close()


def _hand_over(attached: Attached, sock: socket.socket) -> None:
    if attached.connected.done():
        sock.close()
    else:
        attached.connected.set_result(sock)


def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        # A socket's path has 107 bytes at most, which a deep run directory exceeds.
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
