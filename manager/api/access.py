"""What the API needs of the manager that serves it: the seam between HTTP and the manager's parts."""

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from aiohttp import web

from cluster.messages import LogChunk, LogRequest
from cluster.objects import Cluster
from cluster.seams import Clock, Random
from manager.ca.authority import Authority
from manager.store import Store, View

NO_LEADER = (
    "The swarm does not have a leader. It's possible that too few managers are online. "
    "Make sure more than half of the managers are online."
)


class Managers(NamedTuple):
    """Raft's own view of the managers, by node id."""

    leader: str
    members: frozenset[str]
    reachable: frozenset[str]
    known: bool = True
    """Whether the leader said so. Otherwise it is what one manager believes, and it can reach itself only."""


class Read(NamedTuple):
    """The state as one manager has it, and what is known about how new it is."""

    view: View
    managers: Managers
    confirmed: bool
    """It has every write that was acknowledged before it was asked for."""
    age: int | None = None
    """Unless confirmed: it had every acknowledged write so many nanoseconds ago, or later; None: unknown."""


class Access(Protocol):
    """The manager, as the API's handlers see it."""

    node_id: str
    store: Store
    clock: Clock
    rng: Random
    authority: Authority

    def leading(self) -> bool:
        """Whether this manager leads, as far as it knows."""

    async def confirmed(self) -> View:
        """The state, at least as new as any write acknowledged before the call. Raises Unavailable."""

    async def confirmed_read(self) -> Read:
        """As `confirmed`, with who leads and who can be reached, from the leader. Raises Unavailable."""

    def own_read(self) -> Read:
        """The state as this manager has it, at once."""

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """The leader's answer to this request. Raises Unavailable, or SelfLeads."""

    def logs(self, query: LogRequest) -> AsyncIterator[LogChunk]:
        """Logs from the agents; only on the leader. Ends with Unavailable when some could not be had."""

    async def remove_member(self, node_id: str) -> None:
        """Take a manager out of Raft; only on the leader. Raises ShoalError when quorum would be lost."""

    def trouble(self) -> str:
        """Why this manager can't do all of its work at present, and what to do; empty when it can."""

    def known_leader(self) -> str:
        """The leader's node id as known here, without asking; empty when there is none."""

    def warnings(self) -> list[str]:
        """What an operator should know although the cluster works."""

    def no_leader(self) -> str:
        """What to say when there is none: why, as far as this manager sees, and what to type."""


class SelfLeads(Exception):
    """This manager was elected while it looked for the leader: it answers itself."""


ACCESS: web.AppKey[Access] = web.AppKey("access", Access)


def cluster_of(view: View) -> Cluster:
    """The cluster object; exists on every manager that has joined."""
    cluster = view.cluster()
    assert cluster is not None
    return cluster
