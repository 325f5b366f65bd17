"""The daemon is root and its manager is not: what comes through the pipe between them is looked at."""

import asyncio
import socket
from collections.abc import Sequence

import pytest

from manager.keys.locks import Lock
from shoal.daemon.lock_pipe import serve_locks


class NoLocks:
    """A daemon whose manager has no lock, and that is not asked to keep one."""

    locks: Sequence[Lock] = ()

    def keep_locks(self, locks: Sequence[Lock]) -> None:
        raise AssertionError(locks)


@pytest.mark.parametrize(
    "noise",
    [
        b"\n",
        b"[]\n",
        b"\xff\n",
        b'{"prepare":"\xff"}\n',
        b'{"settle":{"key":"x","version":1}}\n',
        b"x" * 200_000,
        b'{"a":' * 10_000 + b"\n",
    ],
    ids=range(7),
)
async def test_noise_ends_the_conversation_and_nothing_else(noise: bytes) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    serving = asyncio.create_task(serve_locks(ours, NoLocks()))
    reader, writer = await asyncio.open_connection(sock=theirs)
    try:
        writer.write(noise)
        writer.write_eof()
        async with asyncio.timeout(10):
            assert await reader.readline()
            await serving
    finally:
        serving.cancel()
        writer.close()
