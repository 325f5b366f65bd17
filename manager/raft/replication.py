"""The log on its way from the leader to the others, and snapshots for those who are too far behind.

Replaces pysyncobj's message handling, except for votes. What it does differently from stock is what keeps
acknowledged writes: see D1, D4, D6, D8, D12, D13 and D15 in docs/raft.md.
"""
# ruff: noqa: N802

import logging
from collections.abc import Callable, Iterator
from typing import NoReturn

from pysyncobj import SyncObj

from cluster.seams import SECOND, Clock, Random
from manager.raft.delivery import Call, Delivery, Restore
from manager.raft.errors import RaftCorrupt
from manager.raft.fence import LeftBehind
from manager.raft.freshness import ASK_EVERY, Freshness
from manager.raft.hooks import LEADER, Engine
from manager.raft.journal import Entry
from manager.raft.membership import Change, parse_change
from manager.raft.reads import ReadIndex
from manager.raft.room import Room, means_full
from manager.raft.snapshot import SnapshotMeta, Snapshots
from manager.raft.timing import RaftLimits, RaftTiming
from manager.raft.transport import Peer, PeerTransport
from manager.raft.wire import (
    AnyMessage,
    AppendEntries,
    ConfirmLeader,
    Heartbeat,
    HigherTerm,
    LeaderConfirmed,
    Message,
    PreVote,
    Progress,
    RequestPreVote,
    RequestVote,
    SnapshotChunk,
    TimeoutNow,
    Vote,
)

log = logging.getLogger("shoal.raft")

LOST_AFTER = 4
"""Times the longest election timeout."""
_SNAPSHOT_PAUSE = 10 * SECOND
CHUNKS_AT_ONCE = 4
"""Of a snapshot; then commits have their turn."""
CHUNKS_PAUSE = 0.005
"""Seconds."""
BACKLOG = 4 << 20
"""Bytes queued for one peer beyond which only heartbeats are added."""


class Replication(Engine):
    """Incoming messages, outgoing entries. RaftNode supplies the parts named here."""

    _clock: Clock
    _random: Random
    _timing: RaftTiming
    _limits: RaftLimits
    _peers: PeerTransport
    _snapshots: Snapshots
    _delivery: Delivery
    _reads: ReadIndex
    _fail_stop: Callable[[str], NoReturn]
    _config: dict[str, str]
    _removed: bool
    _hand_over: tuple[Peer | None, int] | None
    _room: Room
    _generation: int
    """Of forced new clusters, as committed here."""
    left_behind: LeftBehind | None
    """Set when one goes on without this node: it takes no further part."""

    def _prepare_replication(self) -> None:
        self._heard_leader = self.now()
        self._heard_from: dict[str, float] = {}
        self._had_leader = False
        self.freshness = Freshness(self._clock)
        self._asked_at = -ASK_EVERY
        self._peers.lost = self._lost
        self._canvass: _Canvass | None = None
        self._acks: dict[Peer, Progress] = {}
        self._compacted_size = 0
        self._full: set[Peer] = set()
        self._no_snapshot_before = 0

    def kick(self) -> None:
        """Schedule a step."""
        raise NotImplementedError

    def _standing(self) -> int:
        """The generation of forced new clusters that this node is a member in by its log, or -1."""
        raise NotImplementedError

    def _starts_after(self, peer: Peer) -> int:
        """The entry that a learner's log must not begin before."""
        raise NotImplementedError

    # -- receiving

    def _handle(self, peer: Peer, message: AnyMessage) -> None:
        if self.left_behind is not None:
            return
        self._heard_from[peer.id] = self.now()
        term: int = self.raftCurrentTerm
        match message:
            case AppendEntries() | Heartbeat() | SnapshotChunk():
                if message.term < term:
                    self._send(peer, HigherTerm(term))
                    return
                self._follow(peer, message.term)
                if isinstance(message, AppendEntries):
                    self._append(peer, message)
                elif isinstance(message, SnapshotChunk):
                    self._receive_snapshot(peer, message)
                else:
                    self._note_confirmed(message.confirmed, message.asked)
                    self._send(peer, Progress(message.term, self.journal().last_index() + 1))
            case Progress():
                self._progress(peer, message)
            case RequestVote() | RequestPreVote() if not self._may_vote():
                pass
            case RequestVote(vote_term, index, last_term):
                request = {"type": "request_vote", "term": vote_term}
                request |= {"last_log_index": index, "last_log_term": last_term}
                SyncObj._SyncObj__onMessageReceived(self, peer, request)
            case Vote(vote_term):
                vote = {"type": "response_vote", "term": vote_term}
                SyncObj._SyncObj__onMessageReceived(self, peer, vote)
            case TimeoutNow(leader_term):
                order = {"type": "timeout_now", "term": leader_term}
                SyncObj._SyncObj__onMessageReceived(self, peer, order)
            case RequestPreVote(vote_term, index, last_term):
                last = self.journal()[-1]
                fresh = (last_term, index) >= (last[2], last[1])
                granted = vote_term > term and fresh and not self._hears_leader()
                self._send(peer, PreVote(vote_term, granted, term))
            case PreVote(vote_term, granted, own_term):
                if own_term > term and self.state() != LEADER:
                    self._step_down(own_term)
                elif granted and self._canvass is not None and self._canvass.term == vote_term:
                    self._canvass.granted.add(peer)
            case HigherTerm(newer):
                if newer > term:
                    self._step_down(newer)
            case ConfirmLeader(leader_term, number):
                if leader_term == term and self.leader() == peer:
                    self._heard_leader = self.now()
                    self._send(peer, LeaderConfirmed(term, number))
            case LeaderConfirmed(leader_term):
                if leader_term == term and self.state() == LEADER:
                    self.last_response()[peer] = self.now()
                    self._reads.confirmed(peer, message)
            case _:
                log.warning("unexpected message", extra={"peer": peer.id, "kind": type(message).__name__})

    def _send(self, peer: Peer, message: Message) -> None:
        if isinstance(message, Progress):
            message.asked = self._question()
            message.full = self._room.full
        self._peers.send(peer, message)

    # -- how old the state is

    def _question(self) -> int:
        """The time (monotonic, ns), when it is time to have the state here confirmed again; else 0."""
        now = self._clock.monotonic()
        if now - self._asked_at < ASK_EVERY:
            return 0
        self._asked_at = now
        return now

    def _note_confirmed(self, index: int | None, asked_at: int) -> None:
        if index and asked_at:
            self._delivery.put(Call(lambda: self.freshness.confirmed(index, asked_at)))

    def _confirm_for(self, peer: Peer, asked: int) -> None:
        def answer(index: int | None) -> None:
            if index is not None:
                self._send(peer, Heartbeat(self.raftCurrentTerm, asked, index))

        self._reads.ask(answer)

    # -- receiving entries

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

    def _append(self, peer: Peer, message: AppendEntries) -> None:
        journal = self.journal()
        first, last, previous = journal.first_index(), journal.last_index(), message.previous_index
        short = self._short_of_room()
        if previous > last and short:
            self._send(peer, Progress(message.term, last + 1))  # `reset` would have it all sent again
            return
        if previous > last or previous < first:
            resume = last + 1 if previous > last else self.raftCommitIndex + 1
            self._send(peer, Progress(message.term, resume, reset=True))
            return
        own_term = journal.entry(previous)[2]
        if own_term != message.previous_term:
            self._refuse_contradiction(peer, previous)
            index = previous
            while index > first and journal.entry(index)[2] == own_term:
                index -= 1
            resume = max(index + 1, self.raftCommitIndex + 1)
            self._send(peer, Progress(message.term, resume, reset=True))
            return
        matched = previous
        for position, (_, index, term) in enumerate(message.entries):
            if index != matched + 1:
                self._fail_stop(f"leader {peer.id} sent entries that don't follow each other")
            if index <= last and journal.entry(index)[2] == term:
                matched = index  # Known already: a repeated message must never cut the log.
                continue
            if short:
                break
            if index <= last:
                self._refuse_contradiction(peer, index)
                self._cut(index)
            for entry in message.entries[position:]:
                if entry[1] != matched + 1:
                    self._fail_stop(f"leader {peer.id} sent entries that don't follow each other")
                journal.add(*entry)
                matched = entry[1]
                self._adopt_change(entry)
            break
        # Only what is known to agree with the leader's log may be committed.
        commit = min(message.commit_index, matched)
        if commit > self.raftCommitIndex:
            self.set_commit_index(commit)
        self._acks[peer] = Progress(message.term, matched + 1, success=True)

    def _short_of_room(self) -> bool:
        """Whether nothing new can be stored here for now. Votes still can, and what is known is confirmed."""
        return self._room.full or self._clock.monotonic() < self._no_snapshot_before

    def _refuse_contradiction(self, peer: Peer, index: int) -> None:
        if index <= self.raftCommitIndex:
            self._fail_stop(f"leader {peer.id} contradicts the committed entry {index}")

    def _cut(self, index: int) -> None:
        """Drop uncommitted entries from index on, undoing their membership changes, newest first."""
        journal = self.journal()
        for entry in reversed(journal.from_index(index)):
            change = parse_change(entry[0])
            if change is not None:
                self._undo(change)
        journal.deleteEntriesFrom(index - journal.first_index())

    def _adopt_change(self, entry: Entry) -> None:
        change = parse_change(entry[0])
        if change is not None:
            self._adopt(change)

    def _adopt(self, change: Change) -> None:
        """A change counts from the moment it is in the log, committed or not; and only once."""
        if change.kind in ("add", "rem"):
            self._SyncObj__doChangeCluster(change.engine_request())
        elif change.kind == "move":
            self._readdress(change.node_id, change.address)
        elif change.node_id == self.selfNode.id:
            self._SyncObj__updateClusterConfiguration([])
        else:
            self._SyncObj__updateClusterConfiguration([Peer(change.node_id, change.address)])

    def _undo(self, change: Change) -> None:
        if change.kind in ("add", "rem"):
            self._SyncObj__doChangeCluster(change.engine_request(), reverse=True)
        elif change.kind == "move":
            self._readdress(change.node_id, change.before)
        else:
            self._fail_stop("the forced new cluster contradicts this manager's log")

    def _readdress(self, node_id: str, address: str) -> None:
        for peer in self.voters():
            if peer.id == node_id:
                peer.address = address
                self._peers.readdress(node_id, address)

    # -- snapshots

    def _receive_snapshot(self, peer: Peer, chunk: SnapshotChunk) -> None:
        if chunk.index <= self.raftLastApplied:
            # Older than what is applied here, which the leader has too: every leader holds what is committed.
            self._snapshots.abandon()
            self._send(peer, Progress(chunk.term, self.raftLastApplied + 1, reset=True))
            return
        try:
            complete = not self._short_of_room() and self._snapshots.receive(chunk)
        except OSError as error:
            if not means_full(error):
                raise
            log.error("no room for a snapshot: it is asked for again later", extra={"error": str(error)})
            self._snapshots.discard()
            self._no_snapshot_before = self._clock.monotonic() + _SNAPSHOT_PAUSE
            complete = False
        if self._short_of_room():
            self._snapshots.discard()
            self._send(peer, Progress(chunk.term, self.journal().last_index() + 1))
        elif complete:
            meta, chunks = self._snapshots.install_received()
            self.adopt_snapshot(meta, chunks)
            self._acks[peer] = Progress(chunk.term, meta.index + 1, success=True)
        elif chunk.last:
            self._send(peer, Progress(chunk.term, self.journal().last_index() + 1, reset=True))
        else:
            self._send(peer, Progress(chunk.term, chunk.index))

    def adopt_snapshot(self, meta: SnapshotMeta, chunks: Iterator[bytes]) -> None:
        """Make a verified, durable snapshot the base of the log; keep entries that provably follow it."""
        journal = self.journal()
        held = len(journal) > 0 and journal.first_index() <= meta.index <= journal.last_index()
        if held and journal.entry(meta.index)[1:] == meta.last[1:]:
            pass
        elif len(journal) and journal.first_index() == meta.index + 1:
            journal.reset([meta.previous, meta.last, *journal[:]])
        elif len(journal) and journal.first_index() > meta.index + 1:
            raise RaftCorrupt(
                f"the Raft log starts at entry {journal.first_index()}, but the snapshot ends at {meta.index}"
            )
        else:
            journal.reset([meta.previous, meta.last])
        self._delivery.put(Restore(meta.index, chunks))
        self.set_last_applied(meta.index)
        if self.raftCommitIndex < meta.index:
            self.set_commit_index(meta.index)
        own_id = self.selfNode.id
        self._removed = self._removed or (own_id in self._config and own_id not in meta.members)
        before, self._config = self._config, dict(meta.members)
        self._set_generation(meta.generation)
        self._SyncObj__updateClusterConfiguration(
            [Peer(node_id, address) for node_id, address in meta.members.items() if node_id != own_id]
        )
        for node_id, address in meta.members.items():
            if before.get(node_id, address) != address:  # it moved; one that has not may be about to
                self._readdress(node_id, address)
        for entry in journal.from_index(meta.index + 1):
            self._adopt_change(entry)

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:  # noqa: N803
        raise NotImplementedError("snapshots are installed by adopt_snapshot")

    def _SyncObj__deleteEntriesTo(self, toIdx: int) -> None:  # noqa: N803
        """Compact, but keep the newest entries for followers that are slightly behind."""
        journal = self.journal()
        keep_from, size = toIdx, 0
        while keep_from > max(journal.first_index(), toIdx - self._limits.keep_entries):
            size += len(journal.entry(keep_from - 1)[0])
            if size > self._limits.keep_bytes:
                break
            keep_from -= 1
        journal.deleteEntriesTo(keep_from - journal.first_index())
        self._compacted_size = journal.size

    # -- sending, on the leader

    def _SyncObj__sendAppendEntries(self) -> None:
        self._SyncObj__newAppendEntriesTime = self.now() + self.conf.appendEntriesPeriod
        if asked := self._question():
            self._reads.ask(lambda index: self._note_confirmed(index, asked))
        for peer in self.voters() | self.learners():
            if peer in self.connected():
                if self._send_log(peer):
                    self._SyncObj__newAppendEntriesTime = self.now() + CHUNKS_PAUSE
            else:
                self._snapshots.cancelTransmisstion(peer)

    def _send_log(self, peer: Peer) -> bool:
        """Whatever the peer lacks, as far as its connection takes it; at least a heartbeat.

        Returns whether more of a snapshot can follow as soon as others have had their turn.
        """
        chunks = 0
        journal, term, following = self.journal(), self.raftCurrentTerm, self.next_index()
        sent = False
        while self._peers.backlog(peer) < BACKLOG:
            index, starts_after = following[peer], self._starts_after(peer)
            if index <= max(journal.first_index(), starts_after):
                if journal.first_index() == 1 and not starts_after:
                    following[peer] = 2  # Every log begins with the same first entry.
                    continue
                old = self._snapshots.index < starts_after
                chunk = self._snapshots.next_chunk(peer.id, term) if not old else None
                if chunk is None:
                    if self.raftLastApplied >= starts_after:
                        self._SyncObj__lastSerializedEntry = None
                        self.compaction_wanted()
                    break
                self._send(peer, chunk)
                chunks += 1
                if chunk.last:
                    following[peer] = chunk.index + 1
                elif chunks == CHUNKS_AT_ONCE:
                    return True
            elif index <= journal.last_index() or not sent:
                entries = self._batch(index)
                previous = journal.entry(index - 1)
                self._send(peer, AppendEntries(term, self.raftCommitIndex, previous[1], previous[2], entries))
                following[peer] = index + len(entries)
            else:
                break
            sent = True
        if not sent:
            self._send(peer, Heartbeat(term))
        return False

    def _batch(self, index: int) -> list[Entry]:
        journal, size, entries = self.journal(), 0, []
        while index <= journal.last_index() and size < self._limits.batch:
            entry = journal.entry(index)
            entries.append(entry)
            size += len(entry[0])
            index += 1
        return entries

    def _progress(self, peer: Peer, message: Progress) -> None:
        if self.state() != LEADER or message.term != self.raftCurrentTerm or peer not in self.next_index():
            return  # An answer to an older leadership says nothing about this one.
        self.last_response()[peer] = self.now()
        if message.full:
            self._full.add(peer)
        else:
            self._full.discard(peer)
        if message.asked:
            self._confirm_for(peer, message.asked)
        matched = message.next_index - 1
        if matched > self.journal().last_index():
            log.error("a follower is ahead of its leader", extra={"peer": peer.id, "index": matched})
        elif message.reset:
            self.next_index()[peer] = message.next_index
            self.kick()
        elif message.success:
            self.next_index()[peer] = max(self.next_index()[peer], message.next_index)
            if matched > self.match_index()[peer]:
                self.match_index()[peer] = matched
                # What is committed already needs no step for one more who has it.
                if matched > self.raftCommitIndex or peer in self.learners() or self._hand_over is not None:
                    self.kick()

    # -- forced new clusters

    def _set_generation(self, generation: int) -> None:
        self._generation = self._snapshots.generation = generation

    # -- elections

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
