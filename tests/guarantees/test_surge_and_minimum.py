"""By Shoal's own action never more tasks than the update's surge, and never fewer than its minimum.

Whatever else happens at the same time: failures, roll-backs, drains, lost nodes, scaling, other updates, and
leaders that change between a decision and the last of its writes. What is lost by those is not Shoal's doing;
what these properties watch is each task that Shoal itself stops or makes.
"""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.objects import Node, Service, Task
from cluster.seams import SECOND
from cluster.spec import (
    ContainerSpec,
    GlobalMode,
    ReplicatedMode,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from cluster.states import Availability, NodeState, TaskState, UpdateState
from manager.store import Transaction
from tests.fakes.world import World

NODES = ("a", "b", "c", "d")
ENDED_BY_ITSELF = (TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED)

configs = st.builds(
    UpdateConfig,
    parallelism=st.integers(1, 3),
    delay=st.sampled_from([0, SECOND]),
    order=st.sampled_from(["stop-first", "start-first"]),
    monitor=st.just(SECOND),
    failure_action=st.sampled_from(["pause", "continue", "rollback"]),
    max_failure_ratio=st.sampled_from([0.0, 0.5]),
)

Place = int | str


def place(task: Task) -> Place:
    """A replicated service's slot, a global one's node."""
    return task.slot or task.node_id


class Turmoil:
    """A service that is updated, scaled and shaken; every decision of the managers is looked at."""

    def __init__(
        self, config: UpdateConfig, replicas: int, rng: random.Random, everywhere: bool = False
    ) -> None:
        self.config, self.replicas, self.rng, self.everywhere = config, replicas, rng, everywhere
        self.image = "v1"
        self.world = World(rng.randrange(1000))
        for name in NODES:
            self.world.node(name)
        self.respecify()
        self.world.work()
        self.out_of_service: set[Place] = set()
        """Slots (nodes, of a global service) that Shoal took out of service and has not brought back yet."""
        self.seen: Counter[str] = Counter()

    def respecify(self) -> None:
        """What an operator's create, update and scale do."""
        template = TaskSpec(
            container_spec=ContainerSpec(image=self.image), restart_policy=RestartPolicy(delay=SECOND)
        )
        replicated = ServiceMode(replicated=ReplicatedMode(replicas=self.replicas))
        self.world.service(
            ServiceSpec(
                name="web",
                mode=ServiceMode(global_=GlobalMode()) if self.everywhere else replicated,
                task_template=template,
                update_config=self.config,
                rollback_config=UpdateConfig(
                    parallelism=self.config.parallelism, order=self.config.order, monitor=SECOND
                ),
            )
        )

    # --- what happens -------------------------------------------------------------------------------------

    def step(self) -> None:
        world, rng = self.world, self.rng
        match rng.randrange(12):
            case 0 | 1 | 2 | 3:
                self.decide()
            case 4 | 5:
                world.schedule()
            case 6 | 7 | 8:
                if tasks := world.tasks():
                    world.obey(rng.choice(tasks))
            case 9:
                # Clocks jump, and another manager's clock is another.
                world.now += rng.randrange(2 * SECOND) if rng.randrange(4) else -rng.randrange(SECOND)
            case 10:
                if ready := [task for task in world.tasks() if self.may_fail(task)]:
                    world.report(rng.choice(ready), rng.choice(ENDED_BY_ITSELF))
                    self.seen["failure"] += 1
            case 11:
                self.operate()
        self.brought_back()

    def operate(self) -> None:
        world, rng = self.world, self.rng
        match rng.randrange(4):
            case 0:
                self.replicas = rng.randrange(1, 6)
                self.respecify()
                self.seen["scaled"] += 1
            case 1:
                self.image = rng.choice(["v1", "v2", "v3"])
                self.respecify()
                self.seen["updated"] += 1
            case 2:
                world.set_node(rng.choice(NODES), to=rng.choice(list(Availability)))
                self.seen["drained"] += 1
            case 3:
                world.set_node(rng.choice(NODES), rng.choice([NodeState.DOWN, NodeState.READY]))
                self.seen["lost"] += 1

    def may_fail(self, task: Task) -> bool:
        return TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING

    def decide(self) -> None:
        """A leader decides. Before it has written all of it, tasks may move on and another may take over."""
        world, rng = self.world, self.rng
        before = self.serving()
        plan = world.decide()
        if rng.random() < 0.3:
            if tasks := world.tasks():
                world.obey(rng.choice(tasks))
            before = self.serving()
        writes = list(plan.writes())
        if rng.random() < 0.2:
            writes = writes[: rng.randrange(len(writes) + 1)]
            self.seen["leader changed"] += 1
        for write in writes:
            tx = Transaction(world.view)
            write(tx)
            world._commit(tx)
        self.judge(before)

    # --- what is promised ---------------------------------------------------------------------------------

    def serving(self) -> dict[Place, set[str]]:
        """Tasks that run, should, and may stay where they are, by slot."""
        found: dict[Place, set[str]] = {}
        for task in self.world.running("web"):
            node = self.world.view.get(Node, task.node_id)
            stays = node is not None and node.status.state == NodeState.READY
            if stays and node is not None and node.spec.availability != Availability.DRAIN:
                found.setdefault(place(task), set()).add(task.id)
        return found

    def judge(self, before: dict[Place, set[str]]) -> None:
        after = self.serving()
        for slot in before.keys() - after.keys():
            tasks = [self.world.view.get(Task, id) for id in before[slot]]
            if all(task is None or task.desired_state == TaskState.REMOVE for task in tasks):
                self.seen["scaled down"] += 1  # the operator wanted fewer
                continue
            self.out_of_service.add(slot)
            self.seen["taken out"] += 1
        self.brought_back()
        allowed = 0 if self.config.order == "start-first" else self.config.parallelism
        assert len(self.out_of_service) <= allowed, f"below the minimum: {self.out_of_service}"
        wanted = Counter(
            place(task)
            for task in self.world.tasks("web")
            if task.desired_state <= TaskState.RUNNING
            and not task.status.state.terminal
            and not task.restarts.count  # it replaces one that failed: no surge
        )
        surplus = sum(number - 1 for number in wanted.values())
        assert surplus <= (self.config.parallelism if self.config.order == "start-first" else 0), (
            "above the surge"
        )
        self.seen["surge"] += bool(surplus)

    def brought_back(self) -> None:
        """A slot serves again, is gone, or stays out for another reason than Shoal's: its new task failed, or
        lost its node."""
        serving = self.serving()
        for slot in list(self.out_of_service):
            tasks = [task for task in self.world.tasks("web") if place(task) == slot]
            coming = [task for task in tasks if task.desired_state <= TaskState.RUNNING]
            newest = max(coming, key=lambda task: task.created_at, default=None)
            node = self.world.view.get(Node, newest.node_id) if newest and newest.node_id else None
            misplaced = node is not None and (
                node.status.state != NodeState.READY or node.spec.availability == Availability.DRAIN
            )
            failed = newest is None or newest.status.state.terminal or newest.restarts.count > 0
            if slot in serving or misplaced or failed:
                self.out_of_service.discard(slot)


@settings(max_examples=120, deadline=None)
@given(config=configs, replicas=st.integers(1, 6), everywhere=st.booleans(), seed=st.integers(0, 2**32))
def test_shoal_itself_keeps_to_surge_and_minimum_whatever_happens(
    config: UpdateConfig, replicas: int, everywhere: bool, seed: int
) -> None:
    turmoil = Turmoil(config, replicas, random.Random(seed), everywhere)
    turmoil.image = "v2"
    turmoil.respecify()
    for _ in range(turmoil.rng.randrange(20, 250)):
        turmoil.step()
    world = turmoil.world
    for name in NODES:
        world.set_node(name, NodeState.READY, Availability.ACTIVE)
    world.advance(600)
    running = [place(task) for task in world.running()]
    assert len(running) == len(set(running))
    service = world.view.get(Service, "web")
    assert service is not None
    mode = service.spec.mode.replicated  # a roll-back's, if there was one
    assert len(running) == (len(NODES) if mode is None else mode.replicas)
    status = service.update_status
    if status is None or status.state in (UpdateState.COMPLETED, UpdateState.ROLLBACK_COMPLETED):
        assert {task.spec for task in world.running()} == {service.spec.task_template}


def test_the_property_sees_every_kind_of_trouble() -> None:
    """Otherwise its silence would prove little."""
    seen: Counter[str] = Counter()
    for seed in range(40):
        order = ("stop-first", "start-first")[seed % 2]
        config = UpdateConfig(parallelism=2, order=order, monitor=SECOND, failure_action="rollback")
        turmoil = Turmoil(config, 4, random.Random(seed))
        turmoil.image = "v2"
        turmoil.respecify()
        for _ in range(200):
            turmoil.step()
        seen += turmoil.seen
    kinds = ("failure", "scaled", "updated", "drained", "lost", "leader changed", "taken out", "surge")
    assert all(seen[kind] > 10 for kind in kinds), seen
