"""The log on its way from the leader to the others, and snapshots for those who are too far behind.

Replaces pysyncobj's message handling, except for votes. What it does differently from stock is what keeps
acknowledged writes: see D6, D8 and D15 in docs/raft.md.
"""
# ruff: noqa: N802

import logging

from pysyncobj import SyncObj

from manager.raft.hooks import LEADER
from manager.raft.installing import Installing
from manager.raft.journal import Entry
from manager.raft.peer import Peer
from manager.raft.wire import (
    AnyMessage,
    AppendEntries,
    ConfirmLeader,
    Heartbeat,
    HigherTerm,
    LeaderConfirmed,
    PreVote,
    Progress,
    RequestPreVote,
    RequestVote,
    SnapshotChunk,
    TimeoutNow,
    Vote,
)

log = logging.getLogger("shoal.raft")

CHUNKS_AT_ONCE = 4
"""Of a snapshot; then commits have their turn."""
CHUNKS_PAUSE = 0.005
"""Seconds."""
BACKLOG = 4 << 20
"""Bytes queued for one peer beyond which only heartbeats are added."""


class Replication(Installing):
    """Messages from the others, and what the leader sends them. RaftNode supplies the parts named here."""

    _hand_over: tuple[Peer | None, int] | None

    def _prepare(self) -> None:
        super()._prepare()
        self._full: set[Peer] = set()

    def kick(self) -> None:
        """Schedule a step."""
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
