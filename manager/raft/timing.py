"""How fast Raft notices failures, and how large its files may grow."""

from dataclasses import dataclass

from cluster.seams import MILLISECOND

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class RaftTiming:
    """Intervals in nanoseconds.

    A follower that hears no leader for a random time between election_min and election_max asks for votes;
    the leader sends heartbeats; a leader that hears no majority for quorum_timeout steps down.
    """

    election_min: int
    election_max: int
    heartbeat: int
    quorum_timeout: int

    @classmethod
    def local(cls) -> "RaftTiming":
        """For managers on one network: writes resume about half a second after the leader dies."""
        return cls(350 * MILLISECOND, 700 * MILLISECOND, 50 * MILLISECOND, 700 * MILLISECOND)

    @classmethod
    def wan(cls) -> "RaftTiming":
        """Three times wider, for managers in different places."""
        return cls(1050 * MILLISECOND, 2100 * MILLISECOND, 150 * MILLISECOND, 2100 * MILLISECOND)


@dataclass(frozen=True, slots=True)
class RaftLimits:
    """Sizes, in entries and bytes."""

    max_entry: int = 4 * MIB
    """The largest entry that can be proposed."""
    max_pending: int = 4096
    max_pending_bytes: int = 64 * MIB
    """Proposals of this manager that wait for commit; more are refused."""
    batch: int = 8 * MIB
    """Entries in one message to a follower; a message can exceed it by one entry."""
    compact_entries: int = 10_000
    compact_bytes: int = 64 * MIB
    """A snapshot is taken when the log holds more entries or its file is larger."""
    reserve: int = 0
    """Bytes kept free on the disk for a node that must step aside because it is full (room.py); 0: none."""
    keep_entries: int = 500
    keep_bytes: int = 16 * MIB
    """What stays in the log after a snapshot, so that a follower slightly behind needs no snapshot."""
