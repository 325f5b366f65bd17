"""Who leads: terms, pre-votes before an election, and what to do without a leader.

Stock pysyncobj counts the votes. What comes before is here: a node that a majority wouldn't elect must not
unseat a working leader.
"""
# ruff: noqa: N802

from collections.abc import Callable
from typing import NoReturn

from cluster.seams import Random
from manager.raft.asking import Asking
from manager.raft.fence import LeftBehind
from manager.raft.hooks import LEADER
from manager.raft.membership import parse_change
from manager.raft.peer import Peer
from manager.raft.timing import RaftTiming
from manager.raft.wire import RequestPreVote

LOST_AFTER = 4
"""Times the longest election timeout."""


class Elections(Asking):
    """Following the one who leads, and standing for election. RaftNode supplies the parts named here."""

    _random: Random
    _timing: RaftTiming
    _fail_stop: Callable[[str], NoReturn]
    _config: dict[str, str]
    _removed: bool
    _generation: int
    """Of forced new clusters, as committed here."""
    left_behind: LeftBehind | None
    """Set when one goes on without this node: it takes no further part."""

    def _prepare(self) -> None:
        super()._prepare()
        self._heard_leader = self.now()
        self._heard_from: dict[str, float] = {}
        self._had_leader = False
        self._canvass: _Canvass | None = None
        self._peers.lost = self._lost

    # -- following

    def _follow(self, peer: Peer, term: int) -> None:
        """The peer leads in this term, which is not older than ours."""
        if term > self.raftCurrentTerm:
            self.end_transfer()
        elif self.state() == LEADER:
            self._fail_stop(f"node {peer.id} claims to lead in term {term}, in which this node leads")
        self._heard_leader = self.now()
        self._canvass = None
        if not self.transferring():
            self.postpone_election()
        if term > self.raftCurrentTerm:
            self.set_term(term)
        self._had_leader = True
        self.set_leader(peer)
        self.become_follower()

    def _step_down(self, term: int) -> None:
        self.set_term(term)
        self.become_follower()
        self.set_leader(None)
        self.postpone_election()

    def _hears_leader(self) -> bool:
        silent = self.now() - self._heard_leader
        return self.state() == LEADER or (self.leader() is not None and silent < self.conf.raftMinTimeout)

    def _lost(self) -> bool:
        """No leader for so long that the members known here may have been replaced."""
        silent = self.now() - self._heard_leader
        return self.state() != LEADER and silent > LOST_AFTER * self.conf.raftMaxTimeout

    def _settle_guests(self) -> None:
        """With a leader again, keep those that turned out to be members, or the leader, and drop the rest."""
        leader = self.leader()
        for guest in list(self._peers.guests.values()):
            if guest in self.voters():
                del self._peers.guests[guest.id]
            elif leader not in (None, guest) and not self._lost():
                del self._peers.guests[guest.id]
                self._peers.dropNode(guest)

    # -- standing for election

    def _standing(self) -> int:
        """The generation of forced new clusters that this node is a member in by its log, or -1."""
        members, generation = self._config, self._generation
        for entry in self.journal().from_index(self.raftLastApplied + 1):
            change = parse_change(entry[0])
            if change is not None:
                members = change.apply_to(members)
                generation = max(generation, change.generation)
        return generation if self.selfNode.id in members else -1

    def _may_vote(self) -> bool:
        """Not with an empty log, unless the cluster begins with this node: it may have been a member before,
        with another disk, which one who has not heard of that still counts on."""
        return self.journal().last_index() > 1 or self._standing() >= 0

    def _SyncObj__connectedToAnyone(self) -> bool:
        """pysyncobj asks this just before an election, and nowhere else: hold one only after a pre-vote.

        A node that a majority wouldn't elect must not raise the term, or it would unseat a working leader
        whenever it comes back.
        """
        voters = self.voters()
        if self._removed or self.left_behind is not None or self._standing() < 0:
            return False
        if voters and self._room.full and not self._lost():
            self.end_transfer()  # one of the others can lead better; if none does, this one can still be read
            return False
        if not voters or self.transferring():
            return True
        term = self.raftCurrentTerm + 1
        canvass = self._canvass
        if canvass is not None and canvass.term == term:
            if (len(canvass.granted & voters) + 1) * 2 > len(voters) + 1:
                self._canvass = None
                return True
            if self.now() < canvass.until:
                return False
        self._canvass = _Canvass(term, self.now() + 0.1 + 0.1 * self._random.random())
        self.set_leader(None)
        last = self.journal()[-1]
        for peer in voters:
            self._send(peer, RequestPreVote(term, last[1], last[2]))
        return False

    def _SyncObj__generateRaftTimeout(self) -> float:
        low, high = self._timing.election_min, self._timing.election_max
        return (low + (high - low) * self._random.random()) / 1e9


class _Canvass:
    """Who would vote for us in a term."""

    def __init__(self, term: int, until: float) -> None:
        self.term = term
        self.until = until
        self.granted: set[Peer] = set()
