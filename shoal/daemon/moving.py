"""Where this node is: settled when shoald starts, and followed while it runs, as with DHCP."""

import asyncio
import errno
import logging
import socket

from cluster.errors import ShoalError
from cluster.seams import SECOND
from cluster.states import Role
from shoal.daemon.addressing import settled
from shoal.daemon.membership import Membership
from shoal.daemon.node_parts import NodeParts
from shoal.daemon.swarm_requests import advertised, listening, own_addresses, source_towards, split
from worker.agent.agent import NodeEvents

log = logging.getLogger("shoal.daemon.address")

ADDRESS_PATIENCE = 4 * SECOND
"""For an address that is missing to come while the machine starts."""
RENEWAL_PATIENCE = SECOND
"""For one that went to come again, as when its interface is set up anew."""
LOST_POLL = 1.0
"""Seconds after which a node without an address looks again."""
ADDRESS_POLL = SECOND // 4
MOVING = "the manager of this node starts again, at another address: try again in a moment"
_IPV4_ADDRESSES = 0x10  # RTMGRP_IPV4_IFADDR


class Moving(NodeParts):
    """Part of SwarmNode, which supplies what is declared here."""

    _advertise_address: str

    async def follow_address(self) -> None:
        """When this machine's address changes, be there from then on. Runs until cancelled.

        Containers and their addresses stay; manager and agent begin anew at the new address, and the others'
        tunnels follow as soon as the agent's session says where it is.
        """
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0) as news:
            news.bind((0, _IPV4_ADDRESSES))
            while True:
                try:
                    async with asyncio.timeout(LOST_POLL if self._lost() else None):
                        await loop.sock_recv(news, 1 << 16)
                except TimeoutError:
                    pass  # a route may have come
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # more news than it could hold: still news
                        raise
                if self._lost():
                    async with self._lock:
                        await self._move()

    def _lost(self) -> bool:
        """Whether the address of this node was this machine's, and is no more."""
        membership = self._membership
        return membership is not None and membership.advertise_local and not _is_here(membership.address)

    async def _move(self) -> None:
        before = self._membership
        if before is None or not before.cluster_id:
            return
        try:
            now = await self._settle_address(before, RENEWAL_PATIENCE)
        except (ShoalError, OSError) as error:
            log.error("this node finds no address", extra={"reason": str(error)})
            return
        if now.advertise_address == before.advertise_address:
            return
        self._membership = now
        await self._restart_agent()  # first: the others take a node for down that is silent for long
        if now.role is Role.MANAGER and self._proxy.attached:
            await self._stop_manager(MOVING)
            await self._manager.resume()
            self._proxy.attach(self._socket)

    async def _settle_address(self, membership: Membership, patience: int = ADDRESS_PATIENCE) -> Membership:
        """The membership with the address that the node has now; the managers are told by its manager, and by
        its agent's next session."""
        wanted = self._advertise_address
        while not wanted and membership.advertise_local and patience > 0:
            if membership.address in await asyncio.to_thread(own_addresses):
                break
            await self._clock.sleep(ADDRESS_POLL)
            patience -= ADDRESS_POLL
        now, problem = await asyncio.to_thread(
            lambda: settled(membership, wanted and _chosen(wanted), own_addresses(), source_towards)
        )
        if problem:
            log.error(problem)
        if now.advertise_address != membership.advertise_address:
            old, new = membership.advertise_address, now.advertise_address
            log.warning("this node has another address", extra={"was": old, "is": new})
        if now != membership:
            self._store.save(now)
        return now

    async def _restart_agent(self) -> None:
        """With the membership as it is now; containers run on."""
        assert self._membership is not None, "an agent runs for a member only"
        await self._agents.stop()
        await self._agents.start(self._membership, self._events)

    @property
    def _events(self) -> NodeEvents:
        raise NotImplementedError


def _is_here(address: str) -> bool:
    """Whether the address is this machine's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def _chosen(text: str) -> str:
    """The operator's choice; an interface's name stands for its address. Raises InvalidArgument."""
    host, port = split(text)
    found = advertised(host, listening("")).rpartition(":")[0].strip("[]")
    return f"{found}:{port}" if port else found
