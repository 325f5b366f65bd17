"""What a node says of itself, renewed as its steps go: see status.py."""

from cluster.seams import SECOND
from manager.raft.alarm import NEVER
from manager.raft.hooks import LEADER
from manager.raft.proposals import Proposals
from manager.raft.status import PeerStatus, RaftStatus

STATUS_AGE = 0.02
"""Seconds for which a status is good enough while steps follow each other."""


class Reporting(Proposals):
    """The members and the status, which other threads may read."""

    def members(self) -> dict[str, str]:
        """The voting members as committed; never changed in place."""
        return self._config

    def _status(self) -> RaftStatus:
        leads, now = self.state() == LEADER, self.now()
        peers = tuple(
            PeerStatus(
                peer.id,
                peer.address,
                peer in self.connected(),
                self.match_index().get(peer, 0) if leads else 0,
                int((now - self.last_response()[peer]) * SECOND)
                if leads and peer in self.last_response()
                else None,
                peer in self._full,
                since_heard=int((now - self._heard_from[peer.id]) * SECOND)
                if peer.id in self._heard_from
                else None,
                learner=peer in self.learners(),
            )
            for peer in sorted(self.voters() | self.learners(), key=lambda peer: peer.id)
        )
        journal = self.journal()
        return RaftStatus(
            node_id=self.selfNode.id,
            leader_id=self.leader_id(),
            is_leader=leads,
            term=self.raftCurrentTerm,
            last_index=journal.last_index(),
            commit_index=self.raftCommitIndex,
            snapshot_index=self._snapshots.index,
            journal_bytes=journal.size,
            removed=self._removed,
            no_room=self._room.reason,
            members=dict(self._config),
            peers=peers,
            member=self._standing() >= 0,
            generation=self._generation,
            since_leader=int((now - self._heard_leader) * SECOND) if self.leader() and not leads else None,
        )

    def _keep_status(self) -> float:
        """Renew the status if it is old or something essential has changed; returns when to do so else."""
        if self.now() - self._status_at < STATUS_AGE and self._essence() == self._status_of:
            return self._status_at + self._timing.heartbeat / SECOND
        self._renew_status()
        return NEVER

    def _renew_status(self) -> None:
        self._status_at, self._status_of = self.now(), self._essence()
        self.status = self._status()

    def _essence(self) -> tuple[object, ...]:
        return self.state(), self.leader(), self.raftCurrentTerm, len(self.connected()), len(self._config)
