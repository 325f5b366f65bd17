"""The six states of an update, with the times and words that clients read (SwarmKit's)."""

import pytest
from msgspec.structs import replace

from cluster.objects import Service, UpdateStatus
from cluster.seams import SECOND
from cluster.spec import (
    ContainerSpec,
    ReplicatedMode,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from cluster.states import TaskState, UpdateState
from manager.api.services import respecified, rolled_back
from tests.fakes.world import START, World


def spec(
    image: str, action: str = "pause", ratio: float = 0.0, replicas: int = 2, delay: int = 0
) -> ServiceSpec:
    config = UpdateConfig(
        parallelism=1,
        delay=delay,
        failure_action=action,
        monitor=2 * SECOND,
        max_failure_ratio=ratio,
    )
    return ServiceSpec(
        name="web",
        mode=ServiceMode(replicated=ReplicatedMode(replicas=replicas)),
        task_template=TaskSpec(
            container_spec=ContainerSpec(image=image), restart_policy=RestartPolicy(delay=60 * SECOND)
        ),
        update_config=config,
        rollback_config=UpdateConfig(parallelism=0, failure_action="pause", monitor=3 * SECOND),
    )


def world(replicas: int = 2) -> World:
    made = World()
    made.node("a")
    made.service(spec("v1", replicas=replicas))
    made.work()
    made.now += 100 * SECOND
    return made


def service(of: World) -> Service:
    found = of.view.get(Service, "web")
    assert found is not None
    return found


def status(of: World) -> UpdateStatus:
    found = service(of).update_status
    assert found is not None
    return found


def fail_newest(of: World, image: str) -> str:
    """The running task of that image that was made last fails."""
    task = [t for t in of.running() if t.spec.container_spec and t.spec.container_spec.image == image][-1]
    of.report(task, TaskState.FAILED)
    return task.id


def seconds(time: int) -> float:
    return (time - START) / SECOND


def test_updating_and_completed() -> None:
    of = world()
    of.service(spec("v2"))
    of.tick()
    assert (status(of).state, status(of).message) == (UpdateState.UPDATING, "update in progress")
    assert (seconds(status(of).started_at), status(of).completed_at) == (100, 0)
    of.advance(10)
    assert (status(of).state, status(of).message) == (UpdateState.COMPLETED, "update completed")
    assert (seconds(status(of).started_at), seconds(status(of).completed_at)) == (100, 102)


def test_paused_and_resumed_by_the_next_write_of_the_same_spec() -> None:
    of = world()
    of.service(spec("v2", delay=5 * SECOND))
    of.work()
    of.now += SECOND
    failed = fail_newest(of, "v2")
    of.work()
    assert status(of).state is UpdateState.PAUSED
    assert status(of).message == f"update paused due to failure or early termination of task {failed}"
    assert (seconds(status(of).started_at), status(of).completed_at) == (100, 0)
    before = [task.id for task in of.tasks()]
    of.advance(30)
    assert [task.id for task in of.tasks()] == before, "a paused update changes nothing"

    of.put(respecified(service(of), service(of).spec, of.now))
    of.advance(120)
    assert status(of).state is UpdateState.COMPLETED
    assert service(of).previous_spec == spec("v1"), "to be rolled back still returns to what ran before"


def test_the_ratio_of_failures_that_is_put_up_with() -> None:
    of = world(replicas=4)
    of.service(spec("v2", ratio=0.5, replicas=4))
    of.work()
    for _ in range(2):
        fail_newest(of, "v2")
        of.work()
        assert status(of).state is UpdateState.UPDATING, "two of four are no more than half"
    fail_newest(of, "v2")
    of.work()
    assert status(of).state is UpdateState.PAUSED


@pytest.mark.parametrize("percent", [0, 7, 29, 58, 100])
def test_exactly_the_ratio_is_put_up_with(percent: int) -> None:
    of = world(replicas=100)
    update = spec("v2", ratio=percent / 100, replicas=100)
    config = replace(update.update_config or UpdateConfig(), parallelism=0)
    of.service(replace(update, update_config=config))
    of.work()
    tasks = [task for task in of.running() if task.spec_version > 0 and of.now == task.created_at]
    assert len(tasks) == 100
    for task in tasks[:percent]:
        of.report(task, TaskState.FAILED)
    of.work()
    assert status(of).state is UpdateState.UPDATING
    for task in tasks[percent : percent + 1]:
        of.report(task, TaskState.FAILED)
        of.work()
        assert status(of).state is UpdateState.PAUSED


def test_continue_never_stops() -> None:
    of = world()
    of.service(spec("v2", action="continue"))
    of.work()
    for _ in range(2):
        fail_newest(of, "v2")
        of.work()
    of.advance(200)
    assert status(of).state is UpdateState.COMPLETED


def test_rolled_back_by_itself() -> None:
    of = world()
    of.service(spec("v2", action="rollback"))
    of.work()
    of.now += SECOND
    failed = fail_newest(of, "v2")
    of.tick()
    assert status(of).state is UpdateState.ROLLBACK_STARTED
    assert status(of).message == f"update rolled back due to failure or early termination of task {failed}"
    assert (seconds(status(of).started_at), status(of).completed_at) == (100, 0), "the update's start is kept"
    assert service(of).spec == spec("v1")
    assert service(of).previous_spec is None, "there is nothing to return to from there"
    of.advance(30)
    assert (status(of).state, status(of).message) == (UpdateState.ROLLBACK_COMPLETED, "rollback completed")
    assert seconds(status(of).completed_at) == 104, "after the roll-back's own monitoring period"


def test_a_rollback_that_fails_pauses() -> None:
    of = world()
    of.service(spec("v2", action="rollback"))
    of.work()
    fail_newest(of, "v2")
    of.work()
    failed = fail_newest(of, "v1")
    of.work()
    assert status(of).state is UpdateState.ROLLBACK_PAUSED
    assert status(of).message == f"rollback paused due to failure or early termination of task {failed}"


def test_rolled_back_by_hand() -> None:
    of = world()
    of.service(spec("v2"))
    of.advance(20)
    of.put(rolled_back(service(of), of.view.index, of.now))
    assert (status(of).state, status(of).message) == (
        UpdateState.ROLLBACK_STARTED,
        "manually requested rollback",
    )
    assert (seconds(status(of).started_at), status(of).completed_at) == (120, 0)
    of.advance(20)
    assert status(of).state is UpdateState.ROLLBACK_COMPLETED
    images = {t.spec.container_spec.image for t in of.running() if t.spec.container_spec}
    assert images == {"v1"}
    assert service(of).previous_spec == spec("v2"), "to be rolled back once more returns to it"
    of.put(replace(rolled_back(service(of), of.view.index, of.now)))
    of.advance(20)
    images = {t.spec.container_spec.image for t in of.running() if t.spec.container_spec}
    assert images == {"v2"}
