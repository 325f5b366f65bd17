"""A stopping task leaves every balancer before it gets its signal.

While a withdrawal is under way the task's new desired state is held back from its own node. It is over when
each node that is ready has applied it, in this session or its next one, or after `BOUND`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cluster.objects import Task
from cluster.seams import SECOND

BOUND = 2 * SECOND


@dataclass
class _Withdrawal:
    task: Task  # as its node knows it
    deadline: int  # monotonic, ns
    waiting: dict[str, int] | None = None  # session id → the sequence to be applied; None: not told yet.
    # For a node that has no session at the moment, its id stands in for the session's.


class Withdrawals:
    """The withdrawals under way."""

    def __init__(self) -> None:
        self._under_way: dict[str, _Withdrawal] = {}
        self.held: dict[str, Task] = {}
        """Tasks to be shown to their nodes as they were."""

    def begin(self, task: Task, now: int) -> None:
        """Hold a task, given as its node knows it. To be followed by `told`."""
        self._under_way[task.id] = _Withdrawal(task, now + BOUND)
        self.held[task.id] = task

    def inherit(self, task: Task, node_ids: Iterable[str], now: int) -> None:
        """Hold a task, given as its node knew it, whose stop an earlier leader decided: nobody knows which
        of these nodes' balancers have left it out."""
        waiting = dict.fromkeys(node_ids, 1)
        if waiting:
            self._under_way[task.id] = _Withdrawal(task, now + BOUND, waiting)
            self.held[task.id] = task

    def opened(self, node_id: str, session_id: str) -> None:
        """A node's session began; its first assignment leaves out all that is inherited."""
        for withdrawal in self._under_way.values():
            if withdrawal.waiting and withdrawal.waiting.pop(node_id, None):
                withdrawal.waiting[session_id] = 1

    def untold(self) -> list[str]:
        """Tasks for which `told` is due."""
        return [task_id for task_id, withdrawal in self._under_way.items() if withdrawal.waiting is None]

    def told(self, task_id: str, sequences: Mapping[str, int]) -> list[str]:
        """These sessions were told with these sequences. Returns the tasks that need not wait at all."""
        self._under_way[task_id].waiting = dict(sequences)
        return self._release(lambda withdrawal: withdrawal.waiting == {})

    def applied(self, session_id: str, sequence: int) -> list[str]:
        """A session has applied all up to `sequence`. Returns the tasks that may now stop."""
        for withdrawal in self._under_way.values():
            waiting = withdrawal.waiting or {}
            if waiting.get(session_id, sequence + 1) <= sequence:
                del waiting[session_id]
        return self._release(lambda withdrawal: withdrawal.waiting == {})

    def closed(self, session_id: str, node_id: str) -> list[str]:
        """A session ended. Its node, if it is not lost (""), balances on by what it knows, and is expected to
        begin another one. Returns the tasks that may now stop."""
        for withdrawal in self._under_way.values():
            waiting = withdrawal.waiting or {}
            if waiting.pop(session_id, None) is not None and node_id:
                waiting[node_id] = 1
        return self._release(lambda withdrawal: withdrawal.waiting == {})

    def forget(self, task_id: str) -> None:
        """The task is gone."""
        self._under_way.pop(task_id, None)
        self.held.pop(task_id, None)

    def expire(self, now: int) -> list[str]:
        """Returns the tasks that have waited long enough."""
        return self._release(lambda withdrawal: withdrawal.deadline <= now)

    @property
    def next_deadline(self) -> int | None:
        """When `expire` has something to do (monotonic, ns)."""
        return min((withdrawal.deadline for withdrawal in self._under_way.values()), default=None)

    def _release(self, over: Callable[[_Withdrawal], bool]) -> list[str]:
        released = [task_id for task_id, withdrawal in self._under_way.items() if over(withdrawal)]
        for task_id in released:
            self.forget(task_id)
        return released
