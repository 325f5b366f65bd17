"""Virtual time: an asyncio loop that jumps to its next timer, and processes on it that pause and die."""

import asyncio
import heapq
import traceback
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

from cluster.seams import SECOND

START = 1_000 * SECOND
"""The loop's first instant, ns."""
LONGEST = 1_500 * SECOND
"""A run that is not over by then waits for something that will not come."""
MANY_TURNS = 3_000
"""More turns of the loop at one instant are a busy loop."""


class Killed(BaseException):
    """The process died in the middle of this call: nothing that follows in it happens."""


class Stuck(Exception):
    """Nothing is left to happen: every process waits for something that will not come."""


class Failed(AssertionError):
    """Code raised where nobody was there to take it."""


PROCESS: ContextVar["Process | None"] = ContextVar("process", default=None)


class VirtualLoop(asyncio.AbstractEventLoop):
    """Enough of a loop for asyncio's tasks, locks, queues and timeouts. Time is integer nanoseconds."""

    def __init__(self) -> None:
        self.now = START
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[int, int, asyncio.TimerHandle]] = []
        self._serial = 0
        self._instant = self._turns = 0
        self._running = False
        self.steps = 0
        self.over = False
        self.failures: list[str] = []
        self.free_tasks: list[asyncio.Task[Any]] = []

    # --- what asyncio asks of a loop -------------------------------------------------------------------

    def time(self) -> float:
        return self.now / SECOND

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context if context is not None else copy_context())
        if not self.over:
            self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.at(self.now + round(delay * SECOND), callback, *args, context=context)

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.at(round(when * SECOND), callback, *args, context=context)

    def at(self, when: int, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        """Call at that instant, ns; timers of one instant run in the order in which they were set."""
        handle = asyncio.TimerHandle(
            when / SECOND, callback, args, self, context if context is not None else copy_context()
        )
        handle._scheduled = True
        self._serial += 1
        if not self.over:
            heapq.heappush(self._timers, (when, self._serial, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when their time comes."""

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None
    ) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = (
            asyncio.Task(coro, loop=self, name=name)
            if context is None
            else asyncio.Task(coro, loop=self, name=name, context=context)
        )
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is not None:
            process.own(task)
        else:
            self.free_tasks.append(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if self.over or isinstance(error, Killed | asyncio.CancelledError):
            return
        text = "".join(traceback.format_exception(error)) if error is not None else ""
        self.failures.append(f"{context.get('message')}: {error!r}\n{text}")

    # --- running ---------------------------------------------------------------------------------------

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Run until `main` returns. Raises what it raises; Stuck when nothing can happen any more."""
        events._set_running_loop(self)
        self._running = True
        try:
            task = self.create_task(main, name="simulation")
            while not task.done():
                self._turn()
                if self.failures:
                    raise Failed(self.failures[0])
            return task.result()
        finally:
            self._running = False
            events._set_running_loop(None)

    def _turn(self) -> None:
        timers, ready = self._timers, self._ready
        if not ready:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
            if not timers:
                raise Stuck("nothing is left to happen")
            self.now = max(self.now, timers[0][0])
        now = self.now
        if now != self._instant:
            self._instant, self._turns = now, 0
            if now > START + LONGEST:
                raise Failed(f"the run has not come to its end in {LONGEST // SECOND} virtual seconds")
        self._turns += 1
        if self._turns > MANY_TURNS:
            turning = ", ".join(sorted({repr(handle) for handle in ready}))
            raise Failed(f"{MANY_TURNS} turns and no time passes: {turning}")
        while timers and timers[0][0] <= now:
            handle = heapq.heappop(timers)[2]
            if not handle._cancelled:
                ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)
            if process is not None and (process.held or process.stopped or process.busy_until > now):
                process.hold(handle)
                continue
            self.steps += 1
            handle._context.run(handle._callback, *handle._args) if process is None else process.run(handle)

    def bury(self) -> None:
        """End everything that is suspended, quietly: coroutines of dead processes, and of a finished run."""
        self.over = True
        self._ready.clear()
        self._timers.clear()


class Process:
    """What runs under one process id: it can be killed at any instant, stopped and continued, or be slow.

    Everything that its code schedules carries its context, so the loop knows whose it is.
    """

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.alive = True
        self.stopped = False
        self.pause = 0
        """ns that each call-back keeps the processor of a slow node."""
        self.busy_until = 0
        self.held: deque[asyncio.Handle] = deque()
        self.context = copy_context()
        self.context.run(PROCESS.set, self)
        self.on_death: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._prune_at = 256

    def own(self, task: "asyncio.Task[Any]") -> None:
        """Keep the task: one of a dead process must not be collected, which would run its `finally`."""
        tasks = self._tasks
        tasks.append(task)
        if len(tasks) >= self._prune_at:
            self._tasks = [task for task in tasks if not task.done()]
            self._prune_at = max(256, 2 * len(self._tasks))

    def start(self, coro: Coroutine[Any, Any, Any], name: str = "") -> "asyncio.Task[Any]":
        """Run a coroutine in this process. What it raises, if nobody awaits it, is a failure of the run."""
        task = self.loop.create_task(coro, name=name or self.name, context=self.context)
        task.add_done_callback(self._ended, context=self.context)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        if (
            not task.cancelled()
            and (error := task.exception()) is not None
            and not task.get_name().startswith("try")
        ):
            self.loop.call_exception_handler(
                {"message": f"{task.get_name()} of {self.name}", "exception": error}
            )

    def call(self, callback: Callable[..., object], *args: object) -> None:
        """Call in this process, in the loop's next turn."""
        if self.alive:
            self.loop.call_soon(callback, *args, context=self.context)

    def at(self, when: int, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        """Call in this process at that instant."""
        return self.loop.at(when, callback, *args, context=self.context)

    def run(self, handle: asyncio.Handle) -> None:
        """The loop's side: one call-back."""
        if not self.alive:
            return
        if self.pause:
            self.busy_until = self.loop.now + self.pause
        try:
            handle._context.run(handle._callback, *handle._args)
        except Killed:
            return
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a call-back that raises is a defect, and is reported
            self.loop.call_exception_handler({"message": f"in {self.name}", "exception": error})

    # --- held up ---------------------------------------------------------------------------------------

    def hold(self, handle: asyncio.Handle) -> None:
        """The loop's side: a call-back whose turn is not now."""
        if not self.alive:
            return
        if not self.held and not self.stopped:
            self.loop.at(self.busy_until, self._release, context=_NOBODY)
        self.held.append(handle)

    def _release(self) -> None:
        """Run what was held, in order, as far as the process may."""
        while self.held and self.alive and not self.stopped:
            if self.busy_until > self.loop.now:
                self.loop.at(self.busy_until, self._release, context=_NOBODY)
                return
            handle = self.held.popleft()
            if not handle._cancelled:
                self.run(handle)

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = True

    def resume(self) -> None:
        """SIGCONT."""
        if self.stopped:
            self.stopped = False
            self.busy_until = min(self.busy_until, self.loop.now)
            self.loop.call_soon(self._release, context=_NOBODY)

    def kill(self) -> None:
        """SIGKILL: from here on nothing of it happens. Called from inside, raise Killed afterwards."""
        if self.alive:
            self.alive = False
            self.held.clear()
            for callback in self.on_death:
                callback()

    def check(self) -> None:
        """Raise Killed in code that goes on in a dead process."""
        if not self.alive:
            raise Killed

    def tasks(self) -> "list[asyncio.Task[Any]]":
        """Tasks that have not ended."""
        return [task for task in self._tasks if not task.done()]


_NOBODY = Context()


def close_tasks(loop: VirtualLoop, tasks: "list[asyncio.Task[Any]]") -> None:
    """End suspended coroutines for good, so that nothing of them runs, or stays, when they are collected."""
    events._set_running_loop(loop)
    try:
        for task in tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _end(task.get_coro())
    finally:
        events._set_running_loop(None)


def _end(coro: Any) -> None:
    for _ in range(100):  # it may wait again, in each of its `finally`
        try:
            coro.throw(Killed())
        except BaseException:  # noqa: BLE001 - whatever it ends with
            break
    coro.close()
