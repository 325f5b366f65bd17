"""States and roles, with the words and numbers that SwarmKit and the Engine API use."""

from enum import IntEnum, StrEnum


class TaskState(IntEnum):
    """A task's state. It only ever rises (SwarmKit design/task_model.md)."""

    NEW = 0
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800
    ORPHANED = 832

    @property
    def word(self) -> str:
        """The Engine API's word, for example `running`."""
        return self.name.lower()

    @property
    def terminal(self) -> bool:
        """True when the task has stopped for good."""
        return self > TaskState.RUNNING

    @property
    def stops(self) -> bool:
        """As a desired state: True when the task should not run. (A job's task should reach COMPLETE, which
        it does by itself.)"""
        return self > TaskState.COMPLETE


class NodeState(StrEnum):
    """What the managers believe of a node."""

    UNKNOWN = "unknown"
    DOWN = "down"
    READY = "ready"
    DISCONNECTED = "disconnected"


class Availability(StrEnum):
    """Whether an operator lets a node take tasks."""

    ACTIVE = "active"
    PAUSE = "pause"
    DRAIN = "drain"


class Role(StrEnum):
    """A node's role, also the OU of its certificate (`swarm-manager` or `swarm-worker`)."""

    WORKER = "worker"
    MANAGER = "manager"

    @property
    def organizational_unit(self) -> str:
        """The certificate subject's OU."""
        return f"swarm-{self.value}"


class RestartCondition(StrEnum):
    """When a task that ended is replaced."""

    NONE = "none"
    ON_FAILURE = "on-failure"
    ANY = "any"


class UpdateState(StrEnum):
    """Where a service's update stands."""

    UPDATING = "updating"
    PAUSED = "paused"
    COMPLETED = "completed"
    ROLLBACK_STARTED = "rollback_started"
    ROLLBACK_PAUSED = "rollback_paused"
    ROLLBACK_COMPLETED = "rollback_completed"
