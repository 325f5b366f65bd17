"""Queries over one TCP connection (RFC 7766): as many as the client likes, also before the answers to earlier
ones; each is answered when its answer is there."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

IDLE = 10.0
"""Seconds that a client may be silent while no answer is under way."""
PENDING = 32
"""Queries of a connection that wait for their answers; more are read later."""


async def serve(connection: socket.socket, respond: Callable[[bytes], Awaitable[bytes]]) -> None:
    """Answer until the client closes or is silent for too long."""
    loop = asyncio.get_running_loop()
    sending = asyncio.Lock()
    places = asyncio.Semaphore(PENDING)

    async def answer(query: bytes) -> None:
        try:
            found = await respond(query)
            if found:
                async with sending, asyncio.timeout(IDLE):
                    await loop.sock_sendall(connection, len(found).to_bytes(2, "big") + found)
        except OSError:  # the client is gone, or takes nothing: TimeoutError is an OSError
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        finally:
            places.release()

    async def receive() -> bytes:
        try:
            async with asyncio.timeout(IDLE):
                return await loop.sock_recv(connection, 65537)
        except OSError:
            return b""

    received = b""
    async with asyncio.TaskGroup() as answering:
        while part := await receive():
            received += part
            while len(received) >= 2 and len(received) >= (end := 2 + int.from_bytes(received[:2], "big")):
                query, received = received[2:end], received[end:]
                await places.acquire()
                answering.create_task(answer(query))
        # The answers that are under way are still sent.
