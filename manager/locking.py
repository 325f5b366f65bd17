"""Autolock in a manager: follows what the cluster wants, and lets the node daemon know of it first.

The daemon keeps the unlock key in memory for the manager's next start, and encrypts the node's TLS key with
it. At any instant it knows every key that may be in force, so that a crash of either leaves nothing that no
known key opens: it learns of a key before the manager's files are locked with it, and that the former one is
void when they are.
"""

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Protocol

import msgspec

from cluster.errors import ShoalError, Unavailable
from cluster.objects import Cluster
from cluster.seams import SECOND, Clock
from manager.keys.locks import UNLOCKED, Lock, format_unlock_key, lock_of, parse_unlock_key
from manager.raft import Raft
from manager.store import Store, WatchLagged

log = logging.getLogger("shoal.locking")

RETRY = SECOND
ANSWER_WITHIN = 15.0


def with_lock(locks: Sequence[Lock], lock: Lock) -> tuple[Lock, ...]:
    """The locks that may be in force, with another one; once, however often it is tried."""
    return (*(each for each in locks if each != lock), lock)


class KeyKeeper(Protocol):
    """Who starts the manager again, and must know how to unlock it then."""

    locks: tuple[Lock, ...]
    """All that may be in force."""

    async def prepare(self, lock: Lock) -> None:
        """From now on this lock may be in force as well. Raises ShoalError, OSError, TimeoutError."""

    async def settle(self, lock: Lock) -> None:
        """From now on this lock alone is in force. Raises OSError."""


class NoKeeper:
    """For a manager that was not started by a daemon: it alone remembers."""

    def __init__(self) -> None:
        self.locks: tuple[Lock, ...] = (UNLOCKED,)

    async def prepare(self, lock: Lock) -> None:
        """Remember."""
        self.locks = with_lock(self.locks, lock)

    async def settle(self, lock: Lock) -> None:
        """Remember."""
        self.locks = (lock,)


class LockFollower:
    """Locks this manager's files as the cluster object says. Runs on every manager."""

    def __init__(self, store: Store, raft: Raft, keeper: KeyKeeper, clock: Clock) -> None:
        self._store = store
        self._raft = raft
        self._keeper = keeper
        self._clock = clock
        self._in_doubt = False
        """Whether a change failed that may have reached the disk: then no key is void."""

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                if not self._in_doubt:  # a rotation may have broken off just before this
                    await self._keeper.settle(self._raft.lock)
                _, watch = self._store.watch(Cluster)
                with watch:
                    await self._follow()
                    async for _ in watch:
                        await self._follow()
            except WatchLagged:
                continue
            except (ShoalError, OSError, TimeoutError) as error:
                log.error("can't lock this manager's keys as the cluster wants", extra={"reason": str(error)})
            await self._clock.sleep(RETRY)

    async def _follow(self) -> None:
        cluster = self._store.view().cluster()
        if cluster is None:
            return
        wanted, present = lock_of(cluster), self._raft.lock
        if wanted.version <= present.version or (wanted.key == present.key and not self._in_doubt):
            return  # older, as this manager is still reading its log; or as it is
        await self._keeper.prepare(wanted)
        self._in_doubt = True
        await self._raft.change_lock(wanted)
        self._in_doubt = False
        await self._keeper.settle(wanted)
        log.info("autolock is %s", "on, with a new unlock key" if wanted.key else "off")


# --- the pipe to the node daemon --------------------------------------------------------------------------


class LockMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of JSON between a manager and its daemon.

    daemon → manager: `locks` at the start; `done`, or `error`, when it has prepared.
    manager → daemon: `prepare` or `settle`.
    """

    locks: list["WireLock"] = []
    prepare: "WireLock | None" = None
    settle: "WireLock | None" = None
    done: bool = False
    error: str = ""


class WireLock(msgspec.Struct, frozen=True, omit_defaults=True):
    """A lock in text."""

    key: str = ""
    version: int = 0

    @classmethod
    def of(cls, lock: Lock) -> "WireLock":
        """As text."""
        return cls(format_unlock_key(lock.key) if lock.key else "", lock.version)

    def lock(self) -> Lock:
        """Read it. Raises InvalidArgument."""
        return Lock(parse_unlock_key(self.key) if self.key else None, self.version)


def encode_message(message: LockMessage) -> bytes:
    """As a line."""
    return msgspec.json.encode(message) + b"\n"


def decode_message(line: bytes) -> LockMessage:
    """Read a line. Raises Unavailable when the other end has closed, or wrote something else."""
    try:
        return msgspec.json.decode(line, type=LockMessage)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unavailable("the pipe between the manager and its daemon is broken") from error


class DaemonPipe:
    """The node daemon as KeyKeeper."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.locks: tuple[Lock, ...] = (UNLOCKED,)

    @classmethod
    async def open(cls, descriptor: int) -> "DaemonPipe":
        """Take the socket that the daemon left open, and hear what locks this manager. Raises Unavailable."""
        pipe = cls(*await asyncio.open_connection(sock=socket.socket(fileno=descriptor)))
        try:
            first = decode_message(await pipe._reader.readline())
            pipe.locks = tuple(lock.lock() for lock in first.locks)
        except BaseException:
            pipe.close()
            raise
        return pipe

    async def prepare(self, lock: Lock) -> None:
        """Returns when the daemon has it."""
        async with asyncio.timeout(ANSWER_WITHIN):
            await self._tell(LockMessage(prepare=WireLock.of(lock)))
            answer = decode_message(await self._reader.readline())
        if answer.error:
            raise Unavailable(f"the node's daemon can't keep the unlock key: {answer.error}")
        self.locks = with_lock(self.locks, lock)

    async def settle(self, lock: Lock) -> None:
        """Tell it."""
        await self._tell(LockMessage(settle=WireLock.of(lock)))
        self.locks = (lock,)

    async def _tell(self, message: LockMessage) -> None:
        self._writer.write(encode_message(message))
        await self._writer.drain()

    def close(self) -> None:
        """Close the socket."""
        self._writer.close()
