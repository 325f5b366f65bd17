"""The sentences that `service ps` shows."""

from msgspec.structs import replace

from cluster.objects import Task
from cluster.seams import SECOND
from cluster.spec import ReplicatedMode, RestartPolicy, ServiceMode, ServiceSpec, TaskSpec
from cluster.states import NodeState, TaskState
from manager.orchestrator.explain import explain
from tests.fakes.world import World


def world(replicas: int = 1, condition: str = "any") -> World:
    made = World()
    made.node("a")
    made.node("b")
    restart = RestartPolicy(condition=condition, delay=5 * SECOND)
    spec = ServiceSpec(
        name="web",
        mode=ServiceMode(replicated=ReplicatedMode(replicas=replicas)),
        task_template=TaskSpec(restart_policy=restart),
    )
    made.service(spec)
    made.work()
    return made


def said(of: World) -> list[str]:
    names = {task.id: f"t{number}" for number, task in enumerate(of.tasks(), 1)}
    sentences = [explain(of.view, task, of.now) for task in of.tasks()]
    for id, name in names.items():
        sentences = [sentence.replace(id, name) for sentence in sentences]
    return sentences


def test_running() -> None:
    assert said(world()) == ["running"]


def test_restart_delay() -> None:
    cluster = world()
    cluster.report(cluster.tasks()[0], TaskState.FAILED)
    cluster.work()
    assert said(cluster) == ["failed; replaced by task t2", "starts in 5.0 s, after the restart delay"]


def test_not_replaced() -> None:
    cluster = world(condition="none")
    cluster.report(cluster.tasks()[0], TaskState.COMPLETE)
    cluster.work()
    assert said(cluster) == ["not replaced: its restart condition is none"]


def test_node_down() -> None:
    cluster = world()
    cluster.set_node("a", NodeState.DOWN)
    cluster.work()
    assert said(cluster) == ["replaced by task t2: node a is down", "running"]


def test_an_error_speaks_for_itself() -> None:
    cluster = world()
    task: Task = cluster.tasks()[0]
    cluster.report(replace(task), TaskState.REJECTED, error="No such image: nope")
    assert said(cluster) == ["No such image: nope"]
