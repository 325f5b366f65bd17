"""Raft for the store: propose, read, change members. Runs on a thread of its own, so that a busy owner's loop
never delays a heartbeat.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from cluster.errors import Unavailable
from cluster.seams import MILLISECOND, SECOND, Clock, Random, SystemClock, system_random
from manager.exits import EXIT_FAIL_STOP
from manager.keys.locks import UNLOCKED, Lock
from manager.raft.changes import HAND_OVER, HAND_OVER_TRIES
from manager.raft.delivery import Delivery, StateMachine, Waiter
from manager.raft.disk import Disk, SystemDisk
from manager.raft.errors import FailStop, NotLeader, OutcomeUnknown, Overloaded, TooLarge
from manager.raft.fence import Fence, LeftBehind
from manager.raft.journal import Journal, Origin
from manager.raft.keyring import open_keyring
from manager.raft.latency import SyncLatency, TimedDisk
from manager.raft.network import Network, TlsMaterial, TlsNetwork
from manager.raft.node import RaftNode
from manager.raft.peer import Peer
from manager.raft.room import Room
from manager.raft.snapshot import Snapshots
from manager.raft.status import RaftStatus
from manager.raft.thread import RaftThread
from manager.raft.timing import RaftLimits, RaftTiming
from manager.raft.transport import PeerTransport

log = logging.getLogger("shoal.raft")

LeadershipWatcher = Callable[[bool, int], None]
"""(leads, term)."""


def exit_process(reason: str) -> NoReturn:
    """The default fail-stop: what Raft promised can't be kept by this process any more."""
    log.critical("raft: fail-stop: %s", reason)
    logging.shutdown()
    os._exit(EXIT_FAIL_STOP)


class Raft:
    """One manager's part in the replicated log. Methods are called on the loop that called `start`."""

    def __init__(
        self,
        *,
        node_id: str,
        cluster_id: str,
        address: str,
        directory: Path,
        state_machine: StateMachine,
        tls: TlsMaterial | None = None,
        peers: Mapping[str, str] | None = None,
        timing: RaftTiming | None = None,
        limits: RaftLimits | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
        disk: Disk | None = None,
        network: Network | None = None,
        on_fatal: Callable[[str], None] = exit_process,
        own_thread: bool = True,
        locks: Sequence[Lock] = (),
        force_new_cluster: bool = False,
    ) -> None:
        """peers: node id → "ip:port" of the present members when this node joins; None for a new cluster.

        They count only at the first start; later ones know the members from disk. tls may be left out when a
        network is given. own_thread=False runs everything on the caller's loop, for a simulator.
        locks: with autolock, what the files' keys are locked with, or all that they may be.
        force_new_cluster: keep the state, and make this node the only member, at `address`: for the survivor
        of a lost majority. Members that are left behind are told so when they come back. Raises Conflict at
        start when there is no state.
        """
        if network is None:
            if tls is None:
                raise ValueError("Raft needs a certificate")
            network = TlsNetwork(tls)
        self.node_id = node_id
        self.cluster_id = cluster_id
        self.address = address
        self._directory = directory
        self._state_machine = state_machine
        self._network = network
        self._founds = peers is None
        self._peers = {id_: place for id_, place in (peers or {}).items() if id_ != node_id}
        self._timing = timing or RaftTiming.local()
        self._limits = limits or RaftLimits()
        self._clock = clock or SystemClock()
        self._random = random or system_random()
        self._disk = TimedDisk(disk or SystemDisk(), self._clock)
        self._force_new_cluster = force_new_cluster
        self._on_fatal = on_fatal
        self._locks = tuple(locks)
        self._thread = RaftThread(own_thread)
        self._node: RaftNode | None = None
        self._transport: PeerTransport | None = None
        self._delivery: Delivery | None = None
        self._watchers: list[LeadershipWatcher] = []
        self._leadership = (False, 0)
        self._pending = 0
        self._pending_bytes = 0

    # -- life

    async def start(self) -> None:
        """Recover from disk and take part. On return the state machine has the newest snapshot.

        Raises RaftCorrupt, with what to do, if the files can't be trusted; WrongKey if they are locked and
        the unlock key is not there; OSError if they can't be read.
        """
        self._thread.start()
        try:
            recovered = await self._thread.run(self._build())
        except BaseException:
            await self._thread.end()
            raise
        if self._delivery is not None:
            await self._delivery.wait_applied(recovered)

    async def _build(self) -> int:
        loop, owner = asyncio.get_running_loop(), self._thread.owner
        if owner is None:
            raise RuntimeError("not started")
        self._disk.make_directory(self._directory)
        members = {self.node_id: self.address} if self._founds else self._peers
        origin = Origin(self.cluster_id, self.node_id, members)
        keyring = open_keyring(
            self._disk, self._directory, self.cluster_id, self.node_id, self._random, self._locks
        )
        room = Room(self._disk, self._directory, self._limits.reserve, self._clock)
        journal = Journal(room.for_log(), self._directory, origin, keyring, self._fail_stop)
        self._delivery = delivery = Delivery(owner, self._state_machine, self._clock, self._fail_stop)
        self._transport = PeerTransport(
            node_id=self.node_id,
            address=self.address,
            cluster_id=self.cluster_id,
            network=self._network,
            clock=self._clock,
        )

        def snapshots(members: Callable[[], dict[str, str]]) -> Snapshots:
            path = self._directory / "snapshot"
            spawn, pause = self._thread.spawn, self._thread.give_way
            return Snapshots(self._disk, path, keyring, delivery, members, self._clock, spawn, pause)

        self._node = node = RaftNode(
            node=Peer(self.node_id, self.address),
            room=room,
            journal=journal,
            keyring=keyring,
            snapshots=snapshots,
            transport=self._transport,
            delivery=delivery,
            scheduler=loop,
            timing=self._timing,
            limits=self._limits,
            clock=self._clock,
            random=self._random,
            fail_stop=self._fail_stop,
            on_leadership=self._leadership_changed,
            fence=Fence(self._disk, self._directory),
            force_new_cluster=self._force_new_cluster,
        )
        self._thread.node = node
        recovered: int = node.raftLastApplied
        self._transport.start()
        node.begin()
        return recovered

    def _fail_stop(self, reason: str) -> NoReturn:
        self._on_fatal(reason)
        raise FailStop(reason)

    async def stop(self) -> None:
        """Leave the cluster's view without ceremony: sync, close, answer all who wait. Safe to repeat."""
        if self._thread.loop is None:
            return
        if self._node is not None:
            await self._thread.run(self._shut_down())
        await self._thread.end()
        if self._delivery is not None:
            self._delivery.drain()
        self._thread.give_up()
        await self._thread.join_writers()

    async def _shut_down(self) -> None:
        if self._node is not None:
            self._node.end()
        if self._transport is not None:
            await self._transport.close()

    # -- the log

    async def propose(self, entry: bytes) -> object:
        """Replicate an entry; returns what `apply` returned for it here, after a majority has it on disk.

        Raises NotLeader, Overloaded or TooLarge (definitely not applied) or OutcomeUnknown.
        """
        if len(entry) > self._limits.max_entry:
            raise TooLarge(len(entry), self._limits.max_entry)
        if self._pending >= self._limits.max_pending or self._pending_bytes > self._limits.max_pending_bytes:
            raise Overloaded
        self._pending += 1
        self._pending_bytes += len(entry)
        try:
            return await self._thread.ask(lambda node, waiter: node.propose(entry, waiter))
        finally:
            self._pending -= 1
            self._pending_bytes -= len(entry)

    async def read_barrier(self) -> int:
        """Confirm that this node leads; the returned index is applied here, and covers every earlier write.

        Raises NotLeader.
        """

        def ask(node: RaftNode, waiter: Waiter) -> None:
            def answered(index: int | None) -> None:
                error = NotLeader(node.leader_id()) if index is None else None
                delivery.resolve(waiter, index, error)
                delivery.post()

            node.read_barrier(answered)

        delivery = self._running_delivery()
        index = await self._thread.ask(ask)
        if not isinstance(index, int):
            raise OutcomeUnknown
        await delivery.wait_applied(index)
        return index

    async def wait_applied(self, index: int, timeout: int | None = None) -> None:
        """Return when that index is applied here. timeout in nanoseconds; raises TimeoutError."""
        seconds = None if timeout is None else timeout / SECOND
        async with asyncio.timeout(seconds):
            await self._running_delivery().wait_applied(index)

    def _running_delivery(self) -> Delivery:
        if self._delivery is None or self._thread.loop is None:
            raise NotLeader(None)
        return self._delivery

    # -- keys

    @property
    def lock(self) -> Lock:
        """What locks this manager's files at rest."""
        return self._node.lock if self._node is not None else UNLOCKED

    async def change_lock(self, lock: Lock) -> None:
        """Lock the files' keys with another unlock key, or no more, and go on with a new data key.

        Durable on return; what lies under old data keys is written anew soon. Raises OSError; then it is not
        known whether this or the former key unlocks the files.
        """
        await self._thread.ask(lambda node, waiter: node.change_lock(lock, waiter))

    # -- snapshots

    async def change_snapshots(self, interval: int, keep_entries: int, keep_old: int) -> None:
        """Take a snapshot after so many entries; keep so many entries for slow followers, and so many former
        snapshots on the disk. Raises NotLeader before the start."""
        await self._thread.ask(
            lambda node, waiter: node.change_snapshots(interval, keep_entries, keep_old, waiter)
        )

    # -- members

    async def add_member(self, node_id: str, address: str) -> None:
        """Make a node a voting member, after it has learnt the log; returns when the change is committed.

        The node must be running, with this cluster's members as its peers. A member that gives another
        address moves there, once it answers there. Raises NotLeader, OutcomeUnknown,
        Conflict, or Unavailable if it can't be reached or another change is under way.
        """
        await self._thread.ask(lambda node, waiter: node.add_member(node_id, address, waiter))

    async def remove_member(self, node_id: str) -> None:
        """Take a member's vote away; a node that isn't a member is no error.

        Removing the leader first hands leadership over, then raises NotLeader: ask the new leader. Raises
        Unavailable if the members left would have no majority, or another change is under way.
        """
        if node_id == self.node_id and self.is_leader:
            await self.transfer_leadership(None)
            raise NotLeader(self.leader_id)
        await self._thread.ask(lambda node, waiter: node.remove_member(node_id, waiter))

    async def transfer_leadership(self, to: str | None = None) -> None:
        """Hand leadership to that member, or to the one furthest ahead; returns when another leads.

        Raises NotLeader, InvalidArgument, or Unavailable if nobody took over (this node then mostly leads).
        """
        for _ in range(HAND_OVER_TRIES):
            if await self._handed_over(to):
                return
        raise Unavailable("no other manager took leadership over: try again")

    async def _handed_over(self, to: str | None) -> bool:
        """Hand over once. It can fail when the one chosen has only just joined: a member that has not learnt
        of it yet does not listen to it, and this node is elected again."""
        await self._thread.ask(lambda node, waiter: node.hand_over(to, waiter))
        term = self.term
        deadline = self._clock.monotonic() + HAND_OVER + self._timing.election_max
        while self.is_leader or self.leader_id is None:
            if self._clock.monotonic() > deadline or (self.is_leader and self.term > term):
                return False
            await self._clock.sleep(10 * MILLISECOND)
        return True

    async def turn(self) -> None:
        """Return when the Raft loop has come round: it does not hang. Raises NotLeader when it has ended."""
        await self._thread.run(asyncio.sleep(0))

    # -- what is known

    @property
    def leader_id(self) -> str | None:
        """The leader that this node follows, or itself; None during an election."""
        return self._node.leader_id() if self._node is not None and self._thread.loop is not None else None

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows; `read_barrier` makes sure."""
        return self.leader_id == self.node_id

    @property
    def term(self) -> int:
        """The present term."""
        return int(self._node.raftCurrentTerm) if self._node is not None else 0

    @property
    def applied_index(self) -> int:
        """The last index that the state machine has applied."""
        return self._delivery.applied_index if self._delivery is not None else 0

    def age(self) -> int | None:
        """Nanoseconds since the state here certainly had every acknowledged write; never less than the truth.

        At most about 0.6 s while there is a leader within reach. None if it was never so since `start`.
        """
        return self._node.freshness.age(self.applied_index) if self._node is not None else None

    @property
    def members(self) -> Mapping[str, str]:
        """node id → "ip:port" of the voting members, as committed."""
        return self._node.members() if self._node is not None else {}

    @property
    def left_behind(self) -> LeftBehind | None:
        """Set when a forced new cluster goes on without this node, which takes no further part."""
        return self._node.left_behind if self._node is not None else None

    def sync_latency(self) -> SyncLatency:
        """How long the newest syncs of the log took."""
        return self._disk.latency()

    def status(self) -> RaftStatus:
        """A view at most a heartbeat old while a leader is heard; what is essential is always as it is."""
        return self._node.status if self._node is not None else RaftStatus(self.node_id)

    def watch_leadership(self, watcher: LeadershipWatcher) -> Callable[[], None]:
        """Call watcher(leads, term) now and at every change, on the owner's loop; returns an unsubscriber.

        leads=True comes when the state machine has applied everything that earlier leaders committed.
        """
        self._watchers.append(watcher)
        watcher(*self._leadership)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def _leadership_changed(self, leads: bool, term: int) -> None:
        self._leadership = (leads, term)
        for watcher in list(self._watchers):
            watcher(leads, term)

    # -- connections

    def accept(self, sock: socket.socket) -> None:
        """Own a fresh TCP connection whose ClientHello asks for ALPN "shoal-raft/1"."""
        loop, transport = self._thread.loop, self._transport
        if loop is None or transport is None:
            sock.close()
        else:
            loop.call_soon_threadsafe(transport.accept, sock)

    def update_tls(self, tls: TlsMaterial) -> None:
        """Use a renewed certificate, or new roots, for connections made from now on."""
        loop = self._thread.loop
        if loop is None:
            self._network.update_tls(tls)
        else:
            loop.call_soon_threadsafe(self._network.update_tls, tls)
