"""Following a service's logs: those of the tasks that it has, and of those that it will get."""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from cluster.errors import ShoalError, Unavailable
from cluster.messages import LogChunk, LogRequest
from cluster.objects import Service, Task
from manager.api.access import Access
from manager.store import View, Watch, WatchLagged

Write = Callable[[Task, LogChunk], Awaitable[None]]


async def follow_service(access: Access, service_id: str, query: LogRequest, write: Write) -> None:
    """Hand over every line until the service is removed and its last task has written its last.

    Raises:
        Unavailable: when this manager no longer leads; and, at the end, when some lines could not be had.
    """
    await _Follower(access, service_id, query, write).run()


class _Follower:
    def __init__(self, access: Access, service_id: str, query: LogRequest, write: Write) -> None:
        self._access = access
        self._service_id = service_id
        self._query = query
        self._write = write
        self._begun: set[str] = set()
        self._problems: list[str] = []

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as readers:
                exists = True
                while exists:
                    view, watch = self._access.store.watch(Service, Task)
                    with watch:
                        exists = await self._until_lagging(readers, view, watch)
        except ExceptionGroup as group:
            # Not except*: what is raised there comes out in a group again.
            lost, other = group.split(Unavailable)
            if lost is None or other is not None:
                raise
            raise lost.exceptions[0] from None
        if self._problems:
            raise Unavailable("; ".join(self._problems))

    async def _until_lagging(self, group: asyncio.TaskGroup, view: View, watch: Watch) -> bool:
        """Begin with every task that comes to have a log; False once the service is gone."""
        for task in view.tasks_of_service(self._service_id):
            self._consider(group, task)
        self._query = replace(self._query, tail=-1)  # what comes later is wanted from its first line
        if view.get(Service, self._service_id) is None:
            return False
        try:
            async for events in watch:
                for event in events:
                    if isinstance(event.new, Task) and event.new.service_id == self._service_id:
                        self._consider(group, event.new)
                    elif event.new is None and event.object.id == self._service_id:
                        return False
        except WatchLagged:
            return True
        return False

    def _consider(self, group: asyncio.TaskGroup, task: Task) -> None:
        """Read a task's log once its container has been started."""
        if task.node_id and task.status.container is not None and task.id not in self._begun:
            self._begun.add(task.id)
            group.create_task(self._read(task, self._query), name=f"logs of {task.id}")

    async def _read(self, task: Task, query: LogRequest) -> None:
        try:
            async for chunk in self._access.logs(replace(query, task_ids=(task.id,))):
                await self._write(task, chunk)
        except ShoalError as error:
            if not self._access.leading():
                raise Unavailable("the managers have a new leader: ask again") from error
            self._problems.append(str(error))
