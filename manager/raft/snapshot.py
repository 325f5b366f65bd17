"""Snapshots: written by a thread, checksummed, synced, and checked before they replace anything.

Content: magic, length and msgpack of the metadata, then chunks (length, bytes), an end mark, and SHA-256 of
all. On disk it is encrypted with the data key in use (see keyring.py and sealed.py); one in clear, of an
older version, is read. Between managers, who have keys of their own, it goes as it is, inside TLS.
Only the Raft loop renames, so a snapshot that was being written while a newer one arrived is dropped.
"""
# ruff: noqa: N802

import contextlib
import hashlib
import logging
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from pysyncobj.config import SERIALIZER_STATE

from cluster.seams import SECOND, Clock
from manager.raft.delivery import Capture, Delivery
from manager.raft.disk import Disk, ReadFile
from manager.raft.errors import RaftCorrupt
from manager.raft.former import FormerSnapshots
from manager.raft.journal import Entry
from manager.raft.keyring import CLEAR, DataKey, Keyring
from manager.raft.sealed import SealedWriter, open_sealed
from manager.raft.wire import SnapshotChunk

log = logging.getLogger("shoal.raft.snapshot")

_MAGIC = CLEAR[1]
_PURPOSE = "snapshot"
_LENGTH = struct.Struct("<I")
_END = 0xFFFFFFFF
_DIGEST = 32
CHUNK = 256 << 10
"""Bytes of a snapshot in one message."""
_WRITE = 1 << 20
_SETTLE = 8 << 20
"""Bytes after which a snapshot is synced while it is written, so that the log's syncs never wait for more."""
_RETRY = 10 * SECOND
"""Pause after a snapshot could not be written, say because the disk is full."""


class SnapshotMeta(msgspec.Struct, frozen=True):
    """Where in the log a snapshot stands: its last entry, the one before, and the members at that index."""

    last: Entry
    previous: Entry
    members: dict[str, str]
    generation: int = 0
    """Of forced new clusters, at that index."""

    @property
    def index(self) -> int:
        """The last entry it includes."""
        return self.last[1]


class _Check:
    """Follows a snapshot's bytes and tells at the end whether its checksum was right."""

    def __init__(self) -> None:
        self.offset = 0
        self._hash = hashlib.sha256()
        self._tail = b""

    def follow(self, data: bytes) -> None:
        self.offset += len(data)
        pending = self._tail + data  # The digest at the end is not part of what it covers.
        self._hash.update(pending[:-_DIGEST])
        self._tail = pending[-_DIGEST:]

    def intact(self) -> bool:
        return self._hash.digest() == self._tail


class _Outgoing:
    def __init__(self, file: ReadFile, index: int) -> None:
        self.file = file
        self.index = index
        self.check = _Check()
        self.held = file.read(CHUNK)


class _Arriving:
    def __init__(self, file: SealedWriter, index: int) -> None:
        self.file = file
        self.index = index
        self.check = _Check()
        self.settled = 0


class Snapshots:
    """The newest snapshot of one node; also pysyncobj's serializer."""

    def __init__(
        self,
        disk: Disk,
        path: Path,
        keyring: Keyring,
        delivery: Delivery,
        members: Callable[[], dict[str, str]],
        clock: Clock,
        spawn: Callable[[Callable[[], None]], None],
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """spawn runs the writer, which calls pause after each chunk to let others have the processor."""
        self._pause = pause
        self._disk = disk
        self._path = path
        self._keyring = keyring
        self._key_id: str | None = None
        self._written = path.with_name(path.name + ".new")
        self._received = path.with_name(path.name + ".in")
        self._delivery = delivery
        self._members = members
        self._clock = clock
        self._spawn = spawn
        self._retry_at = 0
        self._state: int = SERIALIZER_STATE.NOT_SERIALIZING
        self._writing: SnapshotMeta | None = None
        self._writing_key: str | None = None
        self._compact_to: int | None = None
        self._outgoing: dict[str, _Outgoing] = {}
        self._arriving: _Arriving | None = None
        self.index = 0
        """Index of the newest durable snapshot; 0 without one."""
        self.generation = 0
        """Of forced new clusters, as committed; set by the node."""
        self.former = FormerSnapshots(disk, path)
        disk.remove(self._written)
        disk.remove(self._received)
        if not self.exists():
            self._tell_keyring()

    def exists(self) -> bool:
        """Whether there is a snapshot."""
        return self._disk.exists(self._path)

    def load(self) -> tuple[SnapshotMeta, Iterator[bytes]]:
        """Check the snapshot as a whole and return it. Raises RaftCorrupt."""
        file, _ = self._content()
        try:
            check = _Check()
            while data := file.read(_WRITE):
                check.follow(data)
        finally:
            file.close()
        if not check.intact():
            raise RaftCorrupt(f"the snapshot {self._path} is damaged: its checksum is wrong")
        meta, chunks = self._open()
        self.index = meta.index
        return meta, chunks

    @property
    def stale(self) -> bool:
        """Whether it is in clear or under another data key than the one in use."""
        return self._key_id not in (None, self._keyring.current.id)

    def _content(self) -> tuple[ReadFile, str]:
        return open_sealed(self._disk, self._path, self._keyring, _PURPOSE)

    def _create(self, path: Path, key: DataKey) -> SealedWriter:
        context, random = self._keyring.context(_PURPOSE), self._keyring.random
        return SealedWriter(self._disk.create(path), key, context, random)

    def _tell_keyring(self) -> None:
        arriving = self._arriving.file.key_id if self._arriving else None
        ids = (self._key_id, self._writing_key, arriving)
        self._keyring.used("snapshots", frozenset(id_ for id_ in ids if id_ is not None))

    def _open(self) -> tuple[SnapshotMeta, Iterator[bytes]]:
        file, self._key_id = self._content()
        self._tell_keyring()
        if file.read(len(_MAGIC)) != _MAGIC:
            file.close()
            raise RaftCorrupt(f"{self._path} is not a Raft snapshot")
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        meta = msgspec.msgpack.decode(file.read(length), type=SnapshotMeta)
        return meta, _chunks(file)

    # -- taking one (pysyncobj's serializer interface)

    def serialize(self, data: tuple[None, Entry, Entry, set[object]], id_: int) -> None:
        """Ask the state machine for its state at this point of the log, and have a thread write it."""
        meta = SnapshotMeta(data[1], data[2], self._members(), self.generation)
        self._compact_to = id_
        if meta.index == self.index and not self.stale:
            # After a restart the log's head is back, and the snapshot that stands for it is there: only cut.
            self._writing, self._state = None, SERIALIZER_STATE.SUCCESS
            return
        self._writing = meta
        key = self._keyring.current
        self._writing_key = key.id
        self._tell_keyring()
        self._state = SERIALIZER_STATE.SERIALIZING
        self._delivery.put(Capture(lambda chunks: self._spawn(lambda: self._write(meta, key, chunks))))

    def _write(self, meta: SnapshotMeta, key: DataKey, chunks: Iterator[bytes]) -> None:
        try:
            _write_all(self._create(self._written, key), meta, _paced(chunks, self._pause))
        except Exception:
            log.exception("writing a snapshot failed; it will be tried again", extra={"index": meta.index})
            self._state = SERIALIZER_STATE.FAILED
            with contextlib.suppress(OSError):
                self._disk.remove(self._written)  # it may be what fills the disk
        else:
            self._state = SERIALIZER_STATE.SUCCESS

    def checkSerializing(self) -> tuple[int, int | None]:
        """pysyncobj asks each tick; on success it compacts the log to the index returned."""
        state = self._state
        if state == SERIALIZER_STATE.SUCCESS and self._writing is None:
            self._state = SERIALIZER_STATE.NOT_SERIALIZING
        elif state == SERIALIZER_STATE.SUCCESS and self._writing is not None:
            self._state = SERIALIZER_STATE.NOT_SERIALIZING
            if self._writing.index < self.index or (self._writing.index == self.index and not self.stale):
                self._disk.remove(self._written)
                self._writing_key = None
                return SERIALIZER_STATE.NOT_SERIALIZING, None
            changed = self._key_id not in (None, self._writing_key)
            self.former.replace(self._written, self.index, key_changed=changed)
            self.index = self._writing.index
            self._key_id, self._writing_key = self._writing_key, None
            self._tell_keyring()
            log.info("snapshot taken", extra={"index": self.index})
        elif state == SERIALIZER_STATE.FAILED:
            self._state = SERIALIZER_STATE.NOT_SERIALIZING
            self._writing_key = None
            self._retry_at = self._clock.monotonic() + _RETRY
        elif state == SERIALIZER_STATE.NOT_SERIALIZING and self._clock.monotonic() < self._retry_at:
            return SERIALIZER_STATE.SERIALIZING, None
        return state, self._compact_to

    # -- sending it

    def next_chunk(self, node_id: str, term: int) -> SnapshotChunk | None:
        """The next piece for that follower; None if the file on disk turns out damaged."""
        sending = self._outgoing.get(node_id)
        try:
            if sending is None:
                sending = self._outgoing[node_id] = _Outgoing(self._content()[0], self.index)
            data, sending.held = sending.held, sending.file.read(CHUNK)
        except RaftCorrupt as error:
            self._found_damaged(node_id, str(error))
            return None
        last = not sending.held
        chunk = SnapshotChunk(term, sending.index, sending.check.offset, data, last)
        sending.check.follow(data)
        if last:
            self.cancelTransmisstion(node_id)
            if not sending.check.intact():
                self._found_damaged(node_id, "its checksum is wrong")
                return None
        return chunk

    def _found_damaged(self, node_id: str, reason: str) -> None:
        log.error(
            "this manager's own snapshot is damaged; taking another",
            extra={"index": self.index, "reason": reason},
        )
        self.cancelTransmisstion(node_id)
        self.index = 0

    def cancelTransmisstion(self, node: object) -> None:
        """The connection broke: start from the beginning on the next one. (pysyncobj's spelling.)"""
        sending = self._outgoing.pop(str(node), None)
        if sending is not None:
            sending.file.close()

    # -- receiving one

    def receive(self, chunk: SnapshotChunk) -> bool:
        """Take a piece; True when the whole snapshot is durable in a side file and its checksum is right."""
        if chunk.offset == 0:
            self.abandon()
            self._arriving = _Arriving(self._create(self._received, self._keyring.current), chunk.index)
            self._tell_keyring()
        arriving = self._arriving
        if arriving is None or (arriving.index, arriving.check.offset) != (chunk.index, chunk.offset):
            return False
        arriving.file.write(chunk.data)
        arriving.check.follow(chunk.data)
        if not chunk.last:
            if arriving.check.offset - arriving.settled > _SETTLE:
                arriving.settled = arriving.check.offset
                arriving.file.settle()
            return False
        arriving.file.sync()
        intact = arriving.check.intact()
        self.abandon()
        if not intact:
            log.error("a received snapshot was dropped: its checksum is wrong", extra={"index": chunk.index})
        return intact

    def abandon(self) -> None:
        """Forget a snapshot that is arriving."""
        if self._arriving is not None:
            self._arriving.file.close()
            self._arriving = None

    def discard(self) -> None:
        """As `abandon`, and free what it takes on the disk."""
        if self._arriving is not None:
            self.abandon()
            self._disk.remove(self._received)

    def install_received(self) -> tuple[SnapshotMeta, Iterator[bytes]]:
        """Put the received snapshot in place of the present one, durably, and open it."""
        self.former.replace(self._received, self.index, key_changed=self.stale)
        meta, chunks = self._open()
        self.index = meta.index
        for node_id in list(self._outgoing):
            self.cancelTransmisstion(node_id)
        return meta, chunks

    def close(self) -> None:
        """Close files."""
        self.abandon()
        for node_id in list(self._outgoing):
            self.cancelTransmisstion(node_id)


def put_snapshot(
    disk: Disk, path: Path, keyring: Keyring, meta: SnapshotMeta, chunks: Iterator[bytes]
) -> None:
    """Write a snapshot, durably, where no node runs: for a restored backup. Raises OSError."""
    written = path.with_name(path.name + ".new")
    context = keyring.context(_PURPOSE)
    _write_all(SealedWriter(disk.create(written), keyring.current, context, keyring.random), meta, chunks)
    disk.rename(written, path)


def _write_all(file: SealedWriter, meta: SnapshotMeta, chunks: Iterator[bytes]) -> None:
    try:
        digest, unsettled = hashlib.sha256(), 0
        for piece in _gathered(_encoded(meta, chunks)):
            digest.update(piece)
            file.write(piece)
            unsettled += len(piece)
            if unsettled > _SETTLE:
                unsettled = 0
                file.settle()
        file.write(digest.digest())
        file.sync()
    finally:
        file.close()


def _paced(chunks: Iterator[bytes], pause: Callable[[], None]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        pause()


def _encoded(meta: SnapshotMeta, chunks: Iterator[bytes]) -> Iterator[bytes]:
    head = msgspec.msgpack.encode(meta)
    yield _MAGIC
    yield _LENGTH.pack(len(head))
    yield head
    for chunk in chunks:
        yield _LENGTH.pack(len(chunk))
        yield chunk
    yield _LENGTH.pack(_END)


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of about a megabyte."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        if len(buffer) >= _WRITE:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer)


def _chunks(file: ReadFile) -> Iterator[bytes]:
    try:
        while True:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            if length == _END:
                return
            chunk = file.read(length)
            if len(chunk) != length:
                raise RaftCorrupt("the snapshot ends early")
            yield chunk
    finally:
        file.close()
