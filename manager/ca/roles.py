"""Makes each node's role what its spec says: promotion, and demotion out of Raft. Runs on the leader."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping

from msgspec.structs import replace

from cluster.errors import ShoalError
from cluster.objects import Node
from cluster.seams import MILLISECOND, SECOND, Clock
from cluster.states import Role
from manager.store import Store, Transaction, View, restarting

log = logging.getLogger("shoal.roles")

RETRY = 500 * MILLISECOND
LOOK_EVERY = 2 * SECOND
"""Raft's members change without an event in the store."""


class RoleManager:
    """Promotion takes effect at once: the node renews its certificate and asks to be a member of Raft.

    Demotion first takes the node out of Raft, so that a worker never votes. A leader that is to be demoted
    hands leadership over, and its successor goes on. A node that was demoted or removed while Raft was making
    it a member, as a join takes its time, is taken out again.
    """

    def __init__(
        self,
        store: Store,
        members: Callable[[], Mapping[str, str]],
        remove_member: Callable[[str], Awaitable[None]],
        clock: Clock,
        generation: Callable[[], int] = lambda: 0,
    ) -> None:
        """`members`: Raft's members, id → address. `remove_member` raises ShoalError while it can't.

        `generation`: how many times a new cluster was forced, by Raft's log.
        """
        self._store = store
        self._members = members
        self._remove_member = remove_member
        self._clock = clock
        self._generation = generation

    async def run(self) -> None:
        """Follow the nodes' specs until cancelled."""
        await restarting("roles", self._session, self._clock)

    async def _session(self) -> None:
        generation = self._generation()
        cluster = self._store.view().cluster()
        if cluster is not None and cluster.generation < generation:
            members = frozenset(self._members())
            await self._store.update_retrying(lambda tx: leave_behind(tx, members, generation))
        view, watch = self._store.watch(Node)
        with watch:
            pending = await self._reconcile(view)
            while True:
                try:
                    async with asyncio.timeout((RETRY if pending else LOOK_EVERY) / SECOND):
                        await anext(watch)
                except TimeoutError:
                    log.debug("looking again", extra={"nodes": pending})
                pending = await self._reconcile(self._store.view())

    async def _reconcile(self, view: View) -> list[str]:
        """Act on every node whose role is not yet as wanted; the ids of those that must be tried again."""
        pending = []
        for node in view.all(Node):
            try:
                if node.spec.role is Role.MANAGER and node.role is Role.WORKER:
                    await self._set_role(node.id, Role.MANAGER)
                elif node.spec.role is Role.WORKER and node.role is Role.MANAGER:
                    if node.id in self._members():
                        await self._remove_member(node.id)
                    await self._set_role(node.id, Role.WORKER)
            except ShoalError as error:
                log.warning(
                    "the node's role can't be changed yet", extra={"node": node.id, "reason": str(error)}
                )
                pending.append(node.id)
        for node_id in _strays(view, self._members()):
            try:
                await self._remove_member(node_id)
                log.info("a member that is no manager any more was removed", extra={"node": node_id})
            except ShoalError as error:
                log.warning(
                    "a member that is no manager can't be removed yet",
                    extra={"node": node_id, "reason": str(error)},
                )
                pending.append(node_id)
        return pending

    async def _set_role(self, node_id: str, role: Role) -> None:
        def change(tx: Transaction) -> None:
            node = tx.get(Node, node_id)
            if node is not None and node.spec.role is role and node.role is not role:
                status = node.manager_status if role is Role.MANAGER else None
                tx.update(replace(node, role=role, manager_status=status))

        await self._store.update_retrying(change)
        log.info("role changed", extra={"node": node_id, "role": role.value})


def _strays(view: View, members: Collection[str]) -> list[str]:
    """Members of Raft that the cluster knows as workers, or not at all."""
    if view.cluster() is None:
        return []
    nodes = {node_id: view.get(Node, node_id) for node_id in members}
    return [
        node_id
        for node_id, node in nodes.items()
        if node is None or (node.role is Role.WORKER and node.spec.role is Role.WORKER)
    ]


def leave_behind(tx: Transaction, members: Collection[str], generation: int) -> None:
    """After a forced new cluster: the managers that are no members any more are workers, wherever they are.

    Those that come back learn it when they open a session, and may be promoted again.
    """
    cluster = tx.cluster()
    if cluster is None or cluster.generation >= generation:
        return
    for node in list(tx.all(Node)):
        if node.role is Role.MANAGER and node.manager_status is not None and node.id not in members:
            spec = replace(node.spec, role=Role.WORKER)
            tx.update(replace(node, spec=spec, role=Role.WORKER, manager_status=None))
            log.warning("a manager was left behind by a forced new cluster", extra={"node": node.id})
    tx.update(replace(cluster, generation=generation))
