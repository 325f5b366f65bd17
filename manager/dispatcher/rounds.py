"""What every node must have applied before something goes on with a task, for so long at most.

A round is over when each node that is ready has applied it, in this session or its next one, or after
`BOUND`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cluster.seams import SECOND
from manager.dispatcher.session import Session

BOUND = 2 * SECOND


@dataclass
class _Round:
    deadline: int  # monotonic, ns
    waiting: dict[str, int] | None = None  # session id → the sequence to be applied; None: not told yet.
    # For a node that has no session at the moment, its id stands in for the session's.


class Rounds:
    """Those under way, by task id."""

    def __init__(self) -> None:
        self._under_way: dict[str, _Round] = {}

    def start(self, task_id: str, now: int, away: Iterable[str] | None = None) -> None:
        """Begin a round. To be followed by `tell`, unless it is for the first assignments of the sessions
        of the nodes `away`."""
        waiting = None if away is None else dict.fromkeys(away, 1)
        self._under_way[task_id] = _Round(now + BOUND, waiting)

    def opened(self, node_id: str, session_id: str) -> None:
        """A node's session began; its first assignment has all that its node is waited for."""
        for each in self._under_way.values():
            if each.waiting and each.waiting.pop(node_id, None):
                each.waiting[session_id] = 1

    def tell(
        self,
        sessions: Iterable[Session],
        away: Callable[[], Iterable[str]],
        networks_of: Callable[[str], Iterable[str]],
    ) -> list[str]:
        """Say of new rounds whom they wait for: sessions that know one of the task's networks and have not
        applied the change yet, and nodes that are `away`. Returns the tasks that wait for nobody.
        """
        untold = [(task_id, each) for task_id, each in self._under_way.items() if each.waiting is None]
        if not untold:
            return []
        absent = set(away())
        for task_id, each in untold:
            networks = set(networks_of(task_id))
            each.waiting = dict.fromkeys(absent, 1) if networks else {}
            for session in sessions:
                # A congested session learns of it with its next message.
                due = session.told.sequence + (0 if session.touched.empty else 1)
                if networks & session.told.uses and session.applied < due:
                    each.waiting[session.id] = due
        return self._release(_all_applied)

    def applied(self, session_id: str, sequence: int) -> list[str]:
        """A session has applied all up to `sequence`. Returns the tasks that may now go on."""
        for each in self._under_way.values():
            waiting = each.waiting or {}
            if waiting.get(session_id, sequence + 1) <= sequence:
                del waiting[session_id]
        return self._release(_all_applied)

    def closed(self, session_id: str, node_id: str) -> list[str]:
        """A session ended. Its node, if it is not lost (""), balances on by what it knows, and is expected to
        begin another one. Returns the tasks that may now go on."""
        for each in self._under_way.values():
            waiting = each.waiting or {}
            if waiting.pop(session_id, None) is not None and node_id:
                waiting[node_id] = 1
        return self._release(_all_applied)

    def forget(self, task_id: str) -> None:
        """The task is gone, or is waited for no more."""
        self._under_way.pop(task_id, None)

    def expire(self, now: int) -> list[str]:
        """Returns the tasks that have waited long enough."""
        return self._release(lambda each: each.deadline <= now)

    @property
    def next_deadline(self) -> int | None:
        """When `expire` has something to do (monotonic, ns)."""
        return min((each.deadline for each in self._under_way.values()), default=None)

    def _release(self, over: Callable[[_Round], bool]) -> list[str]:
        released = [task_id for task_id, each in self._under_way.items() if over(each)]
        for task_id in released:
            self.forget(task_id)
        return released


def _all_applied(each: _Round) -> bool:
    return each.waiting == {}
