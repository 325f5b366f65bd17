"""A large state goes to disk and comes back in small pieces."""

from cluster.objects import Config, Network, Service, Task
from cluster.spec import ConfigSpec, NetworkAttachmentConfig, ServiceSpec, TaskSpec
from manager.store import Store
from tests.fakes.clock import ManualClock
from tests.fakes.proposer import LocalProposer


async def filled(clock: ManualClock) -> Store:
    store = Store(clock)
    LocalProposer(store)  # binds itself
    spec = TaskSpec(networks=[NetworkAttachmentConfig(target="n")])
    for number in range(30):
        await store.update(
            lambda tx, number=number: tx.create(
                Config(id=f"c{number}", spec=ConfigSpec(name=f"c{number}", data="x" * 100_000))
            )
        )
    service = Service(id="s", spec=ServiceSpec(name="s", task_template=spec))
    await store.update(lambda tx: tx.create(service))
    tasks = [
        Task(id=f"t{number}", service_id="s", node_id=f"n{number % 3}", spec=spec) for number in range(500)
    ]
    await store.batch([lambda tx, task=task: tx.create(task) for task in tasks])
    return store


async def test_a_chunk_of_a_snapshot_is_small_whatever_the_objects_are() -> None:
    store = await filled(ManualClock())
    assert max(map(len, store.snapshot())) < 300_000


async def test_a_state_is_restored_in_steps_and_is_the_old_one_until_the_last() -> None:
    store = await filled(ManualClock())
    other = Store(ManualClock())
    before = other.view()
    steps = 0
    for _ in other.restoring(store.view().index, store.snapshot()):
        steps += 1
        assert other.view() is before
    assert steps > 30
    assert list(other.view().all(Config)) == list(store.view().all(Config))
    assert list(other.view().all(Task)) == list(store.view().all(Task))
    for one in (store.view(), other.view()):
        assert [task.id for task in one.tasks_of_service("s")] == [f"t{n}" for n in range(500)]
        assert [task.id for task in one.tasks_on_node("n1")] == [f"t{n}" for n in range(500) if n % 3 == 1]
        assert len(one.tasks_using("n")) == 500
        assert [service.id for service in one.services_using("n")] == ["s"]
        assert one.by_name(Config, "C7").id == "c7"
        assert one.by_name(Network, "n") is None
