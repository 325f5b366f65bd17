"""The write-ahead log: entries, term and vote, in one file of checksummed frames.

Everything between two syncs is one frame: sequence number, length, checksum of the header, checksum of the
payload. A frame is durable before the next one is written, so a crash can only damage the last one. Recovery
therefore drops a damaged frame if no whole frame follows it (a torn tail, never acknowledged) and refuses to
start if one does (the disk lost something that was acknowledged).

Method names in camel case are pysyncobj's journal interface.
"""
# ruff: noqa: N802

import logging
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn, overload

import msgspec

from manager.raft.disk import AppendFile, Disk
from manager.raft.errors import RaftCorrupt

log = logging.getLogger("shoal.raft.journal")

Entry = tuple[bytes, int, int]
"""(command, index, term), as pysyncobj keeps them."""

_FILE_MAGIC = b"SHOALWAL1\n"
_FRAME_MAGIC = b"SHfr"
_FRAME = struct.Struct("<4sQI")  # magic, sequence number, payload length
_SUMS = struct.Struct("<II")  # crc32 of the 16 bytes before, crc32 of the payload
_HEADER_SIZE = _FRAME.size + _SUMS.size
_LENGTH = struct.Struct("<I")
_ENTRY = struct.Struct("<cQQ")  # kind, index, term
_TRUNCATE = struct.Struct("<cQ")  # kind, first index that goes


class Origin(msgspec.Struct, frozen=True):
    """Whose journal this is, and the members that this node knew when it was made."""

    cluster_id: str
    node_id: str
    members: dict[str, str]


class _Ballot(msgspec.Struct, array_like=True):
    term: int
    vote: str | None
    commit_index: int


class Journal:
    """The log of one node. Any disk error is fail-stop: what may not be durable is never acknowledged."""

    def __init__(self, disk: Disk, path: Path, origin: Origin, fail_stop: Callable[[str], NoReturn]) -> None:
        self._disk = disk
        self._path = path
        self._fail_stop = fail_stop
        self._entries: list[Entry] = []
        self._term = 0
        self._vote: str | None = None
        self._commit_index = 1
        self._records: list[bytes] = []
        self._sequence = 0
        self._file: AppendFile | None = None
        self.origin = origin
        self.leading = False
        """Set while this node leads: its own copy must be durable before a commit is acted upon."""
        self.size = 0
        """Bytes in the file."""
        self.syncs = 0
        disk.remove(self._temporary)
        self.fresh = not disk.exists(path)
        if self.fresh:
            self._rewrite()
        else:
            self._recover()
            if (self.origin.cluster_id, self.origin.node_id) != (origin.cluster_id, origin.node_id):
                raise RaftCorrupt(
                    f"the Raft log {path} belongs to node {self.origin.node_id} of cluster "
                    f"{self.origin.cluster_id}, not to node {origin.node_id} of cluster {origin.cluster_id}"
                )

    @property
    def _temporary(self) -> Path:
        return self._path.with_name(self._path.name + ".tmp")

    # -- recovery

    def _recover(self) -> None:
        source = self._disk.open_read(self._path)
        try:
            data = source.read()
        finally:
            source.close()
        if not data.startswith(_FILE_MAGIC):
            raise RaftCorrupt(f"{self._path} is not a Raft log, or its first bytes are damaged")
        offset = len(_FILE_MAGIC)
        first = True
        while offset < len(data):
            payload = _whole_frame(data, offset, None if first else self._sequence + 1)
            if payload is None:
                if first or _later_frame(data, offset, self._sequence):
                    raise RaftCorrupt(
                        f"the Raft log {self._path} is damaged at byte {offset}, before its end"
                    )
                log.warning(
                    "dropping the torn end of the Raft log",
                    extra={"path": str(self._path), "offset": offset, "bytes": len(data) - offset},
                )
                break
            self._sequence = _FRAME.unpack_from(data, offset)[1]
            self._replay(payload)
            offset += _HEADER_SIZE + len(payload)
            first = False
        if first:
            raise RaftCorrupt(f"the Raft log {self._path} is empty")
        self._file = self._disk.open_append(self._path)
        if offset < len(data):
            self._file.truncate(offset)
            self._file.sync()
        self.size = offset

    def _replay(self, payload: bytes) -> None:
        position = 0
        while position < len(payload):
            (length,) = _LENGTH.unpack_from(payload, position)
            record = payload[position + _LENGTH.size : position + _LENGTH.size + length]
            position += _LENGTH.size + length
            kind = record[:1]
            if kind == b"E":
                _, index, term = _ENTRY.unpack_from(record)
                if self._entries and index != self._entries[-1][1] + 1:
                    raise RaftCorrupt(f"the Raft log {self._path} lacks entries before index {index}")
                self._entries.append((record[_ENTRY.size :], index, term))
            elif kind == b"T":
                _, index = _TRUNCATE.unpack_from(record)
                del self._entries[max(0, index - self._entries[0][1]) :]
            elif kind == b"S":
                ballot = msgspec.msgpack.decode(record[1:], type=_Ballot)
                self._term, self._vote, self._commit_index = ballot.term, ballot.vote, ballot.commit_index
            elif kind == b"O":
                self.origin = msgspec.msgpack.decode(record[1:], type=Origin)
            else:
                raise RaftCorrupt(f"the Raft log {self._path} has a record of unknown kind {kind!r}")

    # -- writing

    def _ballot_record(self) -> bytes:
        return b"S" + msgspec.msgpack.encode(_Ballot(self._term, self._vote, self._commit_index))

    def _frame(self, records: Iterable[bytes]) -> bytes:
        parts = []
        for record in records:
            parts.append(_LENGTH.pack(len(record)))
            parts.append(record)
        payload = b"".join(parts)
        self._sequence += 1
        header = _FRAME.pack(_FRAME_MAGIC, self._sequence, len(payload))
        return header + _SUMS.pack(zlib.crc32(header), zlib.crc32(payload)) + payload

    def sync(self) -> None:
        """Make everything so far durable, as one frame."""
        if not self._records or self._file is None:
            return
        frame = self._frame(self._records)
        self._records = []
        try:
            self._file.write(frame)
            self._file.sync()
        except OSError as error:
            self._fail_stop(f"the Raft log {self._path} can't be written: {error}")
        self.size += len(frame)
        self.syncs += 1

    def _rewrite(self) -> None:
        """Replace the file atomically by one that holds just the present state."""
        records = [b"O" + msgspec.msgpack.encode(self.origin), self._ballot_record()]
        frame = _FILE_MAGIC + self._frame(records + [_entry_record(entry) for entry in self._entries])
        try:
            file = self._disk.create(self._temporary)
            file.write(frame)
            file.sync()
            self._disk.rename(self._temporary, self._path)
        except OSError as error:
            self._fail_stop(f"the Raft log {self._path} can't be rewritten: {error}")
        if self._file is not None:
            self._file.close()
        self._file = file
        self._records = []
        self.size = len(frame)

    def reset(self, entries: Sequence[Entry]) -> None:
        """Durably replace all entries; term and vote stay."""
        self._entries = list(entries)
        self._rewrite()

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
        """Drop the entries before that position, durably and atomically."""
        if entryTo > 0:
            self.reset(self._entries[entryTo:])

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


def _entry_record(entry: Entry) -> bytes:
    return _ENTRY.pack(b"E", entry[1], entry[2]) + entry[0]


def _whole_frame(data: bytes, offset: int, sequence: int | None) -> bytes | None:
    """The payload of the undamaged frame at offset, or None."""
    if offset + _HEADER_SIZE > len(data):
        return None
    magic, number, length = _FRAME.unpack_from(data, offset)
    header_sum, payload_sum = _SUMS.unpack_from(data, offset + _FRAME.size)
    if magic != _FRAME_MAGIC or zlib.crc32(data[offset : offset + _FRAME.size]) != header_sum:
        return None
    if sequence is not None and number != sequence:
        return None
    payload = data[offset + _HEADER_SIZE : offset + _HEADER_SIZE + length]
    if len(payload) < length or zlib.crc32(payload) != payload_sum:
        return None
    return payload


def _later_frame(data: bytes, offset: int, sequence: int) -> bool:
    """Whether an undamaged frame with a later number lies behind offset."""
    found = data.find(_FRAME_MAGIC, offset + 1)
    while found != -1:
        if _whole_frame(data, found, None) is not None and _FRAME.unpack_from(data, found)[1] > sequence:
            return True
        found = data.find(_FRAME_MAGIC, found + 1)
    return False
