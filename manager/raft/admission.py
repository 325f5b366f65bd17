"""Which managers are known, and which may connect."""

import logging
from collections.abc import Callable

from pysyncobj.transport import Transport as EngineTransport

from cluster.seams import SECOND, Clock
from manager.raft.network import MANAGER_ROLE, Identity
from manager.raft.peer import Peer
from manager.raft.wire import Hello, Refused

log = logging.getLogger("shoal.raft.transport")

_SAY_AGAIN = 30 * SECOND
LEFT_BEHIND = (
    "a new cluster was forced on manager {here}, and manager {node} was left behind: it takes no part. "
    'If its node does not become a worker by itself, run "docker swarm leave --force" on it and join again'
)


class Admission(EngineTransport):  # type: ignore[misc]
    """The door of PeerTransport, which has the connections."""

    def __init__(self, node_id: str, cluster_id: str, clock: Clock) -> None:
        super().__init__(None, None, [])
        self.lost: Callable[[], bool] = lambda: False
        """Set by the node: whether it has heard no leader for long."""
        self.standing: Callable[[], int] = lambda: -1
        """Set by the node: the generation of forced new clusters that it is a member in, or -1."""
        self.left_behind: Callable[[int, str], None] = lambda generation, reason: None
        """Set by the node: told when a forced new cluster of that generation goes on without it."""
        self.guests: dict[str, Peer] = {}
        """Unknown managers that were let in meanwhile; the node keeps or drops them."""
        self._node_id = node_id
        self._cluster_id = cluster_id
        self._clock = clock
        self._peers: dict[str, Peer] = {}
        self._said: dict[str, tuple[str, int]] = {}

    def readdress(self, node_id: str, address: str) -> None:
        """Dial the member at another address from now on."""
        raise NotImplementedError

    def is_strange(self, node_id: str) -> bool:
        """Whether this is none of the managers that this one knows."""
        return node_id not in self._peers

    def objection(self, cluster_id: str, role: str) -> str | None:
        """Why a certificate with these fields can't be a manager of this cluster's, or None."""
        if cluster_id != self._cluster_id:
            return f"its certificate belongs to cluster {cluster_id or '(none)'}, this is {self._cluster_id}"
        if role != MANAGER_ROLE:
            return f"its certificate has the role {role or '(none)'}, and only {MANAGER_ROLE} may take part"
        return None

    def admit(self, identity: Identity, hello: Hello) -> Peer | Refused:
        """Decide about a manager that says hello.

        Strangers are refused, unless this node is lost: then the members may all have changed while it was
        away, and a manager that it doesn't know may be its leader. Raft is safe with that. Those who were
        left behind by a new cluster that was forced here are refused in any case. A member that comes with
        another address is dialled there from now on: it hears the others before they agree on it.
        """
        problem = self.objection(identity.cluster_id, identity.role)
        if problem is not None:
            return Refused(problem)
        if identity.node_id in self._peers:
            self.readdress(identity.node_id, hello.address)
            return self._peers[identity.node_id]
        generation = self.standing()
        if 0 <= hello.generation < generation:
            # Not even when lost: it may lead those left behind, and its log contradicts the one here.
            return Refused(LEFT_BEHIND.format(here=self._node_id, node=identity.node_id), generation)
        if not self.lost():
            return Refused(f"node {identity.node_id} is not among the managers that this one knows")
        log.warning("no known manager answers; listening to an unknown one", extra={"peer": identity.node_id})
        peer = Peer(identity.node_id, hello.address)
        self.guests[peer.id] = peer
        self.addNode(peer)
        return peer

    def complain(self, about: str, text: str) -> None:
        """Log a warning, but the same one about the same peer only now and then."""
        now = self._clock.monotonic()
        if len(self._said) > 1000:
            self._said.clear()
        last = self._said.get(about)
        if last is None or last[0] != text or now - last[1] > _SAY_AGAIN:
            self._said[about] = (text, now)
            log.warning(text, extra={"node": self._node_id})
