"""Lets nodes renew whose certificate or trust is not as it should be, until a new root CA is in force."""

import asyncio
import logging
from collections.abc import Callable

from cluster.objects import Cluster, Node, NodeTLSInfo
from cluster.seams import SECOND, Clock, Random
from manager.ca.root import wanted_tls
from manager.ca.rotation import finish
from manager.store import Store, View, restarting

log = logging.getLogger("shoal.ca")

BATCH = 30
"""Nodes that renew at a time, as in SwarmKit: each costs the managers a signature and a new session."""
AGAIN = 10 * SECOND
"""A node that has not renewed after so long is told again, and leaves its place to others meanwhile."""
LOOK_EVERY = SECOND


class Rotator:
    """Runs on the leader. Knows nothing but the state: another leader goes on where this one was."""

    def __init__(self, store: Store, clock: Clock, rng: Random, renew: Callable[[str], bool]) -> None:
        """`renew` tells a node to renew its certificate; whether it has a session to be told in."""
        self._store = store
        self._clock = clock
        self._rng = rng
        self._renew = renew
        self._told: dict[str, int] = {}
        self._wanted = NodeTLSInfo()

    async def run(self) -> None:
        """Follow the nodes and the root CA until cancelled."""
        await restarting("root CA", self._session, self._clock)

    async def _session(self) -> None:
        view, watch = self._store.watch(Node, Cluster)
        with watch:
            while True:
                waiting = await self._reconcile(view)
                try:
                    async with asyncio.timeout(LOOK_EVERY / SECOND if waiting else None):
                        await anext(watch)
                except TimeoutError:
                    log.debug("nodes have yet to renew", extra={"nodes": waiting})
                view = self._store.view()

    async def _reconcile(self, view: View) -> int:
        """Tell those whose turn it is; how many nodes are not as they should be."""
        cluster = view.cluster()
        if cluster is None:
            return 0
        wanted = wanted_tls(cluster)
        behind = [node.id for node in view.all(Node) if node.tls != wanted]
        if not behind and cluster.root_ca.rotation is not None:
            if await self._store.update_retrying(lambda tx: finish(tx, self._rng)):
                log.warning("a new root CA is in force", extra={"nodes": view.count(Node)})
            return 1  # and now the nodes may forget the old one
        if wanted != self._wanted:  # those who were told had something else to get
            self._wanted, self._told = wanted, {}
        now = self._clock.monotonic()
        outdated = set(behind)
        self._told = {id: at for id, at in self._told.items() if id in outdated and now - at < AGAIN}
        for node_id in behind:
            if len(self._told) >= BATCH:
                break
            if node_id not in self._told and self._renew(node_id):
                self._told[node_id] = now
        return len(behind)
