"""The daemon's end of the pipe over which a manager learns its unlock key, and tells of changes to it."""

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Protocol

from cluster.errors import ShoalError
from manager.keys.locks import Lock
from manager.locking import LockMessage, WireLock, decode_message, encode_message, with_lock

log = logging.getLogger("shoal.daemon.lock")


class Locks(Protocol):
    """What the daemon knows of its manager's lock."""

    @property
    def locks(self) -> Sequence[Lock]:
        """All that may be in force."""

    def keep_locks(self, locks: Sequence[Lock]) -> None:
        """Remember these instead, and encrypt the TLS key accordingly. Raises OSError, ShoalError."""


async def serve_locks(ours: socket.socket, locks: Locks) -> None:
    """Serve one manager process until it closes its end."""
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        writer.write(encode_message(LockMessage(locks=[WireLock.of(lock) for lock in locks.locks])))
        while line := await reader.readline():
            message = decode_message(line)
            if message.prepare is not None:
                writer.write(encode_message(_prepared(locks, message.prepare.lock())))
                await writer.drain()
            elif message.settle is not None:
                locks.keep_locks((message.settle.lock(),))
    except (OSError, ShoalError, ValueError) as error:  # ValueError: a line without an end
        log.error("the manager's lock can't be kept up with", extra={"reason": str(error)})
    finally:
        writer.close()


def _prepared(locks: Locks, lock: Lock) -> LockMessage:
    try:
        locks.keep_locks(with_lock(locks.locks, lock))
    except (OSError, ShoalError) as error:
        return LockMessage(error=str(error))
    return LockMessage(done=True)
