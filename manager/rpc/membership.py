"""Managers come and go: into Raft with a vote, out of it by their own wish. On the leader only."""

from collections.abc import Mapping
from typing import Protocol

from msgspec.structs import replace

from cluster.errors import Conflict, Forbidden, InvalidArgument
from cluster.objects import ManagerStatus, Node
from cluster.seams import Clock
from cluster.states import Role
from manager.api.access import Managers
from manager.api.quorum import check_quorum_without
from manager.raft.errors import NotLeader
from manager.store import Store, Transaction, View


class Membership(Protocol):
    """What this needs of the manager."""

    node_id: str
    store: Store
    clock: Clock

    async def confirmed(self) -> View:
        """The confirmed state."""

    async def barrier(self) -> tuple[int, Managers]:
        """A confirmed index and the managers' state; only on the leader (NotLeader)."""

    def members(self) -> Mapping[str, str]:
        """Raft's members: node id → "ip:port"."""

    async def add_member(self, node_id: str, address: str) -> None:
        """Make a manager a voting member; only on the leader."""

    async def remove_member(self, node_id: str) -> None:
        """Take a manager out of Raft; only on the leader."""


async def admit_manager(leader: Membership, node_id: str, address: str) -> None:
    """A node with the manager role becomes a voting member, at that address. Safe to repeat.

    Raises Forbidden when it lacks the role, Conflict, Unavailable, NotLeader.
    """
    if ":" not in address:
        raise InvalidArgument("the address must be ip:port")
    view = await leader.confirmed()
    node = view.get(Node, node_id)
    if node is None or node.role is not Role.MANAGER or node.spec.role is not Role.MANAGER:
        raise Forbidden(f"node {node_id} does not have the manager role: promote it first")
    if leader.members().get(node_id) != address:
        try:
            await leader.add_member(node_id, address)
        except Conflict as error:
            raise Conflict(f"node {node_id} is already a manager at another address: {error}") from error

    def note(tx: Transaction) -> None:
        node = tx.get(Node, node_id)
        if node is None or node.spec.role is not Role.MANAGER:  # since: the role manager takes it out again
            raise Forbidden(f"node {node_id} was demoted while it became a manager")
        tx.update(replace(node, manager_status=ManagerStatus(address=address)))

    await leader.store.update_retrying(note)


async def dismiss_manager(leader: Membership, node_id: str) -> None:
    """A manager gives up its vote and role. Raises when quorum would be lost; NotLeader when it leads."""

    async def managers() -> Managers:
        return (await leader.barrier())[1]

    await check_quorum_without(node_id, managers, leader.clock)
    if node_id == leader.node_id:
        raise NotLeader(None)  # the leader hands over first; then its successor removes it
    await leader.remove_member(node_id)
    await leader.store.update_retrying(lambda tx: _resign(tx, node_id))


def _resign(tx: Transaction, node_id: str) -> None:
    """The node is a worker from now on, by its own wish."""
    node = tx.get(Node, node_id)
    if node is not None:
        spec = replace(node.spec, role=Role.WORKER)
        tx.update(replace(node, spec=spec, role=Role.WORKER, manager_status=None))
