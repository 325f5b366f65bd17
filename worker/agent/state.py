"""What the agent remembers across a restart: its tasks with their last statuses, and the network's records.

Tasks go to a journal that is only appended to (replacing a file costs a flush on ext4, six times a task), and
written anew when most of it is out of date. Nothing here is a promise to anyone (the managers hold the
truth), so it is not synced: after a power loss a torn tail is dropped and the managers send the tasks again.
Secrets and configs are never written.
"""

import contextlib
import logging
import struct
import zlib
from pathlib import Path

import msgspec

from cluster.codec import UNREADABLE, Codec
from cluster.dataplane import DataplaneChanges
from cluster.objects import Record, Task, TaskStatus
from worker.agent.disk import AppendFile, Disk, SystemDisk

log = logging.getLogger("shoal.agent")

_FRAME = struct.Struct("<II")  # length and CRC-32 of the record that follows
_SLACK = 1 << 20  # bytes of outdated records that are always tolerated


class Assigned(Record, frozen=True):
    """A task and the status that the agent last gave it."""

    task: Task
    status: TaskStatus


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """A change: a new task, a new status of a known one, or neither: it is forgotten."""

    task_id: str
    task: Task | None = None
    status: TaskStatus | None = None


_entries: Codec[_Entry] = Codec(_Entry)
_records: Codec[DataplaneChanges] = Codec(DataplaneChanges)


class AgentState:
    """Files under one directory."""

    def __init__(self, directory: Path, disk: Disk | None = None) -> None:
        self._directory = directory
        self._disk = disk or SystemDisk()
        self._journal = directory / "tasks.journal"
        self._dataplane = directory / "dataplane.msgpack"
        self._encoder = msgspec.msgpack.Encoder()
        self._tasks: dict[str, Assigned] = {}
        self._file: AppendFile | None = None
        self._size = 0
        self._compact_size = 0
        self._torn = False  # the journal lacks something: it has to be written anew

    def open(self) -> None:
        """Read what is there, and begin a fresh journal with it."""
        self._disk.make_directory(self._directory)
        self._tasks = {}
        with contextlib.suppress(FileNotFoundError):
            self._replay(self._disk.read(self._journal))
        try:
            self._rewrite()
        except OSError as error:
            _report(self._journal, error)
            self._file = self._disk.open_append(self._journal)
            self._torn = True  # written anew with the next change that finds room

    def close(self) -> None:
        """Close the journal."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def load(self) -> list[Assigned]:
        """All remembered tasks."""
        return list(self._tasks.values())

    def save(self, task: Task, status: TaskStatus) -> None:
        """Remember a task and its status."""
        known = self._tasks.get(task.id)
        self._tasks[task.id] = Assigned(task=task, status=status)
        changed = None if known is not None and known.task is task else task
        self._append(_Entry(task.id, changed, status))

    def forget(self, task_id: str) -> None:
        """Forget a task."""
        if self._tasks.pop(task_id, None) is not None:
            self._append(_Entry(task_id))

    def load_dataplane(self) -> DataplaneChanges | None:
        """The network's records as last saved, as one full batch."""
        try:
            return _records.decode(self._dataplane.read_bytes())
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            log.warning("dropping unreadable network records", extra={"error": str(error)})
            return None

    def save_dataplane(self, records: DataplaneChanges) -> None:
        """Remember the network's records."""
        try:
            self._disk.replace(self._dataplane, self._encoder.encode(records))
        except OSError as error:
            _report(self._dataplane, error)

    def clear(self) -> None:
        """Forget everything (the node left its cluster)."""
        self.close()
        self._tasks = {}
        self._disk.remove(self._journal)
        self._disk.remove(self._dataplane)

    # --- the journal --------------------------------------------------------------------------------------

    def _append(self, entry: _Entry) -> None:
        if self._file is None:
            return  # cleared: the last drivers of a node that leaves have nothing to remember
        frame = self._frame(entry)
        try:
            if self._torn or self._size > 2 * self._compact_size + _SLACK:
                self._rewrite()  # it has the entry, too
            else:
                self._torn = self._file.write(frame) < len(frame)
                self._size += len(frame)
        except OSError as error:
            self._torn = True
            _report(self._journal, error)

    def _rewrite(self) -> None:
        content = b"".join(
            self._frame(_Entry(task_id, held.task, held.status)) for task_id, held in self._tasks.items()
        )
        self._disk.replace(self._journal, content)
        file = self._disk.open_append(self._journal)
        self.close()
        self._file = file
        self._size = self._compact_size = len(content)
        self._torn = False

    def _frame(self, entry: _Entry) -> bytes:
        record = _entries.encode(entry)
        return _FRAME.pack(len(record), zlib.crc32(record)) + record

    def _replay(self, content: bytes) -> None:
        offset = 0
        while offset + _FRAME.size <= len(content):
            length, checksum = _FRAME.unpack_from(content, offset)
            record = content[offset + _FRAME.size : offset + _FRAME.size + length]
            # Zeros, as a loss of power leaves them at the end, would be a whole record of no bytes.
            if not record or len(record) < length or zlib.crc32(record) != checksum:
                log.warning("dropping the torn end of the task journal", extra={"offset": offset})
                return
            self._apply(_entries.decode(record))
            offset += _FRAME.size + length

    def _apply(self, entry: _Entry) -> None:
        known = self._tasks.get(entry.task_id)
        task = entry.task or (known.task if known else None)
        if task is None or entry.status is None:
            self._tasks.pop(entry.task_id, None)
        else:
            self._tasks[entry.task_id] = Assigned(task=task, status=entry.status)


def _report(path: Path, error: OSError) -> None:
    """Without its memory the agent works on; what is missing after a restart, the managers send again."""
    log.error("can't write what the agent remembers", extra={"path": str(path), "error": str(error)})
