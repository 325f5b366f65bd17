"""A manager's first words to the others: let me vote."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp
import msgspec

from cluster.errors import ShoalError, Unavailable
from cluster.identity import Identity
from cluster.seams import SECOND, Clock
from manager.api.app import NOT_DONE
from manager.rpc.tls import MANAGER_NAME, client_context

log = logging.getLogger("shoal.rpc")

PATIENCE = 25 * SECOND
RETRY = SECOND // 4
TIMEOUT = aiohttp.ClientTimeout(total=15, sock_connect=2)


class JoinRefused(ShoalError):
    """The managers know this node and won't have it; the status is theirs."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the managers refused this manager: {message}")
        self.status = status


class Answered(NamedTuple):
    """A manager's answer. not_done: it has certainly not acted, because it does not lead (any more)."""

    status: int
    text: str
    not_done: bool


Post = Callable[[str, str, bytes], Awaitable[Answered]]
"""POST to a manager at "ip:port": path, content. Raises OSError or TimeoutError when no answer comes."""


@asynccontextmanager
async def posting(identity: Identity) -> AsyncIterator[Post]:
    """Requests over mutual TLS."""
    connector = aiohttp.TCPConnector(ssl=client_context(identity))
    async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as http:

        async def post(manager: str, path: str, content: bytes) -> Answered:
            url = f"https://{manager}{path}"
            try:
                async with http.post(url, data=content, server_hostname=MANAGER_NAME) as answer:
                    return Answered(answer.status, await answer.text(), NOT_DONE in answer.headers)
            except aiohttp.ClientError as error:
                raise ConnectionError(f"{error or type(error).__name__}") from error

        yield post


async def ask_to_be_member(
    node_id: str,
    address: str,
    managers: Sequence[str],
    post: Post,
    clock: Clock,
    patience: int = PATIENCE,
) -> None:
    """Ask one manager after the other to make this node a voting member of Raft.

    Returns when it is one; tries for `patience` nanoseconds. Raises JoinRefused, or Unavailable.
    """
    deadline = clock.monotonic() + patience
    reason = "no manager is known"
    while True:
        for manager in managers:
            try:
                answer = await post(
                    manager, f"/raft/join/{node_id}", msgspec.json.encode({"address": address})
                )
            except (OSError, TimeoutError) as error:
                reason = f"{manager}: {str(error) or type(error).__name__}"
            else:
                if answer.status < 400:
                    return
                if answer.status < 500 and not answer.not_done:
                    raise JoinRefused(answer.status, answer.text)
                reason = answer.text
            log.info("not a member yet", extra={"manager": manager, "reason": reason})
        if clock.monotonic() >= deadline:
            raise Unavailable(f"no manager made this one a member: {reason}")
        await clock.sleep(RETRY)
