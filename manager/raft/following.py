"""A follower's log: entries from the leader, and the membership changes among them.

What it does differently from stock is what keeps acknowledged writes: D1, D12 and D13 in docs/raft.md.
"""

from manager.raft.elections import Elections
from manager.raft.journal import Entry
from manager.raft.membership import Change, parse_change
from manager.raft.peer import Peer
from manager.raft.wire import AppendEntries, Progress


class Following(Elections):
    """Puts into the log what the leader sends. Acknowledgements are held back until it is synced."""

    def _prepare(self) -> None:
        super()._prepare()
        self._acks: dict[Peer, Progress] = {}
        self._no_snapshot_before = 0

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
