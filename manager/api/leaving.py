"""POST /internal/leave: this manager leaves the cluster, for the node daemon's `swarm leave`."""

import logging
from typing import Protocol

from aiohttp import web

from cluster.errors import ShoalError, Unavailable
from cluster.seams import SECOND
from manager.api.access import ACCESS, Access, SelfLeads
from manager.api.request import answer, flag

log = logging.getLogger("shoal.api")

PATIENCE = 6 * SECOND
RETRY = SECOND // 5
_MANAGER = "You are attempting to leave the swarm on a node that is participating as a manager. "
_LAST = (
    "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message."
)


class Leaver(Access, Protocol):
    """What leaving needs of the manager, besides."""

    async def ask_leader(self, method: str, path: str) -> None:
        """A call of this manager's own to the leader."""

    async def resign_leadership(self) -> None:
        """Hand leadership over."""

    def members(self) -> dict[str, str]:
        """Raft's members."""


async def leave(request: web.Request) -> web.Response:
    """Give up vote and role. Without `force` a manager is refused, as dockerd does.

    With it the node may go in any case; `Warning` then says what could not be tidied up, for example because
    the others have no quorum.
    """
    manager: Leaver = request.app[ACCESS]  # type: ignore[assignment]
    members = set(manager.members())
    left = len(members - {manager.node_id})
    if not flag(request, "force"):
        raise Unavailable(_MANAGER + (_refusal(left, len(members)) if left else _LAST))
    if not left or manager.node_id not in members:
        return answer({"Warning": ""})
    deadline = manager.clock.monotonic() + PATIENCE
    while True:
        try:
            if manager.leading():
                await manager.resign_leadership()
            await manager.ask_leader("POST", f"/raft/leave/{manager.node_id}")
            return answer({"Warning": ""})
        except (ShoalError, SelfLeads, TimeoutError) as error:
            reason = str(error) or "no other manager took leadership over"
            passing = not isinstance(error, ShoalError) or error.status == Unavailable.status
            if not passing or manager.clock.monotonic() >= deadline:
                log.warning("left without the others' agreement", extra={"reason": reason})
                return answer({"Warning": f"the other managers still count this one as a member: {reason}"})
        await manager.clock.sleep(RETRY)  # an election or another change is under way; asking twice is safe


def _refusal(left: int, members: int) -> str:
    if left >= members // 2 + 1:
        return "Use `--force` to ignore this message."
    return (
        f"Removing this node leaves {left} managers out of {members}. Without a Raft quorum your swarm "
        "will be inaccessible. The only way to restore a swarm that has lost consensus is to reinitialize "
        "it with `--force-new-cluster`. Use `--force` to suppress this message."
    )
