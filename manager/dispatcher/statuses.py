"""What agents report of their tasks, written to the store in batches.

While one batch is on its way through Raft the next gathers, so the busier the cluster the larger the
batches. A report is acknowledged when it is committed.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from cluster.errors import ShoalError
from cluster.messages import Assignments, StatusAck, TaskStatusUpdate
from cluster.objects import Task
from cluster.seams import MILLISECOND, Clock
from cluster.states import TaskState
from manager.dispatcher.session import Session
from manager.store import OVERTAKEN, Store, Transaction

log = logging.getLogger("shoal.dispatcher.statuses")

RETRY_AFTER = 200 * MILLISECOND


class _Report(NamedTuple):
    session: Session
    updates: Sequence[TaskStatusUpdate]
    number: int | None  # to be acknowledged; None: it was already


def written(task: Task, update: TaskStatusUpdate, now: int) -> Task | None:
    """The task with its new status, or None when that says nothing new. States never go back."""
    status = update.status
    if status.state < task.status.state or replace(status, timestamp=task.status.timestamp) == task.status:
        return None
    if status.state.terminal and task.status.state.terminal and status.state != task.status.state:
        return None  # it ended once; how it ended does not change
    running_at = task.running_at
    if status.state == TaskState.RUNNING and not running_at:
        running_at = now
    return replace(task, status=status, running_at=running_at)


class StatusWriter:
    """Takes reports from sessions; `run` writes them. One per term of leadership."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._reports: deque[_Report] = deque()
        self._arrived = asyncio.Event()

    def take(self, session: Session, updates: Sequence[TaskStatusUpdate], number: int | None = None) -> None:
        """Statuses to be written, and acknowledged as the report of this number."""
        self._reports.append(_Report(session, updates, number))
        session.reports(+1)
        self._arrived.set()

    async def run(self) -> None:
        """Write batch after batch until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._reports:
                batch = list(self._reports)
                self._reports.clear()
                await self._write(batch)

    async def _write(self, batch: list[_Report]) -> None:
        changes = [
            self._change(session.node_id, update) for session, updates, _ in batch for update in updates
        ]
        if changes:
            await self._commit(changes)
        view = self._store.view()
        for session, updates, number in batch:
            session.reports(-1)
            if number is not None:
                session.send(StatusAck(number))
            unknown = tuple(
                update.task_id
                for update in updates
                if (task := view.get(Task, update.task_id)) is None or task.node_id != session.node_id
            )
            if unknown:
                self._remove(session, unknown)

    async def _commit(self, changes: Sequence[Callable[[Transaction], None]]) -> None:
        """Write the changes. One that is refused whatever others do, such as a status that fits in no entry,
        is dropped: it must not keep the others back."""
        while True:
            try:
                await self._store.batch(changes)
                return
            except OVERTAKEN as error:
                log.info("statuses not written yet", extra={"count": len(changes), "reason": str(error)})
                await self._clock.sleep(RETRY_AFTER)
            except ShoalError as error:
                if len(changes) == 1:
                    log.error("a status was refused", extra={"reason": str(error)})
                    return
                for change in changes:
                    await self._commit((change,))
                return

    def _change(self, node_id: str, update: TaskStatusUpdate) -> Callable[[Transaction], None]:
        def change(tx: Transaction) -> None:
            task = tx.get(Task, update.task_id)
            if task is None or task.node_id != node_id:
                return
            new = written(task, update, self._clock.now())
            if new is not None:
                tx.update(new)

        return change

    @staticmethod
    def _remove(session: Session, task_ids: tuple[str, ...]) -> None:
        """Tell an agent that tasks it reports are not (or no longer) its own."""
        for task_id in task_ids:
            session.told.tasks.pop(task_id, None)
        session.told.sequence += 1
        session.send(Assignments(sequence=session.told.sequence, removed_tasks=task_ids))
