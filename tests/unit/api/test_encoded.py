"""Lists that are encoded once are always what they would be if they were encoded anew."""

import asyncio
import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.engine_json import service_json, tasks_json
from cluster.objects import Network, NetworkAttachment, Service, StoreObject, Task, TaskStatus
from cluster.spec import NetworkSpec, ReplicatedMode, ServiceMode, ServiceSpec
from cluster.states import TaskState
from manager.api import encoded
from manager.api.encoded import MAX_ANSWERS, OF_TASKS, Encoded
from manager.store import View
from tests.unit.api.manager import Api, start

NUMBERS = st.integers(0, 3)
WRITES = st.lists(
    st.tuples(st.sampled_from(["service", "task", "network", "label", "fail", "delete", "nothing"]), NUMBERS),
    max_size=12,
)


async def write(api: Api, what: str, number: int) -> None:
    """One change of something, if it can be."""
    view = api.manager.store.view()
    service, task, network = (
        view.get(Service, f"s{number}"),
        view.get(Task, f"t{number}"),
        view.get(Network, f"n{number}"),
    )
    change: StoreObject | None = None
    if what == "service" and service is None:
        mode = ServiceMode(replicated=ReplicatedMode(replicas=number))
        change = Service(id=f"s{number}", spec=ServiceSpec(name=f"s{number}", mode=mode))
    elif what == "task" and task is None:
        attachment = NetworkAttachment(network_id=f"n{number}", addresses=("10.0.0.2/24",))
        change = Task(id=f"t{number}", service_id="s0", slot=1, networks=(attachment,))
    elif what == "network" and network is None:
        change = Network(id=f"n{number}", spec=NetworkSpec(name=f"n{number}"))
    if change is not None:
        await api.put(change)
    elif what == "label" and network is not None:
        labels = {"index": str(view.index)}
        changed = replace(network, spec=replace(network.spec, labels=labels))
        await api.manager.store.update(lambda tx: tx.update(changed))
    elif what == "fail" and task is not None:
        failed = replace(task, status=TaskStatus(state=TaskState.FAILED, timestamp=view.index))
        await api.manager.store.update(lambda tx: tx.update(failed))
    elif what == "delete" and task is not None:
        await api.manager.store.update(lambda tx: tx.delete(Task, f"t{number}"))


def shown(view: View) -> list[Task]:
    """All tasks but those that have ended and whose service is gone."""
    ended = [task.id for task in view.all(Task) if task.status.state > TaskState.RUNNING]
    return [t for t in view.all(Task) if t.id not in ended or view.get(Service, t.service_id) is not None]


@settings(max_examples=25, deadline=None)
@given(writes=WRITES)
def test_lists_are_what_they_would_be_anew(writes: list[tuple[str, int]]) -> None:
    async def story() -> None:
        api = await start()
        for what, number in writes:
            await write(api, what, number)
            view = api.manager.store.view()
            tasks = tasks_json(shown(view), partial(view.get, Network))
            assert await api.ok("GET", "/tasks") == tasks
            assert await api.ok("GET", "/tasks") == tasks
            services = [service_json(service, partial(view.get, Network)) for service in view.all(Service)]
            assert await api.ok("GET", "/services") == services
            told = await api.ok("GET", "/services?status=true")
            assert [
                {**s, "ServiceStatus": t["ServiceStatus"]} for s, t in zip(services, told, strict=True)
            ] == told
            running = sum(task.service_id == "s0" for task in view.all(Task))
            assert all(t["ServiceStatus"]["RunningTasks"] <= running for t in told)
        await api.client.close()

    asyncio.run(story())


async def test_what_has_not_changed_is_not_encoded_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.put(*(Task(id=f"t{number}", service_id="s") for number in range(5)))
    described: list[int] = []

    def counted(tasks: list[Task], network: Any) -> Any:
        described.append(len(tasks))
        return tasks_json(tasks, network)

    monkeypatch.setattr(encoded, "tasks_json", counted)
    await api.ok("GET", "/tasks")
    await api.ok("GET", "/tasks")
    await api.put(Task(id="t9", service_id="s"))
    await api.put(Service(id="s", spec=ServiceSpec(name="s")))
    await api.ok("GET", '/tasks?filters={"service":["s"]}')
    assert described == [5, 1]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, view = Encoded(), View.empty()
    for number in range(100):
        assert kept.answer(number, view, OF_TASKS, lambda: b"x" * 100) == b"x" * 100
    assert (len(kept._answers), kept._bytes) == (MAX_ANSWERS, 100 * MAX_ANSWERS)
    monkeypatch.setattr(encoded, "MAX_BYTES", 250)
    kept.answer("one more", view, OF_TASKS, lambda: b"x" * 100)
    assert (len(kept._answers), kept._bytes) == (2, 200)
    kept.answer("too large", view, OF_TASKS, lambda: b"x" * 1000)
    assert (len(kept._answers), kept._bytes) == (2, 200)


async def test_pieces_of_what_is_gone_are_forgotten(api: Api) -> None:
    kept = Encoded()
    for round in range(5):
        tasks = [Task(id=f"t{round}-{number}") for number in range(100)]
        await api.put(*tasks)
        assert (
            len(json.loads(kept.tasks(api.manager.store.view(), api.manager.store.view().all(Task)))) == 100
        )
        await api.manager.store.update(lambda tx, tasks=tasks: [tx.delete(Task, task.id) for task in tasks])
    assert len(kept._tasks._known) <= 300
