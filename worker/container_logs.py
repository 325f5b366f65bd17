"""The logs of this node's containers."""

from collections.abc import AsyncGenerator

from cluster.errors import Conflict
from worker.logs.attributes import attributes
from worker.logs.format import LogEntry
from worker.logs.reader import LogQuery, read_log
from worker.runtime.inotify import Inotify
from worker.runtime.oci import OCIRuntime


class ContainerLogs:
    """Reads logs by container id, and follows them until their container has ended."""

    def __init__(self, runtime: OCIRuntime) -> None:
        self._runtime = runtime
        self._inotify = Inotify()

    def close(self) -> None:
        """End all watches."""
        self._inotify.close()

    def attributes(self, container_id: str) -> dict[str, str]:
        """What `details` shows before each line. Raises NotFound."""
        return attributes(self._runtime.get(container_id)[0])

    def read(self, container_id: str, query: LogQuery) -> AsyncGenerator[LogEntry, None]:
        """The entries. Raises NotFound for an unknown container, Conflict for one that keeps no log."""
        if self._runtime.get(container_id)[0].log.driver == "none":
            raise Conflict("configured logging driver does not support reading")
        path = self._runtime.log_path(container_id)
        return read_log(path, query, self._inotify, lambda: self._runtime.wait(container_id))
