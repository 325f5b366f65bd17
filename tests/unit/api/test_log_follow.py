"""Following a service's logs through tasks that come and go."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from cluster.errors import Unavailable
from cluster.messages import LogChunk, LogRequest
from cluster.objects import ContainerStatus, Service, Task, TaskStatus
from cluster.states import TaskState
from manager.api.log_follow import follow_service
from tests.unit.api.manager import LoneManager

QUERY = LogRequest(request=0, task_ids=(), follow=True, since=0, until=0, tail=3, stdout=True, stderr=True)


class Manager(LoneManager):
    """Each task's log is one line; that of `lost` can't be had."""

    leads = True

    def leading(self) -> bool:
        return self.leads

    async def logs(self, query: LogRequest) -> AsyncIterator[LogChunk]:
        self.log_requests.append(query)
        (id,) = query.task_ids
        if id == "lost":
            raise Unavailable("node w1 is not connected")
        yield LogChunk(request=0, task_id=id, timestamp=1, stream=1, data=b"line\n")


async def begin(manager: Manager) -> tuple[asyncio.Task[None], "asyncio.Queue[str]"]:
    lines: asyncio.Queue[str] = asyncio.Queue()

    async def write(task: Task, chunk: LogChunk) -> None:
        assert chunk.task_id == task.id
        lines.put_nowait(task.id)

    following = asyncio.create_task(follow_service(manager, "web", QUERY, write))
    await asyncio.sleep(0)
    return following, lines


async def put(manager: Manager, *tasks: Task) -> None:
    await manager.store.update(lambda tx: [tx.create(task) for task in tasks])


def task(id: str, service: str = "web", *, started: bool = True) -> Task:
    container = ContainerStatus(container_id="c") if started else None
    status = TaskStatus(state=TaskState.RUNNING if started else TaskState.STARTING, container=container)
    return Task(id=id, service_id=service, node_id="w1", status=status)


@pytest.fixture
async def manager() -> Manager:
    made = Manager()
    await made.store.update(lambda tx: [tx.create(Service(id="web"))])
    return made


async def test_tasks_that_come_later_are_read_once_they_have_started(manager: Manager) -> None:
    await put(manager, task("first"))
    following, lines = await begin(manager)
    assert await lines.get() == "first"
    await put(manager, task("later", started=False), task("foreign", service="db"))
    started = replace(manager.store.view().get(Task, "later") or task("later"), status=task("later").status)
    await manager.store.update(lambda tx: tx.update(started))
    assert await lines.get() == "later"
    assert lines.empty()
    assert [query.tail for query in manager.log_requests] == [3, -1]
    await manager.store.update(lambda tx: tx.delete(Service, "web"))
    await following


async def test_what_could_not_be_had_is_told_at_the_end(manager: Manager) -> None:
    await put(manager, task("lost"), task("kept"))
    following, lines = await begin(manager)
    assert await lines.get() == "kept"
    await manager.store.update(lambda tx: tx.delete(Service, "web"))
    with pytest.raises(Unavailable, match="node w1 is not connected"):
        await following


async def test_it_ends_with_the_leadership(manager: Manager) -> None:
    following, _ = await begin(manager)
    manager.leads = False
    await put(manager, task("lost"))
    with pytest.raises(Unavailable, match="new leader"):
        await following
