"""Carries bytes between a client and a process with standard streams: the same for attach and exec."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Protocol

from cluster.errors import InvalidArgument
from worker.api.http import frame

DETACH = b"\x10\x11"
"""Control-P, Control-Q: docker's keys to leave a terminal."""


class Client(Protocol):
    """Who has attached."""

    async def read(self) -> bytes:
        """What it has sent; empty once it has closed its side."""

    async def write(self, data: bytes) -> None:
        """Send to it. ConnectionError when it has gone."""

    async def gone(self) -> None:
        """Return when it is not there any more, after it has closed its side."""


class Streams(Protocol):
    """A process's standard streams."""

    def output(self) -> AsyncGenerator[tuple[int, bytes], None]:
        """What it writes: stream and data, to its end."""

    async def write(self, data: bytes) -> None:
        """Input for it."""

    async def close_input(self) -> None:
        """There will be no more input."""


def detach_keys(text: str) -> bytes:
    """The bytes of `ctrl-p,ctrl-q`, `ctrl-a,d`, …. InvalidArgument for what is no key."""
    if not text:
        return DETACH
    keys = bytearray()
    for key in text.split(","):
        name = key.lower()
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif len(name) == 6 and name.startswith("ctrl-") and "@" <= name[5].upper() <= "_":
            keys.append(ord(name[5].upper()) & 0x1F)
        else:
            raise InvalidArgument(f"invalid detach keys ({text}) provided: unknown character '{key}'")
    return bytes(keys)


class Detached(Exception):
    """The user typed the keys; `before` is what is still to be passed on."""

    def __init__(self, before: bytes) -> None:
        super().__init__()
        self.before = before


class Escape:
    """Finds the keys in what is typed; holds back what may be their beginning."""

    def __init__(self, keys: bytes) -> None:
        self._keys, self._held = keys, b""

    def feed(self, data: bytes) -> bytes:
        """What the process is to get. Raises Detached."""
        data = self._held + data
        if self._keys in data:
            raise Detached(data.partition(self._keys)[0])
        most = min(len(self._keys) - 1, len(data))
        held = next((n for n in range(most, 0, -1) if data.endswith(self._keys[:n])), 0)
        passed, self._held = data[: len(data) - held], data[len(data) - held :]
        return passed


@dataclass(frozen=True)
class Pair:
    """A process's streams, and what a client wants of them: `raw` without frames, which `streams` (1, 2)."""

    process: Streams
    raw: bool
    stdin: bool
    streams: frozenset[int]


async def carry(client: Client, pair: Pair, *, keys: bytes | None) -> None:
    """Until the process's output ends, the client goes, or the user types `keys` (of a terminal)."""
    process = pair.process

    async def down() -> None:
        # Closed at once: who drains the process afterwards must be the only one that waits for its output.
        async with aclosing(process.output()) as output:
            async for stream, data in output:
                if stream in pair.streams:
                    await client.write(data if pair.raw else frame(stream, data))

    async def up() -> None:
        escape = Escape(keys) if keys else None
        try:
            while data := await client.read():
                if pair.stdin:
                    await process.write(escape.feed(data) if escape else data)
        except Detached as left:
            await process.write(left.before)
            raise
        if pair.stdin:
            await process.close_input()

    leaving: asyncio.Task[None] | None = None
    downward, upward = asyncio.create_task(down()), asyncio.create_task(up())
    try:
        await asyncio.wait((downward, upward), return_when=asyncio.FIRST_COMPLETED)
        if upward.done() and not isinstance(upward.exception(), Detached):
            leaving = asyncio.create_task(client.gone())
            await asyncio.wait((downward, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (downward, upward, *((leaving,) if leaving else ())):
            task.cancel()
            with suppress(asyncio.CancelledError, OSError, Detached):
                await task
