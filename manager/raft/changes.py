"""Changing the members, one at a time; forcing a new cluster; handing leadership over.

A joining node first learns the log without a vote (as one of pysyncobj's read-only nodes), so that a slow or
unreachable one can't stall the cluster: a vote counts for the majority from the moment it is logged.
"""

import logging

from pysyncobj import FAIL_REASON

from cluster.errors import InvalidArgument, Unavailable
from cluster.seams import MILLISECOND, SECOND
from manager.raft.delivery import Waiter
from manager.raft.errors import NotLeader
from manager.raft.fence import Fence, LeftBehind
from manager.raft.hooks import LEADER
from manager.raft.membership import Change, Learner, Move, parse_change
from manager.raft.peer import Peer
from manager.raft.replication import Replication

log = logging.getLogger("shoal.raft")

LEARNING_TIMEOUT = 30 * SECOND
"""For a joining member to catch up with the log."""
LEARNT = 64
"""A learner this few entries behind may vote."""
MOVING_TIMEOUT = 10 * SECOND
"""For a member to answer at its new address."""
HAND_OVER = 2 * SECOND
"""New proposals wait this long at most while leadership is handed over."""
HAND_OVER_TRIES = 3


class MemberChanges(Replication):
    """Adding, removing, moving, handing over. RaftNode supplies the proposals."""

    _fence: Fence

    def _prepare(self) -> None:
        super()._prepare()
        self._learning: dict[str, Learner] = {}
        self._moving: dict[str, Move] = {}
        self._hand_over: tuple[Peer | None, int] | None = None
        self._hand_over_sent = 0
        self._peers.standing = self._standing
        self._peers.left_behind = self._was_left_behind

    def leader_id(self) -> str | None:
        """Who leads, as far as this node knows."""
        leader = self.leader()
        return leader.id if leader is not None else None

    def _append_own(self, command: bytes, waiter: Waiter) -> None:
        raise NotImplementedError

    # -- membership

    def add_member(self, node_id: str, address: str, waiter: Waiter) -> None:
        """Let a node learn the log, then vote. A member with another address moves there."""
        if self.state() != LEADER:
            self._answer(waiter, NotLeader(self.leader_id()))
        elif node_id in {peer.id for peer in self.voters()} | {self.selfNode.id}:
            self._move_member(node_id, address, waiter)
        elif node_id in self._learning:
            self._answer(waiter, Unavailable(f"manager {node_id} is being added already: try again"))
        else:
            peer = Peer(node_id, address)
            deadline = self._clock.monotonic() + LEARNING_TIMEOUT
            self._learning[node_id] = Learner(peer, waiter, deadline, self._left_at(node_id))
            self._snapshots.cancelTransmisstion(peer)
            self.learners().add(peer)
            self.next_index()[peer] = self.journal().last_index() + 1
            self.match_index()[peer] = 0
            self.last_response()[peer] = self.now()
            self._peers.addNode(peer)
            self.kick()

    def _left_at(self, node_id: str) -> int:
        """The newest entry in the log that took that node's vote away; 0 if none is left."""
        for command, index, _ in reversed(self.journal()[:]):
            change = parse_change(command)
            if change is not None and (change.kind, change.node_id) == ("rem", node_id):
                return index
            if change is not None and change.kind == "force":
                return index
        return 0

    def _starts_after(self, peer: Peer) -> int:
        learner = self._learning.get(peer.id)
        return learner.left_at if learner is not None else 0

    def _move_member(self, node_id: str, address: str, waiter: Waiter) -> None:
        if self._config.get(node_id) == address:
            self._answer(waiter, None)
        elif node_id in self._moving:
            self._answer(waiter, Unavailable(f"manager {node_id} is moving already: try again"))
        else:
            deadline = self._clock.monotonic() + MOVING_TIMEOUT
            self._moving[node_id] = Move(Peer(node_id, address), waiter, deadline)
            self._peers.readdress(node_id, address)
            self.kick()

    def _advance_moves(self) -> None:
        """Tell the members of a new address, once the one that moved answers there."""
        if self.state() != LEADER:
            return
        for move in list(self._moving.values()):
            node_id, address = move.peer.id, move.peer.address
            before = self._config.get(node_id, "")
            if older := sorted(peer.id for peer in self.voters() if peer.id in self._peers.older):
                del self._moving[node_id]
                problem = f"manager {older[0]} runs an older Shoal, which knows no moves: upgrade it first"
                self._answer(move.waiter, Unavailable(problem))
            elif node_id == self.selfNode.id or self._peers.reached(node_id, address):
                if self._change_objection() is None:
                    del self._moving[node_id]
                    self._append_change(Change("move", node_id, address, before), move.waiter)
            elif self._clock.monotonic() > move.deadline:
                del self._moving[node_id]
                self._peers.readdress(node_id, before)
                problem = f"manager {node_id} does not answer at {address}: can it be reached from here?"
                self._answer(move.waiter, Unavailable(problem))

    def remove_member(self, node_id: str, waiter: Waiter) -> None:
        """Take a node's vote away. A leader hands over before its own removal: see Raft.remove_member."""
        peer = next((peer for peer in self.voters() if peer.id == node_id), None)
        if self.state() != LEADER:
            self._answer(waiter, NotLeader(self.leader_id()))
        elif node_id == self.selfNode.id:
            self._answer(
                waiter, InvalidArgument("the leader can't remove itself: hand leadership over first")
            )
        elif peer is None:  # done already, or logged and not committed yet
            self._answer(waiter, self._change_objection() if node_id in self._config else None)
        else:
            problem = self._change_objection() or self._removal_objection(peer)
            if problem is not None:
                self._answer(waiter, problem)
            else:
                self._append_change(Change("rem", node_id, peer.address), waiter)

    def _answer(self, waiter: Waiter, error: Exception | None) -> None:
        self._delivery.resolve(waiter, None, error)
        self._delivery.post()

    def _append_change(self, change: Change, waiter: Waiter) -> None:
        self._adopt(change)
        self._append_own(change.command(), waiter)
        self.kick()

    def _change_objection(self) -> Exception | None:
        """One membership change at a time, and none before this leader has committed an entry of its term."""
        if self.raftLastApplied < self.no_op_index():
            return Unavailable("this manager has just become the leader: try again")
        if any(parse_change(entry[0]) for entry in self.journal().from_index(self.raftCommitIndex + 1)):
            return Unavailable("another change of the managers is under way: try again")
        return None

    def _removal_objection(self, gone: Peer) -> Exception | None:
        since = self.now() - self.conf.leaderFallbackTimeout
        rest = self.voters() - {gone}
        answering = [peer for peer in rest & self.connected() if self.last_response().get(peer, 0) > since]
        reachable = 1 + len(answering)
        if reachable * 2 > len(rest) + 1:
            return None
        return Unavailable(
            f"only {reachable} of the {len(rest) + 1} managers that would be left can be reached, so the "
            f"cluster would stop without manager {gone.id}: bring the others back first"
        )

    def _advance_learners(self) -> None:
        if self.state() != LEADER:
            return
        for learner in list(self._learning.values()):
            peer = learner.peer
            if self.match_index()[peer] > 0 and self.match_index()[peer] + LEARNT >= self.raftCommitIndex:
                if self._change_objection() is None:
                    del self._learning[peer.id]
                    self.learners().discard(peer)
                    self._append_change(Change("add", peer.id, peer.address), learner.waiter)
            elif self._clock.monotonic() > learner.deadline:
                self._forget_learner(learner)
                problem = (
                    f"manager {peer.id} did not come up to date: can {peer.address} be reached from here?"
                )
                self._answer(learner.waiter, Unavailable(problem))

    def _forget_learner(self, learner: Learner) -> None:
        self._learning.pop(learner.peer.id, None)
        self.learners().discard(learner.peer)
        self.next_index().pop(learner.peer, None)
        self.match_index().pop(learner.peer, None)
        self._peers.dropNode(learner.peer)

    def _forget_learners(self) -> None:
        for learner in list(self._learning.values()):
            self._forget_learner(learner)
            self._delivery.resolve(learner.waiter, None, NotLeader(None))
        for move in self._moving.values():
            self._delivery.resolve(move.waiter, None, NotLeader(None))
        self._moving.clear()

    # -- a new cluster of this node alone

    def _force_new_cluster(self) -> None:
        """Make this node the only member, durably and in one step: a crash leaves the old members or the new.

        The whole log is kept: what was acknowledged may be in a part that this node does not know to be
        committed. It leads at once, and commits it.
        """
        journal = self.journal()
        changes = [change for entry in journal[:] if (change := parse_change(entry[0])) is not None]
        known = [self._generation, *(change.generation for change in changes)]
        if self.left_behind is not None:
            known.append(self.left_behind.generation)
        change = Change("force", self.selfNode.id, self.selfNode.address, generation=max(known) + 1)
        term = self.raftCurrentTerm + 1
        journal.add(change.command(), journal.last_index() + 1, term)
        self.set_term(term, self.selfNode.id)  # syncs, in one frame with the entry
        self._no_longer_left_behind()
        self._removed = False
        self._adopt(change)
        log.warning("a new cluster is forced on this manager alone", extra={"generation": change.generation})

    def _forced_since(self) -> bool:
        """Whether a new cluster was forced here after this node was left behind by another: a crash may have
        kept the note of that, or brought it back."""
        return self.left_behind is not None and self.left_behind.generation <= self._standing()

    def _no_longer_left_behind(self) -> None:
        self._fence.open()
        self.left_behind = None

    def _was_left_behind(self, generation: int, reason: str) -> None:
        """A forced new cluster goes on without this node. One that works with others is not stopped by it,
        nor by an election among them: only one that has found no leader since its start, or for long."""
        if self.left_behind is not None:
            self._note_left_behind()
            return
        if generation <= self._generation:
            return
        if self._had_leader and not self._lost():
            self._peers.complain(
                "two clusters",
                "a new cluster was forced on a manager that this working one has lost: two clusters have the "
                f"same nodes now. Stop one of them ({reason})",
            )
            return
        self.left_behind = LeftBehind(generation, reason)
        log.error(reason)
        self._note_left_behind()
        self.become_follower()
        self.set_leader(None)

    def _note_left_behind(self) -> None:
        """On the disk; if there is no room now, then when it is told again."""
        if self.left_behind is None or self._fence.closed:
            return
        try:
            self._fence.close(self.left_behind)
        except OSError as error:
            self._peers.complain(
                "left behind", f"can't note that this manager was left behind: {error.strerror}"
            )

    # -- handing over

    def hand_over(self, to: str | None, waiter: Waiter) -> None:
        """Begin to hand leadership to that member, or to the one furthest ahead; proposals wait meanwhile."""
        target = next((peer for peer in self.voters() if peer.id == to), None)
        if self.state() != LEADER:
            self._answer(waiter, NotLeader(self.leader_id()))
        elif (to is not None and target is None) or not self.voters():
            self._answer(
                waiter, InvalidArgument(f"there is no other manager {to or ''} to hand leadership to")
            )
        else:
            self._hand_over = (target, self._clock.monotonic() + HAND_OVER)
            self._hand_over_sent = 0
            self._answer(waiter, None)
            self.kick()

    def _advance_hand_over(self) -> None:
        if self._hand_over is None:
            return
        target, deadline = self._hand_over
        now = self._clock.monotonic()
        if now > deadline:
            self._hand_over = None
            self.kick()
        elif now - self._hand_over_sent > 100 * MILLISECOND:

            def told(result: object, reason: int) -> None:
                if reason == FAIL_REASON.SUCCESS:
                    self._hand_over_sent = now

            self.transferLeadership(target or self._heir(), told)

    def _heir(self) -> Peer | None:
        """Who is furthest ahead; of several, any, so that it is not always the same one."""
        connected = sorted(self.voters() & self.connected(), key=lambda peer: peer.id)
        ahead = {peer: self._SyncObj__raftMatchIndex.get(peer, 0) for peer in connected}
        best = [peer for peer in connected if ahead[peer] == max(ahead.values())]
        return best[self._random.randrange(len(best))] if best else None
