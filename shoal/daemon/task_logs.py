"""Task logs for the managers: the agent's `LogSource` on this node's containers."""

from collections.abc import AsyncIterator

from cluster.errors import NotFound
from cluster.messages import LogChunk, LogRequest
from worker.agent.container import container_id
from worker.container_logs import ContainerLogs
from worker.logs.reader import LogQuery


class TaskLogs:
    """Implements `worker.agent.log_server.LogSource`."""

    def __init__(self, logs: ContainerLogs) -> None:
        self._logs = logs

    async def read(self, task_id: str, request: LogRequest) -> AsyncIterator[LogChunk]:
        """The entries of the task's container; none when it has no container, yet or any more."""
        query = LogQuery(
            since=request.since,
            until=request.until,
            tail=request.tail,
            follow=request.follow,
            stdout=request.stdout,
            stderr=request.stderr,
        )
        try:
            entries = self._logs.read(container_id(task_id), query)
        except NotFound:
            return
        attributes = self._logs.attributes(container_id(task_id)) if request.details else {}
        async for entry in entries:
            yield LogChunk(
                request=request.request,
                task_id=task_id,
                timestamp=entry.timestamp,
                stream=entry.stream,
                data=entry.data,
                attributes=attributes,
            )
