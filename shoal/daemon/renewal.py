"""Renewing the certificate in time, and becoming what the managers wish: manager, worker, or no member."""

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from cluster.errors import ShoalError
from cluster.identity import Identity, Peer, check_identity, create_csr, expiry, renewal_time
from cluster.joining import JoinAnswer, RenewAnswer, RenewRequest
from cluster.messages import ManagerAddress
from cluster.seams import SECOND
from cluster.states import Role
from manager.keys.locks import UNLOCKED, Lock, lock_in
from shoal.daemon.join import renew
from shoal.daemon.membership import Membership
from shoal.daemon.node_parts import NodeParts
from shoal.daemon.proxy import NOT_A_MANAGER

log = logging.getLogger("shoal.daemon.swarm")

RENEW_RETRY = 30 * SECOND
EXPIRED_RETRY = 5 * SECOND
WISH_RETRY_MAX = 8 * SECOND
"""A wish is tried again after a second, and then after twice as long each time, up to this."""


class Wish(NamedTuple):
    """What the managers want of this node: a role, or "removed"; "" when it has another certificate."""

    role: str
    node_id: str


class Renewal(NodeParts):
    """Part of SwarmNode: what the agent hears from the managers (agent.NodeEvents), and what follows."""

    _wishes: asyncio.Queue[Wish]
    _planned: tuple[Peer | None, int] = (None, 0)
    """The certificate, and when to renew it."""
    expired = ""
    """Why the certificate could not be renewed for too long, and what to do."""

    async def run(self) -> None:
        """Renew the certificate in time, and when the node's role changes. Runs until cancelled."""
        failures = 0
        while True:
            wish = await self._renewal_due()
            try:
                await self._renew(wish)
                failures = 0
            except (ShoalError, OSError) as error:
                log.warning("renewing the certificate failed", extra={"reason": str(error)})
                self.expired = self._expired()
                pause = EXPIRED_RETRY if self.expired else RENEW_RETRY
                await self._clock.sleep(min(SECOND << failures, WISH_RETRY_MAX) if wish else pause)
                failures = min(failures + 1, 10)
                if wish:
                    self._wishes.put_nowait(wish)

    def managers_changed(self, managers: Sequence[ManagerAddress]) -> None:
        """Remember the managers for the next start."""
        if self._membership is not None and managers:
            self._membership = replace(self._membership, managers=tuple(managers))
            try:
                self._store.save(self._membership)
            except OSError as error:  # known for now; the next change writes it
                log.error("can't write this node's membership", extra={"error": str(error)})

    def role_changed(self, role: str) -> None:
        """The managers gave this node another role, or its certificate ends soon."""
        self._wishes.put_nowait(Wish(role, self.node_id))

    def removed(self, message: str) -> None:
        """The managers removed this node."""
        self._wishes.put_nowait(Wish("removed", self.node_id))
        self._error = message

    @property
    def node_id(self) -> str:
        """This node's id in its cluster, or ""."""
        return self._membership.node_id if self._membership else ""

    async def _renewal_due(self) -> Wish | None:
        """Wait until the certificate should be renewed, for the managers' wish or (None) for its age."""
        while True:
            peer = self._store.peer() if self._membership and self._membership.cluster_id else None
            if peer is not None and peer != self._planned[0]:  # once for each certificate
                self._planned = peer, renewal_time(peer, self._rng)
            wait = self._planned[1] - self._clock.now() if peer is not None else 3600 * SECOND
            try:
                async with asyncio.timeout(max(1, wait) / SECOND):
                    wish = await self._wishes.get()
            except TimeoutError:
                return None
            wish = self._gathered(wish)
            if wish.role:
                return wish

    def _gathered(self, wish: Wish) -> Wish:
        """Of all that wait, the wish that counts: to be removed, or the latest. While nobody can sign, say,
        the leader repeats itself, and one renewal is enough then."""
        while not self._wishes.empty():
            later = self._wishes.get_nowait()
            if later.role and wish != Wish("removed", self.node_id):
                wish = later
        return wish

    async def _renew(self, wish: Wish | None) -> None:
        async with self._lock:
            membership = self._membership
            if membership is None or (wish is not None and wish.node_id != membership.node_id):
                return  # the wish was of a cluster that the node has left since
            if wish is not None and wish.role == "removed":
                log.warning("this node was removed from its cluster", extra={"reason": self._error})
                await self._undo()
                return
            addresses = [manager.address for manager in membership.managers]
            if self._expired() and self._proxy.attached:
                identity, answer = await self._renew_by_own_manager()
            else:
                identity, answer = await renew(self._store.identity(), addresses, clock=self._clock)
            await self._take(membership, identity, answer)

    async def _take(
        self, membership: Membership, identity: Identity, answer: RenewAnswer | JoinAnswer
    ) -> None:
        """Go on with another certificate, and as what it says."""
        self._store.save_identity(identity, self._locks_after(answer))
        managers = answer.managers or membership.managers
        self._membership = replace(membership, role=answer.role, managers=managers)
        self._store.save(self._membership)
        self.expired = ""
        # Not by what the role was: an earlier try may have broken off after it was noted.
        if answer.role is Role.MANAGER and not self._proxy.attached:
            log.info("promoted to manager")
            await self._start_manager()
        elif answer.role is Role.WORKER and self._proxy.attached:
            log.info("demoted to worker")
            await self._stop_manager(NOT_A_MANAGER)
            self._store.keep_locks((UNLOCKED,))
            self._store.forget_raft()
        else:
            self._manager.reload()
        self._agents.reconnect()

    async def _renew_by_own_manager(self) -> tuple[Identity, RenewAnswer]:
        """Managers that were off until their certificates expired: none would listen to another, but the
        state that each has on its disk holds the CA."""
        key, csr = create_csr()
        said = await self._proxy.call(
            "POST", "/internal/renew", msgspec.to_builtins(RenewRequest(csr=csr.decode()))
        )
        answer = msgspec.convert(said, RenewAnswer)
        renewed = Identity(certificate=answer.certificate.encode(), key=key, root_ca=answer.root_ca.encode())
        check_identity(renewed, self._clock.now())
        log.warning("this manager renewed its certificate by itself: it had expired")
        return renewed, answer

    def _expired(self) -> str:
        """That the certificate is of no use any more, and what to do; empty while it is good."""
        if self._membership is None or not self._membership.cluster_id:
            return ""
        peer = self._store.peer()
        return expiry(peer) if self._clock.now() >= peer.not_after else ""

    def _locks_after(self, answer: RenewAnswer | JoinAnswer) -> Sequence[Lock]:
        if answer.role is Role.WORKER:
            return (UNLOCKED,)
        if not self._proxy.attached:  # not locked yet: only the manager makes the file that tells with what
            return (UNLOCKED, lock_in(answer))
        return self._store.locks
