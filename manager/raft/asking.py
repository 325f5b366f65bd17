"""Asking how old the state here is, and answering the others; freshness.py says what comes of it."""

from cluster.seams import Clock
from manager.raft.delivery import Call, Delivery
from manager.raft.freshness import ASK_EVERY, Freshness
from manager.raft.hooks import Engine
from manager.raft.peer import Peer
from manager.raft.reads import ReadIndex
from manager.raft.room import Room
from manager.raft.transport import PeerTransport
from manager.raft.wire import Heartbeat, Message, Progress


class Asking(Engine):
    """Sends every message, and with some of them the questions. RaftNode supplies the parts named here."""

    _clock: Clock
    _peers: PeerTransport
    _delivery: Delivery
    _reads: ReadIndex
    _room: Room

    def _prepare(self) -> None:
        """Runs before SyncObj's constructor, which calls some of the overrides."""
        self.freshness = Freshness(self._clock)
        self._asked_at = -ASK_EVERY

    def _send(self, peer: Peer, message: Message) -> None:
        if isinstance(message, Progress):
            message.asked = self._question()
            message.full = self._room.full
        self._peers.send(peer, message)

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
