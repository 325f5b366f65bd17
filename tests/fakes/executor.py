"""An executor without a machine: tests say what happens to each container."""

import asyncio

from cluster.objects import ContainerStatus, Task
from worker.agent.executor import Ended, Found, Started, TaskFailed


class FakeExecutor:
    """Records the verbs it was asked for; `exits`, `verdicts` and `sick` decide what containers do."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.exits: dict[str, asyncio.Future[Ended]] = {}
        self.verdicts: dict[str, asyncio.Future[bool]] = {}
        self.sick: dict[str, asyncio.Event] = {}
        self.found: dict[str, Found] = {}
        self.prepare_gate: asyncio.Event | None = None
        self.prepare_error: Exception | None = None
        self.start_error: TaskFailed | None = None
        self.stop_errors: list[Exception] = []  # one for each of the next stops

    def exit(self, task_id: str, code: int = 0, error: str = "") -> None:
        """The container ends by itself."""
        self._exit(task_id).set_result(Ended(ContainerStatus(container_id=task_id, exit_code=code), error))

    def _exit(self, task_id: str) -> "asyncio.Future[Ended]":
        return self.exits.setdefault(task_id, asyncio.get_running_loop().create_future())

    async def prepare(self, task: Task) -> None:
        self.calls.append(f"prepare {task.id}")
        if self.prepare_gate is not None:
            await self.prepare_gate.wait()
        if self.prepare_error is not None:
            raise self.prepare_error

    async def start(self, task: Task) -> Started:
        self.calls.append(f"start {task.id}")
        if self.start_error is not None:
            raise self.start_error
        return Started(ContainerStatus(container_id=task.id, pid=42))

    async def healthy(self, task: Task) -> bool:
        verdict = self.verdicts.get(task.id)
        return True if verdict is None else await asyncio.shield(verdict)

    async def unhealthy(self, task: Task) -> None:
        await self.sick.setdefault(task.id, asyncio.Event()).wait()

    async def wait(self, task: Task) -> Ended:
        return await asyncio.shield(self._exit(task.id))

    async def stop(self, task: Task) -> Ended:
        self.calls.append(f"stop {task.id}")
        if self.stop_errors:
            raise self.stop_errors.pop(0)
        return Ended(ContainerStatus(container_id=task.id, exit_code=143))

    async def remove(self, task: Task) -> None:
        self.calls.append(f"remove {task.id}")

    async def find(self, task: Task) -> Found:
        return self.found.get(task.id, Found.NOTHING)

    def remains(self) -> list[str]:
        return [task_id for task_id, found in self.found.items() if found is not Found.NOTHING]
