"""What a node does while its disk, or those of too many others, have no room for the log (see room.py)."""

import logging

from cluster.seams import SECOND
from manager.raft.changes import HAND_OVER, MemberChanges
from manager.raft.errors import NoRoom
from manager.raft.hooks import LEADER
from manager.raft.peer import Peer

log = logging.getLogger("shoal.raft")

AGAIN = 5 * SECOND
"""Until a full leader that nobody relieved tries once more."""


class SteppingAside(MemberChanges):
    """The leader's side: whom to hand over to, what to refuse. The follower's side is in following.py."""

    _relief_at = 0

    def no_room(self) -> NoRoom | None:
        """Why nothing can be written at present; None when it can."""
        if self._room.full:
            return NoRoom(f"the leading manager, {self.selfNode.id}, can't keep a write: {self._room.reason}")
        voters = self.voters()
        full = self._full & voters
        managers = len(voters) + 1
        if (managers - len(full)) * 2 > managers:
            return None
        names = ", ".join(sorted(peer.id for peer in full))
        return NoRoom(
            f"the disks of managers {names} are full, so no majority can keep a write: free space there, and "
            "they go on by themselves"
        )

    def _step_aside(self) -> None:
        """A leader whose disk is full hands leadership to one whose disk is not."""
        if not self._room.full or self.state() != LEADER or self._hand_over:
            return
        now = self._clock.monotonic()
        if now < self._relief_at:
            return
        heirs = (self.voters() & self.connected()) - self._full
        if not heirs:
            return
        self._relief_at = now + HAND_OVER + AGAIN
        heir: Peer = max(heirs, key=lambda peer: (self.match_index()[peer], peer.id))
        log.warning("the disk is full: handing leadership over", extra={"peer": heir.id})
        self._hand_over = (heir, now + HAND_OVER)
        self._hand_over_sent = 0
