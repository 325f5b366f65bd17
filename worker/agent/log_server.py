"""Serves the managers' requests for this node's task logs over the session."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Protocol

from cluster.errors import ShoalError
from cluster.messages import LogChunk, LogEnd, LogRequest
from worker.agent.seek import Channel, SessionClosed

log = logging.getLogger("shoal.agent.logs")


class LogSource(Protocol):
    """Where task logs come from."""

    def read(self, task_id: str, request: LogRequest) -> AsyncIterator[LogChunk]:
        """The log of one task, oldest first; ends when the log does, unless `follow`. Raises ShoalError."""


class LogServer:
    """One reader a request and task."""

    def __init__(self, source: LogSource) -> None:
        self._source = source
        self._channel: Channel | None = None
        self._requests: dict[int, asyncio.Task[None]] = {}

    def reset(self, channel: Channel) -> None:
        """A new session: the readers of the old one are of no use."""
        self.close()
        self._channel = channel

    def close(self) -> None:
        """End all readers."""
        for task in self._requests.values():
            task.cancel()
        self._requests.clear()

    def begin(self, request: LogRequest) -> None:
        """Start to send."""
        task = asyncio.create_task(self._serve(request), name=f"logs {request.request}")
        self._requests[request.request] = task
        task.add_done_callback(lambda done: self._finished(request.request, done))

    def cancel(self, request: int) -> None:
        """The reader went away."""
        task = self._requests.pop(request, None)
        if task is not None:
            task.cancel()

    def _finished(self, request: int, task: asyncio.Task[None]) -> None:
        if self._requests.get(request) is task:  # the next session's requests have the same numbers
            del self._requests[request]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sending logs failed", exc_info=error)

    async def _serve(self, request: LogRequest) -> None:
        channel = self._channel
        assert channel is not None, "begin() is only called within a session"
        problems: list[str] = []
        try:
            async with asyncio.TaskGroup() as group:
                for task_id in request.task_ids:
                    group.create_task(self._send(channel, task_id, request, problems))
            await channel.send(LogEnd(request=request.request, error="; ".join(problems)))
        except* SessionClosed:
            pass  # the session's own loop reports it

    async def _send(self, channel: Channel, task_id: str, request: LogRequest, problems: list[str]) -> None:
        try:
            async for chunk in self._source.read(task_id, request):
                await channel.send(chunk)
        except SessionClosed:
            raise
        except (ShoalError, OSError) as error:
            problems.append(f"{task_id}: {error}")
