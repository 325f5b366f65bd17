"""The log's base: installing a snapshot, from the leader or from the disk, and compacting the log behind one.

See D1, D2, D3 and D4 in docs/raft.md.
"""
# ruff: noqa: N802

import logging
from collections.abc import Iterator

from cluster.seams import SECOND
from manager.raft.delivery import Restore
from manager.raft.errors import RaftCorrupt
from manager.raft.following import Following
from manager.raft.peer import Peer
from manager.raft.room import means_full
from manager.raft.snapshot import SnapshotMeta, Snapshots
from manager.raft.timing import RaftLimits
from manager.raft.wire import Progress, SnapshotChunk

log = logging.getLogger("shoal.raft")

_SNAPSHOT_PAUSE = 10 * SECOND


class Installing(Following):
    """Takes snapshots in. RaftNode supplies the parts named here; snapshot.py has the files."""

    _limits: RaftLimits
    _snapshots: Snapshots

    def _prepare(self) -> None:
        super()._prepare()
        self._compacted_size = 0

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

    def _set_generation(self, generation: int) -> None:
        self._generation = self._snapshots.generation = generation
