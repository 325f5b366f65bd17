"""One Raft node: pysyncobj's election and commit core, with everything around it replaced.

Runs on one asyncio loop and starts no thread. `_work` is the heart: take proposals, let pysyncobj tick, make
the log durable with one sync, then send the acknowledgements held back and hand committed entries over.
docs/raft.md lists what is wrong with stock pysyncobj (D1 to D16) and where it is put right.
"""
# ruff: noqa: N802

import logging
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NoReturn

from pysyncobj import SyncObjConf

from cluster.errors import Conflict
from cluster.seams import SECOND, Clock, Random
from manager.keys.locks import Lock
from manager.raft.alarm import Alarm, Scheduler
from manager.raft.delivery import Delivery, Passed, Waiter
from manager.raft.errors import FailStop, NotLeader, RaftCorrupt
from manager.raft.fence import Fence
from manager.raft.hooks import LEADER, NoPoller, check_hooks, use_clock
from manager.raft.journal import Journal
from manager.raft.keyring import Keyring
from manager.raft.membership import NO_OP
from manager.raft.peer import Peer
from manager.raft.reads import Answer, ReadIndex
from manager.raft.reporting import Reporting
from manager.raft.room import Room
from manager.raft.snapshot import Snapshots
from manager.raft.timing import RaftLimits, RaftTiming
from manager.raft.transport import PeerTransport
from manager.raft.wire import AnyMessage, Progress

log = logging.getLogger("shoal.raft")

LONGEST_SLEEP = 1.0
"""Seconds after which a step is made although nothing is known to be due."""


class RaftNode(Reporting):
    """The node. All methods are called on its loop; waiters are told through the delivery."""

    def __init__(
        self,
        *,
        node: Peer,
        room: Room,
        journal: Journal,
        keyring: Keyring,
        snapshots: Callable[[Callable[[], dict[str, str]]], Snapshots],
        transport: PeerTransport,
        delivery: Delivery,
        scheduler: Scheduler,
        timing: RaftTiming,
        limits: RaftLimits,
        clock: Clock,
        random: Random,
        fail_stop: Callable[[str], NoReturn],
        on_leadership: Callable[[bool, int], None],
        fence: Fence,
        force_new_cluster: bool = False,
    ) -> None:
        check_hooks()
        use_clock(clock)
        if force_new_cluster and journal.fresh:
            raise Conflict("there is no state of an earlier cluster here to force a new one from")
        self._clock, self._random, self._timing, self._limits = clock, random, timing, limits
        self._peers, self._delivery, self._scheduler = transport, delivery, scheduler
        self._room = room
        self._fail_stop, self._on_leadership = fail_stop, on_leadership
        self._keyring = keyring
        self._config = dict(journal.origin.members)
        self._removed = False
        self._generation = 0
        self._fence = fence
        self.left_behind = fence.read()
        self._reads = ReadIndex(clock, self._send)
        self._scheduled = self._halted = False
        self._sent_index = 0
        self._alarm = Alarm(scheduler, self.now, self.kick)
        transport.after_messages = self.step_if_kicked
        self._prepare()
        others = [Peer(node_id, address) for node_id, address in self._config.items() if node_id != node.id]
        super().__init__(node, others, self._settings(), nodeClass=Peer, transport=transport)
        self._poller = NoPoller()
        self._snapshots = snapshots(lambda: dict(self._config))
        self._SyncObj__serializer = self._snapshots
        self._SyncObj__needLoadDumpFile = False
        self._SyncObj__raftLog = journal
        for peer in others:
            transport.addNode(peer)
        self._recover(journal)
        if force_new_cluster:
            self._force_new_cluster()
        elif self._forced_since():
            self._no_longer_left_behind()
        elif self.left_behind is not None:
            log.error(self.left_behind.reason)
        self._renew_status()

    def _settings(self) -> SyncObjConf:
        seconds = 1 / SECOND
        return SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=True,
            commandsWaitLeader=False,
            dynamicMembershipChange=True,
            useFork=False,
            pollerType="select",
            raftMinTimeout=self._timing.election_min * seconds,
            raftMaxTimeout=self._timing.election_max * seconds,
            appendEntriesPeriod=self._timing.heartbeat * seconds,
            leaderFallbackTimeout=self._timing.quorum_timeout * seconds,
            connectionTimeout=self._timing.election_max * seconds,
            appendEntriesBatchSizeBytes=self._limits.batch,
            logCompactionMinEntries=self._limits.compact_entries,
            logCompactionMinTime=10**9,
            onStateChanged=self._state_changed,
        )

    def _recover(self, journal: Journal) -> None:
        """Snapshot first, then the log; refuse any gap rather than start with less than was acknowledged."""
        has_snapshot = self._snapshots.exists()
        if has_snapshot and journal.fresh:
            raise RaftCorrupt("there is a Raft snapshot but no Raft log, so this node's votes are forgotten")
        if not has_snapshot:
            if not len(journal):
                journal.add(NO_OP, 1, 0)
                journal.sync()
            if journal.first_index() != 1:
                raise RaftCorrupt(
                    f"the Raft log starts at entry {journal.first_index()} and the snapshot before it is gone"
                )
        last_term = journal[-1][2] if len(journal) else 0
        term = max(journal.getCurrentTerm(), last_term)
        self._SyncObj__raftCurrentTerm = term
        self._SyncObj__votedForNodeId = (
            journal.getVotedForNodeId() if journal.getCurrentTerm() == term else None
        )
        if has_snapshot:
            self.adopt_snapshot(*self._snapshots.load())
        else:
            self._delivery.put(Passed(self.raftLastApplied))
            for entry in journal[:]:
                self._adopt_change(entry)
        self._SyncObj__raftCommitIndex = max(journal.getRaftCommitIndex(), self.raftLastApplied)

    def begin(self) -> None:
        """Take part from now on."""
        if not self.voters():
            self.elect_at_once()
        self.kick()

    def end(self) -> None:
        """Stop, syncing what is held; everything under way has an unknown outcome."""
        self.halt()
        self.journal().close()

    def halt(self) -> None:
        """Do nothing more, and tell everyone who waits."""
        if not self._halted:
            self._halted = True
            self._alarm.cancel()
            self.set_leader(None)
            self._fail_under_way()
            self._reads.fail()
            while self._proposals:
                self._delivery.resolve(self._proposals.popleft()[1], None, NotLeader(None))
            self._snapshots.close()
            self._delivery.post()

    # -- scheduling

    def kick(self) -> None:
        """Step in the loop's next turn."""
        if not self._scheduled and not self._halted:
            self._scheduled = True
            self._scheduler.call_soon(self.step_if_kicked)

    def step_if_kicked(self) -> None:
        """Step now rather than in the loop's next turn: nothing more of this turn is to be expected."""
        if self._scheduled:
            self._step()

    def perform(self, calls: deque[Callable[["RaftNode"], None]]) -> None:
        """Make these calls and one step for all of them."""
        while calls:
            call = calls.popleft()
            self._guarded(partial(call, self))
        self.step_if_kicked()

    def _step(self) -> None:
        self._scheduled = False
        self._guarded(self._work)
        if not self._halted:
            self._alarm.set(min(self._next_deadline(), self._keep_status()))

    def _next_deadline(self) -> float:
        """When something is due although no message comes: a heartbeat, an election."""
        latest = self.now() + LONGEST_SLEEP
        if self.state() == LEADER:
            return min(latest, self.next_heartbeat()) if self.voters() or self.learners() else latest
        if self._removed or self.left_behind is not None:
            return latest
        deadline = self.election_deadline()
        if deadline < self.now() and self._canvass is not None:
            deadline = self._canvass.until
        return min(latest, deadline)

    def _work(self) -> None:
        journal = self.journal()
        self._room.look()
        self._step_aside()
        self._checkCommandsToApply()
        self._advance_learners()
        self._advance_moves()
        self._settle_guests()
        self._advance_hand_over()
        leading = self.state() == LEADER
        if leading and journal.last_index() > self._sent_index:
            self.send_entries_now()
            self._sent_index = journal.last_index()
        journal.leading = leading
        if not leading:
            self._acknowledge()  # at once: the leader waits for it
        self.doTick(0.0)
        self._acknowledge()
        if journal.size > max(self._limits.compact_bytes, 2 * self._compacted_size):
            self.compaction_wanted()
        elif journal.stale or self._snapshots.stale:
            self.compaction_wanted()  # it writes anew what lies in clear or under an old key
        if self.state() == LEADER:
            self._reads.advance(
                term=self.raftCurrentTerm,
                commit_index=self.raftCommitIndex,
                ready=self.raftLastApplied >= self.no_op_index(),
                voters=self.voters(),
            )
            if not self.voters() and self.raftCommitIndex < journal.last_index():
                self.kick()
        else:
            self._reads.fail()
        self._delivery.post()

    def _acknowledge(self) -> None:
        """Make the log durable, and only then tell the leaders what of theirs is in it."""
        self.journal().sync()
        if self._acks:
            acks, self._acks = self._acks, {}
            for peer, progress in acks.items():
                if progress.term == self.raftCurrentTerm:
                    self._send(peer, progress)

    def _guarded(self, work: Callable[[], None]) -> None:
        """No exception may leave the log half-changed and the node running."""
        if self._halted:
            return
        use_clock(self._clock)
        try:
            try:
                work()
            except FailStop:
                raise
            except Exception:  # noqa: BLE001 - any surprise here is fail-stop, by design
                self._fail_stop(f"unexpected failure in Raft:\n{traceback.format_exc()}")
        except FailStop:
            self.halt()

    def _SyncObj__onMessageReceived(self, node: Peer, message: AnyMessage) -> None:
        self._guarded(lambda: self._handle(node, message))
        if not isinstance(message, Progress):
            self.kick()

    def _SyncObj__onNodeConnected(self, node: Peer) -> None:
        self.connected().add(node)
        self.kick()

    def _SyncObj__onNodeDisconnected(self, node: Peer) -> None:
        self.connected().discard(node)
        self.kick()

    def _state_changed(self, old: int, new: int) -> None:
        self.journal().leading = new == LEADER
        for peer in self.voters() | self.learners():
            self._snapshots.cancelTransmisstion(peer)
        self._sent_index = 0
        self._hand_over = None
        if new == LEADER:
            self._had_leader = True
            log.info("this manager leads", extra={"term": self.raftCurrentTerm})
        if old == LEADER:
            log.info("this manager no longer leads", extra={"term": self.raftCurrentTerm})
            self._fail_under_way()
            self.waiting().clear()
            self._reads.fail()
            self._forget_learners()
            self._full.clear()
            if self._announced:
                self._announced = False
                self._delivery.put(self._leadership_news(False))

    # -- reads

    def read_barrier(self, answer: Answer) -> None:
        """Tell the index that a linearizable read must have applied; None if this node doesn't lead."""
        if self.state() != LEADER:
            answer(None)
        else:
            self._reads.ask(answer)
            self.kick()

    # -- snapshots

    def change_snapshots(self, interval: int, keep_entries: int, keep_old: int, waiter: Waiter) -> None:
        """How often one is taken, in entries, and what is kept; what is there counts already."""

        def change() -> None:
            self._limits = replace(
                self._limits, compact_entries=interval + keep_entries, keep_entries=keep_entries
            )
            self._SyncObj__conf.logCompactionMinEntries = self._limits.compact_entries
            self._snapshots.former.keep(keep_old)
            self._delivery.resolve(waiter, None)

        self._guarded(change)
        self.kick()

    # -- keys

    @property
    def lock(self) -> Lock:
        """What locks the files at rest."""
        return self._keyring.lock

    def change_lock(self, lock: Lock, waiter: Waiter) -> None:
        """Lock with another key, or no more; the log goes on under a new data key."""

        def change() -> None:
            try:
                self._keyring.rotate(lock)
            except OSError as error:
                self._delivery.resolve(waiter, None, error)
                return
            self.journal().change_key()
            self._SyncObj__lastSerializedEntry = None  # even if nothing was written since the last snapshot
            self._delivery.resolve(waiter, None)

        self._guarded(change)
        self.kick()
