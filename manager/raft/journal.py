"""The write-ahead log: entries, term and vote, in checksummed frames (see frames.py), in a few segment files.

Everything between two syncs is one frame, durable before the next is written. So a crash can only damage the
last frame of the last segment: recovery drops it if nothing whole follows (a torn tail, never acknowledged)
and refuses to start otherwise (the disk lost something that was acknowledged). Compaction only deletes old
segments, so it costs no rewriting and can't lose what is kept.

Each segment is encrypted with the data key that was in use when it was begun (see keyring.py). Segments of an
older version, in clear, are read. Only when what compaction keeps lies under another key than the one in use,
or in clear, is it written again.

Method names in camel case are pysyncobj's journal interface.
"""
# ruff: noqa: N802

import logging
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, overload

import msgspec

from manager.raft.disk import AppendFile, Disk
from manager.raft.errors import RaftCorrupt
from manager.raft.frames import (
    HEADER_SIZE,
    BadHead,
    FrameCipher,
    encode_frame,
    later_frame,
    parse_head,
    payload_of,
    records_of,
    whole_frame,
)
from manager.raft.keyring import DataKey, Keyring

log = logging.getLogger("shoal.raft.journal")

Entry = tuple[bytes, int, int]
"""(command, index, term), as pysyncobj keeps them."""

_PREFIX = "log."
_ENTRY = struct.Struct("<cQQ")  # kind, index, term
_TRUNCATE = struct.Struct("<cQ")  # kind, first index that goes
SEGMENT_BYTES = 8 << 20
"""A segment that has grown larger is followed by a new one."""


class Origin(msgspec.Struct, frozen=True):
    """Whose journal this is, and the members that this node knew when it was made."""

    cluster_id: str
    node_id: str
    members: dict[str, str]


class _Ballot(msgspec.Struct, array_like=True):
    term: int
    vote: str | None
    commit_index: int


@dataclass(slots=True)
class _Segment:
    path: Path
    size: int
    last_index: int
    """The highest index of an entry in it; it may go when all of them may."""
    key_id: str
    """The data key that it is encrypted with; "" for one in clear."""


class Journal:
    """The log of one node. Any disk error is fail-stop: what may not be durable is never acknowledged."""

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        origin: Origin,
        keyring: Keyring,
        fail_stop: Callable[[str], NoReturn],
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._keyring = keyring
        self._fail_stop = fail_stop
        self._segment_bytes = segment_bytes
        self._entries: list[Entry] = []
        self._term = 0
        self._vote: str | None = None
        self._commit_index = self._noted_commit = 1
        self._records: list[bytes] = []
        self._sequence = 0
        self._segments: list[_Segment] = []
        self._file: AppendFile | None = None
        self._cipher: FrameCipher | None = None
        self.origin = origin
        self.leading = False
        """Set while this node leads: its own copy must be durable before a commit is acted upon."""
        self.syncs = 0
        disk.remove(self._temporary)
        names = sorted(name for name in disk.list_files(directory) if name.startswith(_PREFIX))
        self.fresh = not names
        if self.fresh:
            self._begin_segment([])
        else:
            self._recover([directory / name for name in names])
            if (self.origin.cluster_id, self.origin.node_id) != (origin.cluster_id, origin.node_id):
                raise RaftCorrupt(
                    f"the Raft log in {directory} belongs to node {self.origin.node_id} of cluster "
                    f"{self.origin.cluster_id}, not to node {origin.node_id} of cluster {origin.cluster_id}"
                )
            if self._segments[-1].key_id != keyring.current.id:
                self._begin_segment([])
        self._tell_keyring()

    @property
    def size(self) -> int:
        """Bytes in all segments."""
        return sum(segment.size for segment in self._segments)

    @property
    def _temporary(self) -> Path:
        return self._directory / "new.log"

    # -- recovery

    def _recover(self, paths: list[Path]) -> None:
        for path in paths:
            self._recover_segment(path, last=path is paths[-1])
        self._file = self._disk.open_append(paths[-1])
        if self._torn:
            self._file.truncate(self._segments[-1].size)
        # What a process that was killed had not synced yet looks durable; from now on it is relied upon.
        self._file.sync()
        self._disk.sync_directory(self._directory)

    _torn = False

    def _recover_segment(self, path: Path, last: bool) -> None:
        source = self._disk.open_read(path)
        try:
            data = source.read()
        finally:
            source.close()
        try:
            offset, key_id, salt = parse_head(data)
        except BadHead:
            raise RaftCorrupt(f"{path} is not a Raft log, or its first bytes are damaged") from None
        if not key_id:
            self._keyring.check_clear(path)
        self._cipher = self._cipher_of(key_id, salt, path) if key_id else None
        self._segments.append(_Segment(path, offset, 0, key_id))
        frames = 0
        while offset < len(data) or not frames:
            frame = whole_frame(data, offset, self._sequence + 1 if self._sequence else None)
            if frame is None:
                # Every segment begins with a frame that was durable before the file had its name.
                if not frames or not last or later_frame(data, offset, self._sequence):
                    raise RaftCorrupt(f"the Raft log {path} is damaged at byte {offset}, before its end")
                self._torn = True
                log.warning(
                    "dropping the torn end of the Raft log",
                    extra={"path": str(path), "offset": offset, "bytes": len(data) - offset},
                )
                break
            self._sequence, payload = frame
            for record in records_of(self._decrypted(payload, path)):
                self._replay(path, record)
            offset += HEADER_SIZE + len(payload)
            frames += 1
        self._segments[-1].size = offset

    def _cipher_of(self, key_id: str, salt: bytes, path: Path) -> FrameCipher:
        keyring = self._keyring
        key = DataKey(key_id, keyring.key(key_id, path))
        return FrameCipher(key, salt, keyring.context("log"), keyring.random)

    def _decrypted(self, payload: bytes, path: Path) -> bytes:
        """A whole frame that does not decrypt is no crash's doing, wherever it is."""
        if self._cipher is None:
            return payload
        decrypted = self._cipher.decrypt(self._sequence, payload)
        if decrypted is None:
            raise RaftCorrupt(
                f"frame {self._sequence} of the Raft log {path} was changed or is of another log"
            )
        return decrypted

    def _replay(self, path: Path, record: bytes) -> None:
        kind = record[:1]
        if kind == b"E":
            _, index, term = _ENTRY.unpack_from(record)
            if self._entries and index != self._entries[-1][1] + 1:
                raise RaftCorrupt(f"the Raft log {path} lacks entries before index {index}")
            self._entries.append((record[_ENTRY.size :], index, term))
            self._segments[-1].last_index = max(self._segments[-1].last_index, index)
        elif kind == b"T":
            _, index = _TRUNCATE.unpack_from(record)
            if self._entries:
                del self._entries[max(0, index - self._entries[0][1]) :]
        elif kind == b"R":
            self._entries.clear()
        elif kind == b"S":
            ballot = msgspec.msgpack.decode(record[1:], type=_Ballot)
            self._term, self._vote, self._commit_index = ballot.term, ballot.vote, ballot.commit_index
        elif kind == b"O":
            self.origin = msgspec.msgpack.decode(record[1:], type=Origin)
        else:
            raise RaftCorrupt(f"the Raft log {path} has a record of unknown kind {kind!r}")

    # -- writing

    def _ballot_record(self) -> bytes:
        self._noted_commit = self._commit_index
        return b"S" + msgspec.msgpack.encode(_Ballot(self._term, self._vote, self._commit_index))

    def sync(self) -> None:
        """Make everything so far durable, as one frame."""
        if not self._records or self._file is None or self._cipher is None:
            return
        if self._commit_index != self._noted_commit:
            # In passing: so a manager that starts without a quorum has nearly all that it had applied.
            self._records.append(self._ballot_record())
        self._sequence += 1
        frame = _sealed_frame(self._cipher, self._sequence, self._records)
        self._records = []
        segment = self._segments[-1]
        try:
            self._file.write(frame)
            self._file.sync()
        except OSError as error:
            self._fail_stop(f"the Raft log {segment.path} can't be written: {error}")
        segment.size += len(frame)
        self.syncs += 1
        if segment.size > self._segment_bytes:
            self._begin_segment([])

    def _begin_segment(self, records: list[bytes]) -> None:
        """Go on in a new file, which gets its name when its first frame is durable."""
        first = [b"O" + msgspec.msgpack.encode(self.origin), self._ballot_record(), *records]
        self._sequence += 1
        path = self._directory / f"{_PREFIX}{self._sequence:016x}"
        keyring = self._keyring
        cipher = FrameCipher.new(keyring.current, keyring.context("log"), keyring.random)
        content = cipher.head + _sealed_frame(cipher, self._sequence, first)
        try:
            file = self._disk.create(self._temporary)
            file.write(content)
            file.sync()
            self._disk.rename(self._temporary, path)
        except OSError as error:
            self._fail_stop(f"the Raft log {path} can't be written: {error}")
        if self._file is not None:
            self._file.close()
        self._file, self._cipher = file, cipher
        last_index = self._entries[-1][1] if records else 0
        self._segments.append(_Segment(path, len(content), last_index, cipher.key_id))

    @property
    def stale(self) -> bool:
        """Whether any of it is in clear or under another data key than the one in use."""
        return any(segment.key_id != self._keyring.current.id for segment in self._segments)

    def change_key(self) -> None:
        """The keyring has another data key in use: go on in a segment under it."""
        self.sync()
        self._begin_segment([])
        self._tell_keyring()

    def reset(self, entries: Sequence[Entry]) -> None:
        """Durably replace all entries; term and vote stay."""
        self._entries = list(entries)
        self._records = []
        self._begin_segment([b"R", *(_entry_record(entry) for entry in entries)])
        self._delete_segments(len(self._segments) - 1)

    def _delete_segments(self, count: int) -> None:
        for _ in range(count):
            try:
                self._disk.remove(self._segments[0].path)
            except OSError as error:
                self._fail_stop(f"the Raft log {self._segments[0].path} can't be removed: {error}")
            del self._segments[0]
        self._tell_keyring()

    def _tell_keyring(self) -> None:
        self._keyring.used("log", frozenset(segment.key_id for segment in self._segments))

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        if self._file is not None:
            self._file.close()
            self._file = None

    def first_index(self) -> int:
        """Index of the oldest entry held."""
        return self._entries[0][1]

    def last_index(self) -> int:
        """Index of the newest entry."""
        return self._entries[-1][1]

    def entry(self, index: int) -> Entry:
        """The entry at a log index between first_index and last_index."""
        return self._entries[index - self._entries[0][1]]

    def from_index(self, index: int) -> list[Entry]:
        """All entries from a log index on."""
        return self._entries[max(0, index - self._entries[0][1]) :]

    # -- pysyncobj's journal interface

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append; durable at the next sync."""
        entry = (command, idx, term)
        self._entries.append(entry)
        self._segments[-1].last_index = max(self._segments[-1].last_index, idx)
        self._records.append(_entry_record(entry))

    def clear(self) -> None:
        """Never right here: see `reset`."""
        raise NotImplementedError("a Raft log is replaced as a whole, by reset()")

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N803
        """Drop the entries from that position on."""
        if entryFrom < len(self._entries):
            self._records.append(_TRUNCATE.pack(b"T", self._entries[entryFrom][1]))
            del self._entries[entryFrom:]

    def deleteEntriesTo(self, entryTo: int) -> None:  # noqa: N803
        """Drop the entries before that position, and the segments that hold nothing else."""
        if entryTo > 0:
            self._entries = self._entries[entryTo:]
            first = self._entries[0][1]
            spent = 0
            while spent < len(self._segments) - 1 and self._segments[spent].last_index < first:
                spent += 1
            self._delete_segments(spent)
        if self.stale:
            self.reset(self._entries)

    @overload
    def __getitem__(self, item: int) -> Entry: ...
    @overload
    def __getitem__(self, item: slice) -> list[Entry]: ...
    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N803
        """Remember the commit index; on the leader, first make its own copy durable."""
        if raftCommitIndex != self._commit_index:
            self._commit_index = raftCommitIndex
            if self.leading:
                self.sync()

    def getRaftCommitIndex(self) -> int:
        """Never beyond the end of the log, whatever was remembered."""
        return min(self._commit_index, self._entries[-1][1] if self._entries else 1)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N803
        """Durable on return: a vote forgotten could be cast twice."""
        self._term, self._vote = term, votedForNodeId
        self._records.append(self._ballot_record())
        self.sync()

    def getCurrentTerm(self) -> int:
        """The newest term seen."""
        return self._term

    def getVotedForNodeId(self) -> str | None:
        """Whom this node voted for in that term."""
        return self._vote

    def onOneSecondTimer(self) -> None:
        """Nothing is put off to a timer."""

    def _destroy(self) -> None:
        self.close()


def _sealed_frame(cipher: FrameCipher, sequence: int, records: list[bytes]) -> bytes:
    return encode_frame(sequence, cipher.encrypt(sequence, payload_of(records)))


def _entry_record(entry: Entry) -> bytes:
    return _ENTRY.pack(b"E", entry[1], entry[2]) + entry[0]
