"""The seam between a task's driver and the machine: images, network and containers behind five verbs."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from cluster.errors import ShoalError
from cluster.objects import ContainerStatus, Task
from cluster.spec import PortConfig


class TaskRejected(ShoalError):
    """The task can't run on this node as it is: it becomes REJECTED and is replaced."""


class TaskFailed(ShoalError):
    """The task's container could not be started: it becomes FAILED and is replaced."""

    def __init__(self, message: str, container: ContainerStatus | None = None) -> None:
        super().__init__(message)
        self.container = container


@dataclass(frozen=True)
class Started:
    """A container that runs. `ports` are the host-mode ports as bound."""

    container: ContainerStatus
    ports: tuple[PortConfig, ...] = ()


@dataclass(frozen=True)
class Ended:
    """A container that stopped. `error` is empty after a clean exit."""

    container: ContainerStatus
    error: str = ""


class Found(Enum):
    """What is left of a task's container after the daemon was away."""

    NOTHING = "nothing"
    CREATED = "created"
    RUNNING = "running"
    ENDED = "ended"


class Executor(Protocol):
    """Does to the machine what a task asks for. Every verb may be cancelled and is safe to repeat."""

    async def prepare(self, task: Task) -> None:
        """Image, network namespace and container, not started; in place of what an earlier try left.

        Raises TaskRejected.
        """

    async def start(self, task: Task) -> Started:
        """Start the container. Raises TaskFailed."""

    async def healthy(self, task: Task) -> bool:
        """Wait for the next verdict of the health check: true once healthy, false once unhealthy.

        Returns true at once when the task has no health check. Raises TaskFailed when the container ended.
        """

    async def unhealthy(self, task: Task) -> None:
        """Return when a healthy container has become unhealthy; never, when it has no health check."""

    async def wait(self, task: Task) -> Ended:
        """Return when the container has ended."""

    async def stop(self, task: Task) -> Ended:
        """Take the task out of this node's balancer, then signal it and wait; kill after its grace period."""

    async def remove(self, task: Task) -> None:
        """Remove container, network namespace and anonymous volumes. Nothing there is not an error."""

    async def find(self, task: Task) -> Found:
        """What exists of the task on this machine (after a restart)."""

    def remains(self) -> Sequence[str]:
        """The ids of all tasks of which there is a container on this machine."""
