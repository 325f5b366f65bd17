"""Linearizable reads without a log entry (ReadIndex, Raft dissertation 6.4).

The leader notes its commit index, then asks the members whether they still follow it in this term. When a
majority says yes, no other leader can have committed anything before the question, so a reader that waits for
the noted index sees every write that was acknowledged before it asked.
"""

from collections.abc import Callable

from cluster.seams import MILLISECOND, Clock
from manager.raft.peer import Peer
from manager.raft.wire import ConfirmLeader, LeaderConfirmed, Message

Answer = Callable[[int | None], None]
"""Told the index, or None when this node stopped leading."""

RESEND = 100 * MILLISECOND


class ReadIndex:
    """Rounds of confirmation; readers that come during one share the next."""

    def __init__(self, clock: Clock, send: Callable[[Peer, Message], None]) -> None:
        self._clock = clock
        self._send = send
        self._queued: list[Answer] = []
        self._asking: list[Answer] = []
        self._index = 0
        self._round = 0
        self._confirmed: set[Peer] = set()
        self._sent_at = 0

    def ask(self, answer: Answer) -> None:
        """Queue a reader; `advance` starts the round."""
        self._queued.append(answer)

    def confirmed(self, peer: Peer, message: LeaderConfirmed) -> None:
        """A member still follows."""
        if message.round == self._round:
            self._confirmed.add(peer)

    def advance(self, *, term: int, commit_index: int, ready: bool, voters: set[Peer]) -> None:
        """Finish or start a round. ready: this leader has committed an entry of its own term."""
        if self._asking:
            if (len(self._confirmed & voters) + 1) * 2 > len(voters) + 1:
                done, self._asking = self._asking, []
                for answer in done:
                    answer(self._index)
            elif self._clock.monotonic() - self._sent_at > RESEND:
                self._broadcast(term, voters)
        if self._queued and not self._asking and ready:
            self._round += 1
            self._index = commit_index
            self._asking, self._queued = self._queued, []
            self._confirmed = set()
            if voters:
                self._broadcast(term, voters)
            else:
                self.advance(term=term, commit_index=commit_index, ready=ready, voters=voters)

    def _broadcast(self, term: int, voters: set[Peer]) -> None:
        self._sent_at = self._clock.monotonic()
        for peer in voters - self._confirmed:
            self._send(peer, ConfirmLeader(term, self._round))

    def fail(self) -> None:
        """This node doesn't lead."""
        failed, self._queued, self._asking = self._queued + self._asking, [], []
        for answer in failed:
            answer(None)
