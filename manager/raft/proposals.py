"""Proposals on their way into the log, and committed entries on their way out to the state machine.

Replaces pysyncobj's queue: see D11 in docs/raft.md.
"""
# ruff: noqa: N802

import logging
from collections import deque
from collections.abc import Callable

from pysyncobj import FAIL_REASON

from manager.raft.delivery import Apply, Call, Passed, Waiter
from manager.raft.errors import NotLeader, OutcomeUnknown
from manager.raft.hooks import LEADER
from manager.raft.membership import REGULAR, parse_change
from manager.raft.stepping_aside import SteppingAside

log = logging.getLogger("shoal.raft")


class Proposals(SteppingAside):
    """Every waiter is answered once. RaftNode supplies whom to tell who leads."""

    _on_leadership: Callable[[bool, int], None]

    def _prepare(self) -> None:
        super()._prepare()
        self._proposals: deque[tuple[bytes, Waiter]] = deque()
        self._under_way: dict[Waiter, None] = {}
        self._announced = False

    def propose(self, entry: bytes, waiter: Waiter) -> None:
        """Append a state machine's entry to the log, if this node leads."""
        self._proposals.append((REGULAR + entry, waiter))
        self.kick()

    def _applyCommand(self, command: object, callback: object, commandType: int | None = None) -> None:  # noqa: N803
        raise NotImplementedError(
            "pysyncobj's own queue forwards to the leader and loses answers: use propose()"
        )

    def _checkCommandsToApply(self) -> None:
        """Replaces pysyncobj's queue, which forwards commands to the leader without a sure answer."""
        if self._hand_over is not None or not (self._proposals or self._full or self._room.full):
            return
        no_room = self.no_room() if self.state() == LEADER else None
        if no_room is not None and not self._room.full:
            self._fail_under_way(str(no_room))  # they may wait for very long
        while self._proposals:
            command, waiter = self._proposals.popleft()
            if self.state() != LEADER:
                self._delivery.resolve(waiter, None, NotLeader(self.leader_id()))
            elif no_room is not None:
                self._delivery.resolve(waiter, None, no_room)
            else:
                self._append_own(command, waiter)

    def _append_own(self, command: bytes, waiter: Waiter) -> None:
        index, term = self.journal().last_index() + 1, self.raftCurrentTerm
        self.journal().add(command, index, term)
        self._under_way[waiter] = None

        def committed(result: object, reason: int) -> None:
            if waiter not in self._under_way:
                return
            del self._under_way[waiter]
            if reason != FAIL_REASON.SUCCESS:
                self._delivery.resolve(waiter, None, OutcomeUnknown())
            elif isinstance(result, Apply):
                result.waiter = waiter
            else:
                self._delivery.resolve(waiter, None)

        self.waiting()[index].append((term, committed))

    def _fail_under_way(self, *reason: str) -> None:
        failed, self._under_way = self._under_way, {}
        for waiter in failed:
            self._delivery.resolve(waiter, None, OutcomeUnknown(*reason))

    def _SyncObj__doApplyCommand(self, command: bytes) -> object:
        """A committed entry: pass it on. What is returned here goes to the call-back of `_append_own`."""
        index: int = self.raftLastApplied + 1
        if command[:1] == REGULAR:
            item = Apply(index, command[1:])
            self._delivery.put(item)
            return item
        self._delivery.put(Passed(index))
        change = parse_change(command)
        if change is not None:
            # It has counted since it was logged. To adopt it again would, after a restart, undo later ones.
            before, self._config = self._config, change.apply_to(self._config)
            own = self.selfNode.id
            self._removed = (self._removed or own in before) and own not in self._config
            if change.kind == "force":
                self._set_generation(change.generation)
            log.info("managers changed", extra={"change": change.kind, "peer": change.node_id})
        elif index == self.no_op_index() and self.state() == LEADER:
            # Everything earlier leaders committed has been handed over before this.
            self._announced = True
            self._delivery.put(self._leadership_news(True))
        return None

    def _leadership_news(self, leads: bool) -> Call:
        term = self.raftCurrentTerm
        return Call(lambda: self._on_leadership(leads, term))
