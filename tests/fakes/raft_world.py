"""Raft nodes in one thread: virtual time, links that delay and break, disks that forget what was not synced.

Nothing happens by itself: a test steps nodes and delivers messages, or lets `run` do so from a seed.
"""

import errno
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from pysyncobj.transport import Transport

from cluster.seams import MILLISECOND, SECOND
from manager.keys.locks import Lock
from manager.raft.delivery import Delivery
from manager.raft.errors import FailStop
from manager.raft.fence import Fence
from manager.raft.journal import Journal, Origin
from manager.raft.keyring import open_keyring
from manager.raft.node import RaftNode
from manager.raft.peer import Peer
from manager.raft.room import Room
from manager.raft.snapshot import Snapshots
from manager.raft.timing import RaftLimits, RaftTiming
from manager.raft.wire import FrameReader, encode


class PowerLoss(OSError):
    """The disk was asked for something after the crash."""


class SimFile:
    """An open file: writes are lost at a crash unless synced."""

    def __init__(self, disk: "SimDisk", path: Path, data: bytearray, size: int) -> None:
        self.disk, self.path, self.data, self.synced = disk, path, data, size

    def write(self, data: bytes) -> None:
        self.disk.check("write", self.path)
        try:
            self.disk.take(len(data))
        except OSError:
            self.data += data[: len(data) // 2]  # as a real disk: what still fits is written
            raise
        self.data += data

    def sync(self) -> None:
        self.disk.check("sync", self.path)
        self.synced = len(self.data)
        self.disk.stable[id(self.data)] = bytes(self.data)

    def truncate(self, size: int) -> None:
        self.disk.check("truncate", self.path)
        del self.data[size:]

    def close(self) -> None:
        pass


class SimReader:
    """A file open for reading, as it was when opened."""

    def __init__(self, data: bytearray) -> None:
        self.data, self.position = bytes(data), 0

    def read(self, size: int = -1, /) -> bytes:
        end = len(self.data) if size < 0 else self.position + size
        piece = self.data[self.position : end]
        self.position += len(piece)
        return piece

    def close(self) -> None:
        pass


class SimDisk:
    """Files in memory. `crash` drops what was not synced; `fail` makes operations raise."""

    def __init__(self) -> None:
        self.files: dict[Path, bytearray] = {}
        self.stable: dict[int, bytes] = {}
        self.fail: Callable[[str, Path], bool] = lambda operation, path: False
        self.capacity: int | None = None
        """Bytes that all files may take together; None: without end."""

    def check(self, operation: str, path: Path) -> None:
        if self.fail(operation, path):
            raise OSError(28, f"injected: no space left for {operation}", str(path))

    def make_directory(self, path: Path) -> None:
        pass

    def exists(self, path: Path) -> bool:
        return path in self.files

    def list_files(self, directory: Path) -> list[str]:
        return [path.name for path in self.files if path.parent == directory]

    def open_read(self, path: Path) -> SimReader:
        if path not in self.files:
            raise FileNotFoundError(path)
        return SimReader(self.files[path])

    def create(self, path: Path) -> SimFile:
        self.check("create", path)
        data = self.files[path] = bytearray()
        return SimFile(self, path, data, 0)

    def open_append(self, path: Path) -> SimFile:
        data = self.files[path]
        return SimFile(self, path, data, len(data))

    def rename(self, source: Path, target: Path) -> None:
        self.check("rename", target)
        self.files[target] = self.files.pop(source)

    def sync_directory(self, directory: Path) -> None:
        self.check("sync_directory", directory)

    def remove(self, path: Path) -> None:
        self.check("remove", path)
        self.files.pop(path, None)

    def allocate(self, path: Path, size: int) -> None:
        data = self.files.setdefault(path, bytearray())
        try:
            self.take(size - len(data))
        except OSError as error:
            raise OSError(error.errno, "injected: no space left to allocate", str(path)) from error
        data += bytes(max(0, size - len(data)))
        self.stable[id(data)] = bytes(data)

    def take(self, size: int) -> None:
        """Room for so many more bytes; raises ENOSPC when `capacity` has not got it."""
        if self.capacity is not None and sum(map(len, self.files.values())) + size > self.capacity:
            raise OSError(errno.ENOSPC, "injected: no space left")

    def crash(self) -> None:
        """Lose power: files hold what was last synced."""
        self.files = {path: bytearray(self.stable.get(id(data), b"")) for path, data in self.files.items()}
        self.stable = {id(data): bytes(data) for data in self.files.values()}


class SimTransport(Transport):
    """Links of a World as pysyncobj's transport."""

    def __init__(self, world: "World", node_id: str) -> None:
        super().__init__(None, None, [])
        self.world, self.node_id, self.peers = world, node_id, {}
        self.lost = lambda: False
        self.guests = {}
        self.older: set[str] = set()

    def addNode(self, node: Peer) -> None:  # noqa: N802
        self.peers.setdefault(node.id, node)

    def dropNode(self, node: Peer) -> None:  # noqa: N802
        self.peers.pop(node.id, None)

    def readdress(self, node_id: str, address: str) -> None:
        if node_id in self.peers and self.peers[node_id].address != address:
            self.peers[node_id] = Peer(node_id, address)

    def complain(self, about: str, text: str) -> None:
        """Nobody reads a simulated node's log."""

    def reached(self, node_id: str, address: str) -> bool:
        """Connections of the world lead to where the node is now."""
        up = frozenset((self.node_id, node_id)) in self.world.connected
        return up and self.world[node_id].address == address

    def backlog(self, node: Peer) -> int:
        return sum(map(len, self.world.links[self.node_id, node.id]))

    def send(self, node: Peer, message) -> bool:
        from manager.raft.transport import _from_engine

        if frozenset((self.node_id, node.id)) not in self.world.connected:
            return False
        message = _from_engine(message) if isinstance(message, dict) else message
        self.world.links[self.node_id, node.id].append(encode(message))
        return True

    def up(self, node_id: str) -> None:
        self._onNodeConnected(self.peers.get(node_id, Peer(node_id, node_id)))

    def down(self, node_id: str) -> None:
        self._onNodeDisconnected(Peer(node_id, node_id))

    def deliver(self, source: str, frame: bytes) -> None:
        if source not in self.peers and self.lost():
            self.peers[source] = self.guests[source] = Peer(source, source)
        if source in self.peers:
            for message in FrameReader().feed(frame):
                self._onMessageReceived(self.peers[source], message)


class SimClock:
    """Set by the world."""

    def __init__(self) -> None:
        self.time = 1000 * SECOND

    def now(self) -> int:
        return self.time

    def monotonic(self) -> int:
        return self.time

    async def sleep(self, nanoseconds: int) -> None:
        raise NotImplementedError


class _NoScheduler:
    """Steps come from the test."""

    def call_soon(self, callback) -> None:
        pass

    def call_soon_threadsafe(self, callback) -> None:
        callback()

    def call_later(self, delay, callback) -> None:
        return None


class Machine:
    """The state machine of one node; the world compares what all nodes apply at each index."""

    def __init__(self, world: "World", node_id: str) -> None:
        self.world, self.node_id, self.entries = world, node_id, []

    def apply(self, index: int, entry: bytes) -> object:
        expected = self.world.applied.setdefault(index, entry)
        if expected != entry:
            self.world.violations.append(f"{self.node_id} applied {entry!r} at {index}, others {expected!r}")
        self.entries.append(entry)
        return index

    def snapshot(self) -> Iterator[bytes]:
        return iter(list(self.entries))

    def restoring(self, index: int, chunks: Iterator[bytes]) -> Iterator[None]:
        entries = []
        for chunk in chunks:
            entries.append(chunk)
            yield
        self.entries = entries


class SimNode:
    """One node and its disk, which outlives it."""

    def __init__(self, world: "World", node_id: str) -> None:
        self.world, self.node_id, self.disk = world, node_id, SimDisk()
        self.fatal: list[str] = []
        self.locks: tuple[Lock, ...] = ()
        self.node: RaftNode | None = None
        self.address = node_id
        self.told: dict[str, str] = {}
        """The members that it is told of when it starts with an empty disk; else those of the world."""

    def wipe(self, told: dict[str, str]) -> None:
        """It left, and starts next time with an empty disk, told of these members."""
        self.disk, self.told = SimDisk(), told

    def start(
        self,
        members: dict[str, str] | None = None,
        address: str = "",
        force_new_cluster: bool = False,
    ) -> RaftNode:
        world = self.world
        self.address = address or self.address
        self.machine = Machine(world, self.node_id)
        scheduler = _NoScheduler()
        origin = Origin("c", self.node_id, members or self.told or dict(world.members))
        self.keyring = open_keyring(self.disk, Path("/r"), "c", self.node_id, world.random, self.locks)
        self.room = Room(self.disk, Path("/r"), world.limits.reserve, world.clock)
        self.journal = Journal(
            self.room.for_log(), Path("/r"), origin, self.keyring, self._fail_stop, world.segment_bytes
        )
        self.delivery = Delivery(scheduler, self.machine, world.clock, self._fail_stop)
        self.transport = SimTransport(world, self.node_id)

        def snapshots(members):
            path = Path("/r/snapshot")
            return Snapshots(self.disk, path, self.keyring, self.delivery, members, world.clock, world.spawn)

        self.node = RaftNode(
            room=self.room,
            node=Peer(self.node_id, self.address),
            journal=self.journal,
            keyring=self.keyring,
            snapshots=snapshots,
            transport=self.transport,
            delivery=self.delivery,
            scheduler=scheduler,
            timing=RaftTiming.local(),
            limits=world.limits,
            clock=world.clock,
            random=world.random,
            fail_stop=self._fail_stop,
            on_leadership=lambda leads, term: None,
            fence=Fence(self.disk, Path("/r")),
            force_new_cluster=force_new_cluster,
        )
        self.delivery.post()
        return self.node

    def _fail_stop(self, reason: str) -> NoReturn:
        self.fatal.append(reason)
        raise FailStop(reason)

    def propose(self, entry: bytes) -> list[object]:
        """Returns a list that will hold the answer: the apply result, or the exception."""
        outcome: list[object] = []
        assert self.node is not None
        self.node.propose(entry, lambda result, error: outcome.append(error or result))
        return outcome

    def log(self) -> list[tuple[int, int]]:
        return [(index, term) for _, index, term in self.journal[:]]

    @property
    def leads(self) -> bool:
        return self.node is not None and self.node.state() == 2 and not self.node._halted


class World:
    """Nodes, links, time."""

    def __init__(
        self, ids: str = "ABC", seed: int = 1, limits: RaftLimits | None = None, segment_bytes: int = 2000
    ) -> None:
        self.random = random.Random(seed)
        self.clock = SimClock()
        self.limits = limits or RaftLimits(keep_entries=0)
        self.segment_bytes = segment_bytes
        self.members = {node_id: node_id for node_id in ids}
        self.links: dict[tuple[str, str], deque[bytes]] = defaultdict(deque)
        self.connected: set[frozenset[str]] = set()
        self.applied: dict[int, bytes] = {}
        self.violations: list[str] = []
        self.writers: list[Callable[[], None]] = []
        self.hold_writers = False
        self.nodes = {node_id: SimNode(self, node_id) for node_id in ids}
        for node in self.nodes.values():
            node.start()
        for a in ids:
            for b in ids:
                if a < b:
                    self.connect(a, b)

    def __getitem__(self, node_id: str) -> SimNode:
        return self.nodes[node_id]

    def spawn(self, work: Callable[[], None]) -> None:
        if self.hold_writers:
            self.writers.append(work)
        else:
            work()

    def connect(self, a: str, b: str) -> None:
        self.connected.add(frozenset((a, b)))
        for here, there in ((a, b), (b, a)):
            self[here].transport.up(there)

    def disconnect(self, a: str, b: str, lose: bool = True) -> None:
        self.connected.discard(frozenset((a, b)))
        for here, there in ((a, b), (b, a)):
            if self[here].node is not None:
                self[here].transport.down(there)
            if lose:
                self.links[here, there].clear()

    def isolate(self, node_id: str) -> None:
        for other in self.nodes:
            if other != node_id:
                self.disconnect(node_id, other)

    def heal(self, node_id: str) -> None:
        for other in self.nodes:
            if other != node_id and self[other].node is not None:
                self.connect(node_id, other)

    def deliver(self, source: str, target: str, count: int | None = None) -> None:
        queue = self.links[source, target]
        while queue and (count is None or count > 0):
            frame = queue.popleft()
            if self[target].node is not None:
                self[target].transport.deliver(source, frame)
            count = None if count is None else count - 1

    def step(self, node_id: str) -> None:
        node = self[node_id].node
        if node is not None:
            node._step()

    def calm(self) -> None:
        """No election by itself until told."""
        for node in self.nodes.values():
            if node.node is not None and not node.node.transferring():
                node.node._SyncObj__raftElectionDeadline = self.clock.time / SECOND + 1e9

    def rounds(self, count: int = 6, only: str | None = None, milliseconds: int = 60, stuck=()) -> None:
        """Step and deliver in lock-step among some nodes, without spontaneous elections."""
        ids = only or "".join(self.nodes)
        for _ in range(count):
            self.clock.time += milliseconds * MILLISECOND
            for node_id in ids:
                self.step(node_id)
            for source, target in list(self.links):
                if source in ids and target in ids and (source, target) not in stuck:
                    self.deliver(source, target)
            self.calm()
        for node_id in ids:
            self.step(node_id)

    def elect(self, node_id: str, only: str | None = None, stuck=()) -> SimNode:
        """Make that node stand, and win."""
        self.clock.time += 800 * MILLISECOND
        self.calm()
        node = self[node_id].node
        assert node is not None
        for _ in range(8):
            node.elect_at_once()
            for _ in range(4):
                node._step()
                for source, target in list(self.links):
                    ids = only or "".join(self.nodes)
                    if source in ids and target in ids and (source, target) not in stuck:
                        self.deliver(source, target)
                node._step()
            if self[node_id].leads:
                break
            self.clock.time += 100 * MILLISECOND
        assert self[node_id].leads, "not elected"
        self.calm()
        self.rounds(3, only=only, stuck=stuck)
        return self[node_id]

    def compact(self, node_id: str) -> None:
        node = self[node_id].node
        assert node is not None
        node.compaction_wanted()
        for _ in range(3):
            node._step()

    def crash(self, node_id: str) -> None:
        """Power loss."""
        sim = self[node_id]
        self.isolate(node_id)
        if sim.node is not None:
            sim.node._halted = True
        sim.node = None
        sim.disk.crash()

    def restart(self, node_id: str) -> None:
        self[node_id].start()
        self.heal(node_id)
