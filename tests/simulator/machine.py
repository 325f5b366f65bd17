"""One node's machine: containers, images, and what its network plane has been told. It outlives shoald."""

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from cluster.dataplane import DataplaneChanges
from cluster.objects import ContainerStatus, Task
from cluster.seams import MILLISECOND, SECOND
from tests.simulator.loop import Process, VirtualLoop
from tests.simulator.network import NOBODY
from worker.agent.executor import Ended, Found, Started, TaskFailed, TaskRejected
from worker.agent.records import DataplaneRecords

if TYPE_CHECKING:
    from tests.simulator.world import World

GRACE = 10 * SECOND
PLANE = 40 * MILLISECOND
"""How long the kernel may take for a batch of records."""


@dataclass(frozen=True)
class Behaviour:
    """How an image's containers behave; times in ns."""

    stops_after: int = 100 * MILLISECOND
    lives: int = 0  # ends by itself after up to so long; 0: never
    exit_code: int = 1
    start_takes: int = 50 * MILLISECOND
    start_fails: bool = False
    fails: float = 0.0  # how often it ends with 1 instead, while things go wrong


BEHAVIOURS = {
    "steady": Behaviour(),
    "slow": Behaviour(stops_after=4 * SECOND, start_takes=2 * SECOND),
    "stubborn": Behaviour(stops_after=GRACE),
    "crashing": Behaviour(lives=20 * SECOND),
    "broken": Behaviour(start_fails=True),
    "ending": Behaviour(lives=10 * SECOND, exit_code=0),
    "work": Behaviour(lives=3 * SECOND, exit_code=0),
    "flaky": Behaviour(lives=3 * SECOND, exit_code=0, fails=0.3),
}


def behaviour_of(image: str) -> Behaviour:
    """By the image's name, without its tag."""
    return BEHAVIOURS[image.partition(":")[0]]


@dataclass
class Container:
    """One container: created, running, exited."""

    task: Task
    state: str = "created"
    exit_code: int = 0
    started_at: int = 0
    stopping: bool = False
    waiters: list[tuple[Process, "asyncio.Future[None]"]] = field(default_factory=list)

    @property
    def running(self) -> bool:
        return self.state == "running"


class Machine:
    """Containers and kernel state of one node."""

    def __init__(self, world: "World", name: str, loop: VirtualLoop, rng: Random) -> None:
        self.world, self.name, self.loop, self.rng = world, name, loop, rng
        self.containers: dict[str, Container] = {}
        self.images: set[str] = set()
        self.records = DataplaneRecords()
        self.pulls_fail = False
        self.hangs_until = 0
        self.plane_slow = 0

    def start(self, container: Container) -> None:
        """The container's process begins."""
        container.state, container.started_at = "running", self.loop.now
        self.world.checks.container_started(self.name, container)
        behaviour = behaviour_of(_image(container.task))
        if behaviour.lives:
            fails = behaviour.fails and not self.world.healing and self.rng.random() < behaviour.fails
            exit_code = 1 if fails else behaviour.exit_code
            self._later(SECOND + self.rng.randrange(behaviour.lives), container, exit_code)

    def _later(self, delay: int, container: Container, exit_code: int) -> None:
        self.loop.at(self.loop.now + delay, self.exit, container, exit_code, context=NOBODY)

    def exit(self, container: Container, exit_code: int) -> None:
        """The container's process ended."""
        if not container.running:
            return
        container.state, container.exit_code = "exited", exit_code
        self.world.checks.container_ended(self.name, container)
        waiters, container.waiters = container.waiters, []
        for process, future in waiters:
            process.call(_resolve, future)

    def signal(self, container: Container) -> None:
        """SIGTERM, and SIGKILL when its grace period is over."""
        if container.running and not container.stopping:
            container.stopping = True
            behaviour = behaviour_of(_image(container.task))
            self._later(behaviour.stops_after, container, 137 if behaviour.stops_after >= GRACE else 0)

    def lose_power(self) -> None:
        """Processes and kernel state are gone; images and containers' files stay."""
        for container in self.containers.values():
            if container.running:
                self.exit(container, 255)
            container.waiters.clear()
        self.records = DataplaneRecords()
        self.hangs_until = 0


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _image(task: Task) -> str:
    spec = task.spec.container_spec
    return spec.image if spec is not None else ""


class SimExecutor:
    """Implements worker.agent.executor.Executor on a machine, in shoald's process."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self.machine, self.process = machine, process
        self.secrets: dict[str, object] = {}

    async def _work(self, nanoseconds: int) -> None:
        machine = self.machine
        while (left := machine.hangs_until - machine.loop.now) > 0:
            await asyncio.sleep(left / SECOND)
        await asyncio.sleep(nanoseconds / SECOND)
        self.process.check()

    async def prepare(self, task: Task) -> None:
        machine, image = self.machine, _image(task)
        if image not in machine.images:
            await self._work(100 * MILLISECOND + machine.rng.randrange(2 * SECOND))
            if machine.pulls_fail:
                raise TaskRejected(f"No such image: {image}")
            machine.images.add(image)
        await self._work(20 * MILLISECOND)
        spec = task.spec.container_spec
        for reference in (spec.secrets or ()) if spec is not None else ():
            if reference.secret_id not in self.secrets:
                raise TaskRejected(f"secret {reference.secret_name} is not on this node")
        old = machine.containers.get(task.id)
        if old is not None and old.running:
            machine.exit(old, 137)
        machine.containers[task.id] = Container(task)

    async def start(self, task: Task) -> Started:
        container = self.machine.containers.get(task.id)
        if container is None:
            raise TaskFailed("the container is gone")
        if not container.running:
            behaviour = behaviour_of(_image(task))
            await self._work(behaviour.start_takes)
            if behaviour.start_fails:
                container.state, container.exit_code = "exited", 127
                raise TaskFailed("exec: no such file", _status(container))
            if container.state == "created":
                self.machine.start(container)
        return Started(_status(container))

    async def healthy(self, task: Task) -> bool:
        container = self.machine.containers.get(task.id)
        if container is None or not container.running:
            raise TaskFailed("the container ended", _status(container) if container else None)
        return True

    async def unhealthy(self, task: Task) -> None:
        await asyncio.get_running_loop().create_future()

    async def wait(self, task: Task) -> Ended:
        container = self.machine.containers.get(task.id)
        if container is None:
            return Ended(ContainerStatus(exit_code=137), "the container is gone")
        while container.running:
            future = asyncio.get_running_loop().create_future()
            container.waiters.append((self.process, future))
            await future
        return Ended(_status(container))

    async def stop(self, task: Task) -> Ended:
        container = self.machine.containers.get(task.id)
        if container is None:
            return Ended(ContainerStatus())
        await self._work(MILLISECOND)
        if container.state == "created":
            container.state = "exited"
        elif container.running:
            self.machine.world.checks.container_stopping(self.machine.name, container)
            self.machine.signal(container)
        return await self.wait(task)

    async def remove(self, task: Task) -> None:
        container = self.machine.containers.get(task.id)
        if container is not None:
            await self._work(10 * MILLISECOND)
            if container.running:
                self.machine.world.checks.container_stopping(self.machine.name, container)
                self.machine.exit(container, 137)
            self.machine.containers.pop(task.id, None)

    async def find(self, task: Task) -> Found:
        container = self.machine.containers.get(task.id)
        if container is None:
            return Found.NOTHING
        return {"created": Found.CREATED, "running": Found.RUNNING, "exited": Found.ENDED}[container.state]

    def remains(self) -> list[str]:
        return list(self.machine.containers)


def _status(container: Container) -> ContainerStatus:
    return ContainerStatus(container_id=container.task.id, pid=1, exit_code=container.exit_code)


class SimPlane:
    """Implements worker.agent.agent.NetworkPlane: the machine's kernel state follows the batches."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self.machine, self.process = machine, process

    async def apply(self, changes: DataplaneChanges) -> None:
        machine = self.machine
        await asyncio.sleep((MILLISECOND + machine.rng.randrange(PLANE) + machine.plane_slow) / SECOND)
        self.process.check()
        machine.records.apply(changes)
