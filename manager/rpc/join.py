"""A manager's first words to the others: let me vote."""

import logging
from collections.abc import Sequence

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


async def ask_to_be_member(
    node_id: str,
    address: str,
    managers: Sequence[str],
    identity: Identity,
    clock: Clock,
    patience: int = PATIENCE,
) -> None:
    """Ask one manager after the other to make this node a voting member of Raft.

    Returns when it is one; tries for `patience` nanoseconds. Raises JoinRefused, or Unavailable.
    """
    deadline = clock.monotonic() + patience
    reason = "no manager is known"
    connector = aiohttp.TCPConnector(ssl=client_context(identity))
    async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as http:
        while True:
            for manager in managers:
                try:
                    async with http.post(
                        f"https://{manager}/raft/join/{node_id}",
                        data=msgspec.json.encode({"address": address}),
                        server_hostname=MANAGER_NAME,
                    ) as answer:
                        if answer.status < 400:
                            return
                        text = await answer.text()
                        if answer.status < 500 and NOT_DONE not in answer.headers:
                            raise JoinRefused(answer.status, text)
                        reason = text
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    reason = f"{manager}: {error or type(error).__name__}"
                log.info("not a member yet", extra={"manager": manager, "reason": reason})
            if clock.monotonic() >= deadline:
                raise Unavailable(f"no manager made this one a member: {reason}")
            await clock.sleep(RETRY)
