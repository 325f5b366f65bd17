"""Sends task statuses to the leader: batched, the newest for each task, again after a new session."""

import asyncio

from cluster.messages import StatusReport, TaskStatusUpdate
from cluster.objects import TaskStatus
from worker.agent.seek import Channel


class Reporter:
    """Statuses that the leader has not acknowledged yet. One report is under way at a time."""

    def __init__(self) -> None:
        self._pending: dict[str, TaskStatus] = {}
        self._sent: dict[str, TaskStatus] = {}
        self._number = 0
        self._wake = asyncio.Event()

    def put(self, task_id: str, status: TaskStatus) -> None:
        """A task has a new status."""
        self._pending[task_id] = status
        self._wake.set()

    def acknowledged(self, number: int) -> None:
        """The leader committed report `number`."""
        if number == self._number:
            self._sent.clear()
            self._wake.set()

    def reset(self) -> None:
        """A new session: what was under way may be lost, so it is due again, unless something newer is."""
        self._pending = self._sent | self._pending
        self._sent = {}
        self._wake.set()

    async def run(self, channel: Channel) -> None:
        """Send until cancelled or the session breaks."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._sent or not self._pending:
                continue
            self._sent, self._pending = self._pending, {}
            self._number += 1
            updates = tuple(TaskStatusUpdate(task_id, status) for task_id, status in self._sent.items())
            await channel.send(StatusReport(number=self._number, updates=updates))
