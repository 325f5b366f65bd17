"""What a decision asks of the store: small changes that read the present object and only ever raise it.

A decision is made on a view; by the time it is written the objects may have moved on. Each change therefore
reads its object again and does nothing when it is no longer needed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from cluster.objects import Service, Task, TaskStatus, UpdateStatus
from cluster.spec import ServiceSpec
from cluster.states import TaskState
from manager.orchestrator.situation import iteration
from manager.store import Transaction


class Change:
    """One write."""

    def overtaken(self, tx: Transaction) -> bool:
        """Whether something has happened since the decision that makes its whole step wrong."""
        return False

    def apply(self, tx: Transaction) -> None:
        """Write it, or nothing when it is no longer needed."""
        raise NotImplementedError


@dataclass(frozen=True)
class Create(Change):
    """A new task."""

    task: Task
    replaces: Task | None = None

    def overtaken(self, tx: Transaction) -> bool:
        """Whether a job's task that it replaces has completed, or the job was executed anew."""
        if self.task.job_iteration is None:
            return False
        service = tx.get(Service, self.task.service_id)
        before = tx.get(Task, self.replaces.id) if self.replaces is not None else None
        return (service is not None and iteration(service) != self.task.job_iteration) or (
            before is not None and before.status.state == TaskState.COMPLETE
        )

    def apply(self, tx: Transaction) -> None:
        """Create it, unless it exists or its service is gone."""
        if tx.get(Task, self.task.id) is None and tx.get(Service, self.task.service_id) is not None:
            tx.create(self.task)

    def __str__(self) -> str:
        place = f"slot {self.task.slot}" if self.task.slot else f"node {self.task.node_id}"
        return f"create a task in {place}, desired {self.task.desired_state.word}"


@dataclass(frozen=True)
class Desire(Change):
    """A higher desired state."""

    task: Task
    state: TaskState
    reason: str = ""
    """Why it should stop; kept with the task."""
    while_idle: bool = False
    """It was decided because the task serves nobody: if it runs by now, its whole step is not written."""

    def overtaken(self, tx: Transaction) -> bool:
        """Whether the task has come to run since the decision, which was made because it did not."""
        task = tx.get(Task, self.task.id)
        return self.while_idle and task is not None and task.status.state == TaskState.RUNNING

    def apply(self, tx: Transaction) -> None:
        """Raise it; never lower it."""
        task = tx.get(Task, self.task.id)
        if task is not None and task.desired_state < self.state:
            because = task.stopped_because or self.reason
            tx.update(msgspec.structs.replace(task, desired_state=self.state, stopped_because=because))

    def __str__(self) -> str:
        return f"{self.task.id}: desired {self.state.word}"


@dataclass(frozen=True)
class Observe(Change):
    """A status that the managers conclude for themselves (orphaned)."""

    task: Task
    state: TaskState
    at: int
    message: str

    def apply(self, tx: Transaction) -> None:
        """Raise the state; never lower it."""
        task = tx.get(Task, self.task.id)
        if task is not None and task.status.state < self.state:
            status: TaskStatus = msgspec.structs.replace(
                task.status, state=self.state, timestamp=self.at, message=self.message
            )
            tx.update(msgspec.structs.replace(task, status=status))

    def __str__(self) -> str:
        return f"{self.task.id}: {self.state.word} ({self.message})"


@dataclass(frozen=True)
class Release(Change):
    """An orphaned task gives its addresses back."""

    task: Task

    def apply(self, tx: Transaction) -> None:
        """Write it, if it still has any."""
        task = tx.get(Task, self.task.id)
        if task is not None and task.networks:
            tx.update(msgspec.structs.replace(task, networks=()))

    def __str__(self) -> str:
        return f"{self.task.id}: release its addresses"


@dataclass(frozen=True)
class Delete(Change):
    """A task that nobody needs any more."""

    task: Task

    def apply(self, tx: Transaction) -> None:
        """Delete it if it is still there."""
        if tx.get(Task, self.task.id) is not None:
            tx.delete(Task, self.task.id)

    def __str__(self) -> str:
        return f"{self.task.id}: delete"


@dataclass(frozen=True)
class SetUpdateStatus(Change):
    """An update's new status and, for a rollback, the spec to return to."""

    service: Service
    status: UpdateStatus
    rollback_to: ServiceSpec | None = None

    def apply(self, tx: Transaction) -> None:
        """Write it, unless the service changed since the decision: that makes a new decision."""
        service = tx.get(Service, self.service.id)
        if service is None or service.version != self.service.version:
            return
        if self.rollback_to is not None:
            service = msgspec.structs.replace(
                service,
                spec=self.rollback_to,
                spec_version=service.previous_spec_version,
                previous_spec=None,
                previous_spec_version=0,
            )
        tx.update(msgspec.structs.replace(service, update_status=self.status))

    def __str__(self) -> str:
        return f"update {self.status.state}: {self.status.message}"


Step = tuple[Change, ...]


@dataclass
class Plan:
    """The outcome of a decision.

    `steps` are each written as a whole; `waits` say when the same view would decide otherwise: wall-clock
    time and the longest that it can be until then, in ns; `notes` are the sentences that say why it acted or
    did not, by subject ("slot 3").
    """

    steps: list[Step] = field(default_factory=list)
    waits: list[tuple[int, int]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def do(self, *changes: Change) -> None:
        """Add one step."""
        self.steps.append(changes)

    def wake(self, at: int, longest: int) -> None:
        """Decide again at that time at the latest. It was written by a clock that may have been ahead of the
        one here: the wait is never longer than `longest`."""
        self.waits.append((at, longest))

    @property
    def wake_at(self) -> int | None:
        """The soonest of the times to wake at."""
        return min((at for at, _ in self.waits), default=None)

    def merge(self, other: "Plan") -> None:
        """Take over another plan's steps, time and notes."""
        self.steps.extend(other.steps)
        self.waits.extend(other.waits)
        self.notes.update(other.notes)

    def writes(self) -> Sequence[Callable[[Transaction], None]]:
        """One callable per step, for `Store.batch`."""
        return [_write(step) for step in self.steps]


def _write(step: Step) -> Callable[[Transaction], None]:
    def write(tx: Transaction) -> None:
        if any(change.overtaken(tx) for change in step):
            return  # what overtook it makes a new decision
        for change in step:
            change.apply(tx)

    return write
