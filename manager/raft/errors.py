"""What can go wrong with a proposal, a read or a start, as types that callers tell apart."""

from cluster.errors import InvalidArgument, ShoalError, Unavailable


class NotLeader(Unavailable):
    """This manager doesn't lead, and what was asked has definitely not been done."""

    def __init__(self, leader_id: str | None) -> None:
        self.leader_id = leader_id
        super().__init__(
            f"this manager is not the leader; ask manager {leader_id}"
            if leader_id
            else "the cluster has no leader at present: more than half of its managers must be reachable"
        )


class OutcomeUnknown(Unavailable):
    """Leadership was lost, or this manager stopped, with the entry under way: it may or may not apply."""

    def __init__(self, reason: str = "the leader changed before the write was confirmed") -> None:
        super().__init__(
            f"{reason}, so it may or may not have taken effect: look at the current state before trying again"
        )


class Overloaded(Unavailable):
    """Too many proposals are waiting; this one has definitely not been done."""

    def __init__(self) -> None:
        super().__init__("too many writes are waiting for the managers' agreement: try again shortly")


class NoRoom(Unavailable):
    """The disks of this manager, or of a majority, are full; this has definitely not been done (507)."""

    status = 507


class TooLarge(InvalidArgument):
    """The entry is larger than Raft carries; definitely not done."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a write of {size} bytes is larger than the limit of {limit} bytes")


class RaftCorrupt(ShoalError):
    """What is on disk can't be trusted, so this manager refuses to start rather than forget a promise."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}. This manager must not take part with damaged state: remove it from the cluster on "
            "another manager (docker node demote, then node rm), empty its Raft directory and join again as "
            "a new node; if it is the only manager, restore the directory from a backup"
        )


class FailStop(Exception):
    """Raised after the fail-stop handler has been told, to unwind; the node does nothing more."""
