"""What Raft knows about itself, for the API and for reachability."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """Another member as this node sees it."""

    node_id: str
    address: str
    connected: bool
    match_index: int = 0
    """On the leader: the log is known to agree up to here."""
    since_contact: int | None = None
    """On the leader: nanoseconds since it last answered; None on others."""
    full: bool = False
    """On the leader: its disk has no room for the log."""
    since_heard: int | None = None
    """Nanoseconds since its last message; without a leader all that are up ask each other for votes."""
    learner: bool = False
    """It receives the log and has no vote yet."""


@dataclass(frozen=True, slots=True)
class RaftStatus:
    """One node's view; the members are those in effect, committed or not."""

    node_id: str
    leader_id: str | None = None
    is_leader: bool = False
    term: int = 0
    last_index: int = 0
    commit_index: int = 0
    snapshot_index: int = 0
    journal_bytes: int = 0
    removed: bool = False
    """This node's removal has been committed; it takes no further part."""
    no_room: str = ""
    """Why this node's disk has no room for the log, and what to do; empty when it has."""
    members: dict[str, str] = field(default_factory=dict)
    peers: tuple[PeerStatus, ...] = ()
    member: bool = False
    """Whether this node votes by its log, committed or not."""
    generation: int = 0
    """How many times a new cluster was forced."""
    since_leader: int | None = None
    """On others than the leader: nanoseconds since they heard it; None when they know of no leader."""
