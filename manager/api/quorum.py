"""No manager is taken away without which the others could not go on."""

from collections.abc import Awaitable, Callable

from cluster.errors import InvalidArgument
from cluster.seams import MILLISECOND, SECOND, Clock
from manager.api.access import Managers

PATIENCE = SECOND
"""A leader that has just taken over has not heard from everybody yet; whoever is there answers sooner."""
RETRY = 50 * MILLISECOND


async def check_quorum_without(
    node_id: str, managers: Callable[[], Awaitable[Managers]], clock: Clock
) -> None:
    """Refuse a removal after which the reachable managers would be no majority of those left.

    `managers`: by the leader's word, asked again for a moment. Raises InvalidArgument.
    """
    deadline = clock.monotonic() + PATIENCE
    while True:
        now = await managers()
        left = now.members - {node_id}
        reachable, needed = len(left & now.reachable), len(left) // 2 + 1
        if node_id not in now.members or reachable >= needed:
            return
        if clock.monotonic() >= deadline:
            raise InvalidArgument(
                "can't remove member from the raft: this would result in a loss of quorum. "
                f"Only {reachable} of the other {len(left)} managers can be reached, {needed} are needed: "
                "bring one back first (docker node ls shows who is missing), or promote another node"
            )
        await clock.sleep(RETRY)
