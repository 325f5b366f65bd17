"""Which nodes are still heard of. A node that misses three heartbeats is down; before that it is silent."""

from collections.abc import Iterable

from cluster.objects import Cluster
from cluster.seams import SECOND, Random

MISSED = 3
SILENT = 1.5
"""A node that was not heard of for so many periods is avoided: its tasks get new connections only if there
are no others. It costs little when that is wrong, so it need not be as sure as that a node is down."""
SMALL_CLUSTER = 20
SLOWEST = 10 * SECOND
GRACE = 1
"""After a change of leader, nodes have so many periods more to find the new one: agents look for it at most
one period or one second after the other."""
RESTART = 10 * SECOND
"""A node whose connection was closed, as when its daemon restarts, has at least so long to come back."""
DOCKER_DEFAULT = 5 * SECOND
"""What the docker CLI sends when the user says nothing of the heartbeat; taken as "the managers choose"."""


def heartbeat_period(cluster: Cluster | None, nodes: int) -> int:
    """How often agents should report (ns): as the operator wants, else 1 s, and longer in big clusters, so
    that a leader gets some twenty a second at most."""
    dispatcher = cluster.spec.dispatcher if cluster else None
    wanted = dispatcher.heartbeat_period if dispatcher else 0
    if wanted and wanted != DOCKER_DEFAULT:
        return wanted
    return min(SLOWEST, max(SECOND, SECOND * nodes // SMALL_CLUSTER))


class Liveness:
    """Deadlines of nodes by the monotonic clock. Pure: the time is an argument."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._deadlines: dict[str, int] = {}
        self._periods: dict[str, int] = {}
        self._doubts: dict[str, int] = {}  # when a node will have been silent; without those that are

    def expect(self, node_ids: Iterable[str], period: int, now: int) -> None:
        """Wait for these nodes to open a session, as after a change of leader."""
        for node_id in node_ids:
            self._periods[node_id] = period
            self._deadlines[node_id] = now + GRACE * period + self._patience(period)
            self._doubts[node_id] = now + int(SILENT * period)

    def opened(self, node_id: str, period: int, now: int) -> None:
        """A session began, with this heartbeat period."""
        self._periods[node_id] = period
        self.heard(node_id, now)

    def heard(self, node_id: str, now: int) -> None:
        """Anything came from the node."""
        if node_id in self._periods:
            self._deadlines[node_id] = now + self._patience(self._periods[node_id])
            self._doubts[node_id] = now + int(SILENT * self._periods[node_id])

    def parted(self, node_id: str, now: int) -> None:
        """The node's session was closed, so its kernel lives, and its containers too: its daemon, which was
        stopped or died, gets time to start. Until then the node is silent only after three periods, in case
        the whole machine goes down."""
        if node_id in self._periods:
            patience = self._patience(self._periods[node_id])
            self._doubts[node_id] = now + patience
            self._deadlines[node_id] = now + max(RESTART, patience)

    def forget(self, node_id: str) -> None:
        """The node is removed, or known to be down."""
        self._deadlines.pop(node_id, None)
        self._periods.pop(node_id, None)
        self._doubts.pop(node_id, None)

    def delayed(self, lag: int) -> None:
        """This process itself stood still for so long: that is no node's fault."""
        for node_id in self._deadlines:
            self._deadlines[node_id] += lag
        for node_id in self._doubts:
            self._doubts[node_id] += lag

    def silent(self, now: int) -> list[str]:
        """Nodes that have become silent; each is told once, until it is heard of again."""
        found = [node_id for node_id, doubt in self._doubts.items() if doubt <= now]
        for node_id in found:
            del self._doubts[node_id]
        return found

    def expired(self, now: int) -> list[str]:
        """Nodes that were not heard of in time; they are forgotten."""
        silent = [node_id for node_id, deadline in self._deadlines.items() if deadline <= now]
        for node_id in silent:
            self.forget(node_id)
        return silent

    @property
    def next_deadline(self) -> int | None:
        """When the next node would be silent, or expire."""
        return min((*self._doubts.values(), *self._deadlines.values()), default=None)

    def _patience(self, period: int) -> int:
        """Three periods, and up to a tenth of one more so that not all expire at once."""
        return MISSED * period + int(period * self._rng.random() / 10)
