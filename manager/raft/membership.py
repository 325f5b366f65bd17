"""Members of the cluster as log entries, and peers that learn the log before they may vote."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from manager.raft.delivery import Waiter
from manager.raft.peer import Peer

REGULAR, NO_OP, MEMBER = b"\0", b"\1", b"\2"
"""First byte of a log entry, as pysyncobj numbers them."""


class Change(msgspec.Struct, array_like=True, frozen=True):
    """Adds or removes one voting member, moves it to another address, or (force) makes it the only one."""

    kind: Literal["add", "rem", "move", "force"]
    node_id: str
    address: str
    before: str = ""
    """For a move: the address so far."""
    generation: int = 0
    """For a forced new cluster: how many there have been. Members of an earlier one are left behind."""

    def command(self) -> bytes:
        """The change as a log entry."""
        return MEMBER + msgspec.msgpack.encode(self)

    def engine_request(self) -> tuple[str, str, Peer]:
        """An addition or removal as pysyncobj wants it."""
        return (self.kind, self.node_id, Peer(self.node_id, self.address))

    def apply_to(self, members: dict[str, str]) -> dict[str, str]:
        """The members after it."""
        changed = dict(members)
        if self.kind == "add":
            changed.setdefault(self.node_id, self.address)
        elif self.kind == "rem":
            changed.pop(self.node_id, None)
        elif self.kind == "force":
            changed = {self.node_id: self.address}
        elif self.node_id in changed:
            changed[self.node_id] = self.address
        return changed


def parse_change(command: bytes) -> Change | None:
    """The change in a log entry, or None for any other entry."""
    if command[:1] != MEMBER:
        return None
    return msgspec.msgpack.decode(command[1:], type=Change)


@dataclass(slots=True)
class Learner:
    """A peer that receives the log until it is close enough to vote without stalling the others."""

    peer: Peer
    waiter: Waiter
    deadline: int
    left_at: int
    """The entry that took its vote away, if it was a member before. Its disk is a new one, and remembers no
    votes: were it to learn that it was once a member it would stand, vote, and alone even lead by that. So it
    begins with a snapshot that is not older."""


@dataclass(slots=True)
class Move:
    """A member that says it has another address; it must answer there before the others are told."""

    peer: Peer
    waiter: Waiter
    deadline: int
