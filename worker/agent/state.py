"""What the agent remembers across a restart: its tasks with their last statuses, and the network's records.

One file a task, replaced whole. Nothing here is a promise to anyone (the managers hold the truth), so files
are not synced: after a power loss a torn file is dropped and the managers send the task again. Secrets and
configs are never written.
"""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from cluster.dataplane import DataplaneChanges
from cluster.objects import Record, Task, TaskStatus

log = logging.getLogger("shoal.agent")


class Assigned(Record, frozen=True):
    """A task and the status that the agent last gave it."""

    task: Task
    status: TaskStatus


class AgentState:
    """Files under one directory, mode 0600 because specs may hold credentials."""

    def __init__(self, directory: Path) -> None:
        self._tasks = directory / "tasks"
        self._dataplane = directory / "dataplane.msgpack"
        self._encoder = msgspec.msgpack.Encoder()

    def open(self) -> None:
        """Make the directory; drop half-written files."""
        self._tasks.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in self._tasks.glob("*.tmp"):
            leftover.unlink()

    def load(self) -> list[Assigned]:
        """All remembered tasks."""
        found = []
        for path in sorted(self._tasks.glob("*.msgpack")):
            try:
                found.append(msgspec.msgpack.decode(path.read_bytes(), type=Assigned))
            except msgspec.DecodeError as error:
                log.warning(
                    "dropping an unreadable task file", extra={"path": str(path), "error": str(error)}
                )
                path.unlink()
        return found

    def save(self, task: Task, status: TaskStatus) -> None:
        """Remember a task."""
        self._write(
            self._tasks / f"{task.id}.msgpack", self._encoder.encode(Assigned(task=task, status=status))
        )

    def forget(self, task_id: str) -> None:
        """Forget a task."""
        (self._tasks / f"{task_id}.msgpack").unlink(missing_ok=True)

    def load_dataplane(self) -> DataplaneChanges | None:
        """The network's records as last saved, as one full batch."""
        try:
            return msgspec.msgpack.decode(self._dataplane.read_bytes(), type=DataplaneChanges)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            log.warning("dropping unreadable network records", extra={"error": str(error)})
            return None

    def save_dataplane(self, records: DataplaneChanges) -> None:
        """Remember the network's records."""
        self._write(self._dataplane, self._encoder.encode(records))

    def clear(self) -> None:
        """Forget everything (the node left its cluster)."""
        self._dataplane.unlink(missing_ok=True)
        for path in _files(self._tasks):
            path.unlink()

    def _write(self, path: Path, data: bytes) -> None:
        temporary = path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(path)


def _files(directory: Path) -> Iterable[Path]:
    return directory.iterdir() if directory.is_dir() else ()
