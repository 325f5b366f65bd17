"""What a node says of its part in a cluster: in GET /info, and in the header of /_ping."""

from typing import Any, NamedTuple

from shoal.daemon.membership import LOCKED, Membership


class NodeState(NamedTuple):
    """A node's membership at one instant."""

    membership: Membership | None
    pending: str
    """ "pending" while a join is under way."""
    locked: bool
    failure: str
    """Why the manager does not run, or why the node has left."""
    silence: str
    """Why the agent has no session."""
    epitaph: str = ""
    """Why the manager before this one ended, if it failed lately."""

    @property
    def ping(self) -> str:
        """The Swarm header of /_ping."""
        if self.membership is None:
            return self.pending or "inactive"
        return "locked" if self.locked else f"active/{self.membership.role.value}"

    def info(self, seen: dict[str, Any] | None) -> dict[str, Any]:
        """The Swarm part of GET /info; `seen` is what this node's manager says."""
        membership = self.membership
        if membership is None or self.pending:
            return _outside(self.pending or "inactive", "", self.failure)
        if self.locked:
            return _outside("locked", membership.address, LOCKED)
        if seen is not None:
            return {**seen, "NodeAddr": membership.address, "Error": seen["Error"] or self.epitaph}
        return {
            "NodeID": membership.node_id,
            "NodeAddr": membership.address,
            "LocalNodeState": "error" if self.failure else "active",
            "ControlAvailable": False,
            "Error": self.failure or self.silence,
            "RemoteManagers": [{"NodeID": m.node_id, "Addr": m.address} for m in membership.managers],
        }


def _outside(state: str, address: str, error: str) -> dict[str, Any]:
    return {
        "NodeID": "",
        "NodeAddr": address,
        "LocalNodeState": state,
        "ControlAvailable": False,
        "Error": error,
        "RemoteManagers": None,
    }
