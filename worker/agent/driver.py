"""Drives one task from assignment to removal, through `task_machine.next_action`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from msgspec.structs import replace

from cluster.errors import ShoalError
from cluster.objects import ContainerStatus, Task, TaskStatus
from cluster.seams import SECOND, Clock
from cluster.states import TaskState
from worker.agent.executor import Ended, Executor, Found, TaskFailed, TaskRejected
from worker.agent.task_machine import Action, ended_state, next_action

log = logging.getLogger("shoal.agent")

# An unhealthy task stays up this long after it was reported, so that every node's balancer drops it first.
UNHEALTHY_GRACE = SECOND

T = TypeVar("T")


class TaskDriver:
    """One task on this node. `report` is called with every new status."""

    def __init__(
        self,
        task: Task,
        status: TaskStatus,
        executor: Executor,
        clock: Clock,
        report: Callable[[Task, TaskStatus], None],
    ) -> None:
        self.task = task
        self.status = status
        self._executor = executor
        self._clock = clock
        self._report = report
        self._removed = False
        self._changed = asyncio.Event()

    def update(self, task: Task) -> None:
        """The managers changed the task; only what they want of it counts, not what they think it is."""
        self.task = task
        self._changed.set()

    def remove(self) -> None:
        """The managers dropped the task: stop it if need be and forget it."""
        self._removed = True
        self._changed.set()

    async def run(self) -> None:
        """Drive the task until it is removed. Cancel it to let go of a running container unharmed."""
        await self._persistently("adopting", self._adopt)
        while True:
            self._changed.clear()
            action = next_action(self.status.state, self.task.desired_state, self._removed)
            try:
                match action:
                    case Action.ACCEPT:
                        self._set(TaskState.ACCEPTED, "accepted")
                    case Action.PREPARE:
                        await self._prepare()
                    case Action.START:
                        await self._start()
                    case Action.AWAIT_EXIT:
                        await self._await_exit()
                    case Action.STOP:
                        await self._stop()
                    case Action.AWAIT_START | Action.AWAIT_REMOVAL:
                        await self._changed.wait()
                    case Action.REMOVE:
                        await self._executor.remove(self.task)
                        return
            except TaskRejected as error:
                self._set(TaskState.REJECTED, "preparing", error=str(error))
            except TaskFailed as error:
                self._set(TaskState.FAILED, "starting", error=str(error), container=error.container)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is logged and becomes the task's
                # One task that can't be driven must not take the node's others with it.
                await self._fail(action, error)

    async def _fail(self, action: Action, error: Exception) -> None:
        self._log(action.name.lower(), error)
        if action in (Action.STOP, Action.REMOVE):
            # Trying again is all that can be done: the container must not outlive its task.
            await self._clock.sleep(SECOND)
            return
        container = None
        if action in (Action.START, Action.AWAIT_EXIT):
            container = (await self._persistently("stopping", self._stop_container)).container
        state = TaskState.REJECTED if self.status.state < TaskState.STARTING else TaskState.FAILED
        self._set(state, action.name.lower(), error=_words(error), container=container)

    async def _persistently(self, what: str, work: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await work()
            except Exception as error:  # noqa: BLE001 - what must be done is tried until it is done
                self._log(what, error)
                await self._clock.sleep(SECOND)

    def _log(self, what: str, error: Exception) -> None:
        expected = isinstance(error, ShoalError | OSError)
        log.error(
            "a task's step failed",
            extra={"task": self.task.id, "step": what, "error": _words(error)},
            exc_info=None if expected else error,
        )

    async def _stop_container(self) -> Ended:
        return await self._executor.stop(self.task)

    async def _adopt(self) -> None:
        """After a restart: compare what was last reported with what is there."""
        if self.status.state < TaskState.PREPARING or self.status.state.terminal:
            return
        found = await self._executor.find(self.task)
        if found is Found.ENDED and self.status.state >= TaskState.STARTING:
            self._ended(await self._executor.wait(self.task))
        elif found is Found.NOTHING and self.status.state >= TaskState.STARTING:
            self._set(TaskState.FAILED, "started", error="the container was lost while the node was down")
        elif found is Found.RUNNING and self.status.state < TaskState.STARTING:
            self._set(TaskState.STARTING, "starting")
        elif self.status.state < TaskState.STARTING:
            # Prepared again from the beginning: what is there may be half, or may lack its secrets.
            self.status = replace(self.status, state=TaskState.ACCEPTED)

    async def _prepare(self) -> None:
        self._set(TaskState.PREPARING, "preparing")
        if await self._unless_stopped(self._executor.prepare(self.task)) is not _STOPPED:
            self._set(TaskState.READY, "prepared")

    async def _start(self) -> None:
        self._set(TaskState.STARTING, "starting")
        started = await self._executor.start(self.task)
        self._set(TaskState.STARTING, "starting", container=started.container)
        verdict = await self._unless_stopped(self._executor.healthy(self.task))
        if verdict is _STOPPED:
            return
        if not verdict:
            await self._end_unhealthy()
            return
        self.status = replace(self.status, ports=started.ports)
        self._set(TaskState.RUNNING, "started", container=started.container)

    async def _await_exit(self) -> None:
        waiting = asyncio.ensure_future(self._executor.wait(self.task))
        sick = asyncio.ensure_future(self._executor.unhealthy(self.task))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((waiting, sick, changed), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                self._ended(waiting.result())
            elif sick.done():
                sick.result()
                self.status = replace(self.status, healthy=False)
                self._set(TaskState.RUNNING, "unhealthy")
                await self._clock.sleep(UNHEALTHY_GRACE)
                await self._end_unhealthy()
        finally:
            await _cancel(waiting, sick, changed)

    async def _end_unhealthy(self) -> None:
        ended = await self._persistently("stopping", self._stop_container)
        self._set(TaskState.FAILED, "stopped", error="task: unhealthy container", container=ended.container)

    async def _stop(self) -> None:
        if self.status.state < TaskState.PREPARING:
            self._set(TaskState.SHUTDOWN, "shutdown before it was started")
            return
        ended = await self._executor.stop(self.task)
        if self.status.state < TaskState.STARTING:
            # Nothing ran, so there are no logs to keep.
            await self._executor.remove(self.task)
        self._set(TaskState.SHUTDOWN, "shutdown", container=ended.container)

    def _ended(self, ended: Ended) -> None:
        state = ended_state(ended.container.exit_code)
        error = ended.error or ("" if state is TaskState.COMPLETE else _exit_text(ended.container))
        self._set(
            state,
            "finished" if state is TaskState.COMPLETE else "started",
            error=error,
            container=ended.container,
        )

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> "T | object":
        """The work's result, or `_STOPPED` when the task should stop before it is done."""
        working = asyncio.ensure_future(work)
        try:
            while True:
                changed = asyncio.ensure_future(self._changed.wait())
                try:
                    await asyncio.wait((working, changed), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await _cancel(changed)
                if working.done():
                    return working.result()
                self._changed.clear()
                if self._removed or self.task.desired_state >= TaskState.SHUTDOWN:
                    self._changed.set()
                    return _STOPPED
        finally:
            await _cancel(working)

    def _set(
        self, state: TaskState, message: str, *, error: str = "", container: ContainerStatus | None = None
    ) -> None:
        self.status = replace(
            self.status,
            state=max(state, self.status.state),
            timestamp=self._clock.now(),
            message=message,
            error=error,
            container=container or self.status.container,
        )
        self._report(self.task, self.status)


_STOPPED = object()


def _words(error: Exception) -> str:
    if isinstance(error, ShoalError | OSError):
        return str(error)
    return f"internal error: {type(error).__name__}: {error}"


def _exit_text(container: ContainerStatus) -> str:
    return f"task: non-zero exit ({container.exit_code})"


async def _cancel(*futures: "asyncio.Future[Any]") -> None:
    """Cancel those that still run and wait until they have let go."""
    pending = [future for future in futures if not future.done()]
    for future in pending:
        future.cancel()
    if pending:
        await asyncio.wait(pending)
    for future in pending:
        if not future.cancelled() and (error := future.exception()) is not None:
            log.debug("dropped an error of cancelled work", extra={"error": str(error)})
