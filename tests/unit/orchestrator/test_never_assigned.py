"""A task that no node was told of has nobody to report its end."""

import pytest

from cluster.objects import Service, Task, TaskStatus
from cluster.spec import ServiceSpec
from cluster.states import TaskState
from manager.orchestrator.reaper import reap
from tests.fakes.world import World


@pytest.mark.parametrize("desired", [TaskState.SHUTDOWN, TaskState.REMOVE])
def test_a_global_task_that_is_unwanted_before_it_was_assigned_is_deleted(desired: TaskState) -> None:
    world = World()
    node = world.node("n")
    world.put(Service(id="s", spec=ServiceSpec(name="s")))
    status = TaskStatus(state=TaskState.PENDING)
    world.put(Task(id="t", service_id="s", node_id=node.id, status=status, desired_state=desired))
    assert [str(change) for step in reap(world.view, "s").steps for change in step] == ["t: delete"]
