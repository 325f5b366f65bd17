"""A task's driver, told as stories over a fake machine."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from cluster.objects import Task, TaskStatus
from cluster.seams import SystemClock
from cluster.states import TaskState
from tests.fakes.executor import FakeExecutor
from worker.agent import driver as driver_module
from worker.agent.driver import TaskDriver
from worker.agent.executor import Found, TaskFailed, TaskRejected


class Story:
    """One driver with its reports."""

    def __init__(self, state: TaskState = TaskState.ASSIGNED, found: Found = Found.NOTHING) -> None:
        self.executor = FakeExecutor()
        self.executor.found["t"] = found
        self.reports: list[TaskStatus] = []
        self._reported = asyncio.Event()
        self.task = Task(id="t", desired_state=TaskState.RUNNING, status=TaskStatus(state=state))
        self.driver = TaskDriver(self.task, self.task.status, self.executor, SystemClock(), self._report)
        self.running: asyncio.Task[None] | None = None

    def _report(self, _: Task, status: TaskStatus) -> None:
        self.reports.append(status)
        self._reported.set()

    def begin(self) -> None:
        self.running = asyncio.create_task(self.driver.run())

    async def until(self, state: TaskState) -> TaskStatus:
        async with asyncio.timeout(5):
            while self.driver.status.state != state:
                self._reported.clear()
                await self._reported.wait()
        return self.driver.status

    def desire(self, state: TaskState) -> None:
        self.driver.update(replace(self.task, desired_state=state))

    @property
    def states(self) -> list[TaskState]:
        return [status.state for status in self.reports]


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    told = Story()
    yield told
    if told.running is not None:
        told.running.cancel()
        await asyncio.wait((told.running,))


async def test_from_assignment_to_removal(story: Story) -> None:
    story.begin()
    await story.until(TaskState.RUNNING)
    story.desire(TaskState.SHUTDOWN)
    status = await story.until(TaskState.SHUTDOWN)
    assert status.container is not None
    assert status.container.exit_code == 143
    story.driver.remove()
    assert story.running is not None
    await story.running
    assert story.executor.calls == ["prepare t", "start t", "stop t", "remove t"]
    assert story.states == sorted(story.states), "reported states only rise"


async def test_an_exit_with_an_error_is_a_failure(story: Story) -> None:
    story.begin()
    await story.until(TaskState.RUNNING)
    story.executor.exit("t", code=3)
    status = await story.until(TaskState.FAILED)
    assert status.error == "task: non-zero exit (3)"


async def test_a_clean_exit_is_complete(story: Story) -> None:
    story.begin()
    await story.until(TaskState.RUNNING)
    story.executor.exit("t")
    assert (await story.until(TaskState.COMPLETE)).error == ""


async def test_a_pull_is_broken_off_when_the_task_should_stop(story: Story) -> None:
    story.executor.prepare_gate = asyncio.Event()
    story.begin()
    await story.until(TaskState.PREPARING)
    story.desire(TaskState.SHUTDOWN)
    await story.until(TaskState.SHUTDOWN)
    assert "start t" not in story.executor.calls


async def test_a_task_that_can_not_be_prepared_is_rejected(story: Story) -> None:
    story.executor.prepare_error = TaskRejected("No such image: x")
    story.begin()
    assert (await story.until(TaskState.REJECTED)).error == "No such image: x"


async def test_a_container_that_does_not_start_is_failed(story: Story) -> None:
    story.executor.start_error = TaskFailed("exec: not found")
    story.begin()
    assert (await story.until(TaskState.FAILED)).error == "exec: not found"


async def test_running_waits_for_health(story: Story) -> None:
    verdict = story.executor.verdicts["t"] = asyncio.get_running_loop().create_future()
    story.begin()
    await story.until(TaskState.STARTING)
    assert story.driver.status.state is TaskState.STARTING
    verdict.set_result(True)
    await story.until(TaskState.RUNNING)


async def test_an_unhealthy_task_is_withdrawn_before_it_is_stopped(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "UNHEALTHY_GRACE", 0)
    story.begin()
    await story.until(TaskState.RUNNING)
    story.executor.sick.setdefault("t", asyncio.Event()).set()
    status = await story.until(TaskState.FAILED)
    assert status.error == "task: unhealthy container"
    unhealthy = next(i for i, report in enumerate(story.reports) if not report.healthy)
    assert story.reports[unhealthy].state is TaskState.RUNNING, "reported before the container is stopped"


async def test_letting_go_leaves_the_container(story: Story) -> None:
    story.begin()
    await story.until(TaskState.RUNNING)
    assert story.running is not None
    story.running.cancel()
    await asyncio.wait((story.running,))
    assert "stop t" not in story.executor.calls


@pytest.mark.parametrize(
    ("state", "found", "expected"),
    [
        (TaskState.RUNNING, Found.RUNNING, TaskState.RUNNING),
        (TaskState.STARTING, Found.RUNNING, TaskState.RUNNING),
        (TaskState.RUNNING, Found.NOTHING, TaskState.FAILED),
        (TaskState.PREPARING, Found.NOTHING, TaskState.RUNNING),
        (TaskState.READY, Found.CREATED, TaskState.RUNNING),
    ],
)
async def test_adoption_after_a_restart(state: TaskState, found: Found, expected: TaskState) -> None:
    told = Story(state, found)
    told.begin()
    try:
        await told.until(expected)
    finally:
        assert told.running is not None
        told.running.cancel()
        await asyncio.wait((told.running,))


async def test_a_surprise_fails_the_task_and_nothing_else(story: Story) -> None:
    story.executor.prepare_error = ZeroDivisionError("surprise")
    story.begin()
    status = await story.until(TaskState.REJECTED)
    assert status.error == "internal error: ZeroDivisionError: surprise"
    story.driver.remove()
    assert story.running is not None
    await story.running


async def test_a_full_disk_rejects_the_task_in_plain_words(story: Story) -> None:
    story.executor.prepare_error = OSError(28, "No space left on device")
    story.begin()
    status = await story.until(TaskState.REJECTED)
    assert status.error == "[Errno 28] No space left on device"


async def test_a_task_whose_watch_breaks_is_stopped_before_it_counts_as_failed(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "SECOND", 1)
    story.executor.stop_errors = [OSError(24, "Too many open files")]
    story.begin()
    await story.until(TaskState.RUNNING)
    await asyncio.sleep(0)  # until it watches
    story.executor.exits["t"].set_exception(OSError(24, "Too many open files"))
    status = await story.until(TaskState.FAILED)
    assert "Too many open files" in status.error
    assert story.executor.calls == ["prepare t", "start t", "stop t", "stop t"]


@pytest.mark.parametrize("state", [TaskState.PREPARING, TaskState.READY])
@pytest.mark.parametrize("found", [Found.NOTHING, Found.CREATED, Found.ENDED])
async def test_what_had_not_started_before_a_restart_is_prepared_anew(state: TaskState, found: Found) -> None:
    told = Story(state, found)
    told.begin()
    await told.until(TaskState.RUNNING)
    assert told.executor.calls == ["prepare t", "start t"]
    assert told.running is not None
    told.running.cancel()
    await asyncio.wait((told.running,))
