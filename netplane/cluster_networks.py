"""The cluster's networks on this node: a batch of records made so in the kernel; who gets new connections.

A part of the network plane.
"""

import asyncio
import logging
from collections.abc import Collection, Coroutine

from cluster.dataplane import DataplaneChanges
from netplane import links
from netplane.balanced import Lost
from netplane.encrypted_networks import EncryptedNetworks
from netplane.errors import NetworkError, NetworkNotReady
from netplane.model import SandboxRecord
from netplane.netlink.wire import NetlinkError
from netplane.overlay import Overlays, Tunnel
from netplane.proxy_keeper import ProxyEnd, ProxyKeeper
from netplane.records import ClusterRecords, Touched

log = logging.getLogger("shoal.netplane")

CLUSTER_PORT = 2377
# What is under way to an address that is withdrawn is answered by then; TCP tries again after a second.
_ANSWER_SECONDS = 0.3
_TRY_AGAIN_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0


class ClusterNetworks(EncryptedNetworks):
    """A base of NetPlane, which makes what is declared here."""

    spare: float
    api_ports: Collection[int]
    _records: ClusterRecords
    _known: asyncio.Event
    _touched: Touched
    _tunnel: Tunnel | None
    _withdrawn: set[str]
    _fresh: set[str]
    _later: set[asyncio.Task[None]]
    _overlays: Overlays
    _keeper: ProxyKeeper
    _proxy_end: ProxyEnd | None
    _trying: bool = False  # to make networks that the kernel refused

    def _networks_in_use(self) -> set[str]:
        raise NotImplementedError

    async def join(
        self,
        node_id: str,
        data_path_address: str,
        data_path_port: int,
        cluster_port: int = CLUSTER_PORT,
    ) -> None:
        """The node is a member: cluster networks can be made from now on.

        Args: cluster_port: where managers listen, and no container is to connect.
        """
        async with self._lock:
            mtu = await self._run(links.mtu_of_address, data_path_address)
            tunnel = Tunnel(node_id, data_path_address, data_path_port, mtu)
            if tunnel == self._tunnel:
                return
            self._tunnel = tunnel
            await self._run(self._balancers.connecting.join)
            self._records.here = node_id
            await self._run(self._balancers.host.protect, {*self.api_ports, cluster_port})
            # Before the first records there is nothing to do, and what an earlier run left must go on.
            if self._records.networks:
                self._touched.add_whole(self._records.networks)
                await self._settle()

    async def leave(self) -> None:
        """The node is no member any more: forget the cluster's networks."""
        async with self._lock:
            self._touched.add(self._records.apply(DataplaneChanges(full=True)))
            await self._settle()
            await self._run(self._balancers.connecting.leave)
            await self._run(self._overlays.prune, self._records, self._networks_in_use())
            await self._encrypt(self._encryption.apply)
            await self._run(self._balancers.apply_host, self._segments())
            self._tunnel = None
            await self._run(self._tell_where_nodes_are)
            await self._run(self._balancers.host.protect, self.api_ports)
            self._withdrawn.clear()
            self._fresh.clear()

    async def apply(self, changes: DataplaneChanges) -> None:
        """Make the kernel agree with a batch; when this returns, it does.

        A network that the kernel refuses keeps nothing else back: it is tried again by itself, and sandboxes
        in it are refused with the reason. Raises NetworkError when the kernel refused anything else; the next
        call tries again what is still to be done.
        """
        async with self._lock:
            if self._tunnel is None:
                raise NetworkNotReady("this node is in no cluster: it can't take cluster networks")
            beginning = self._records.beginning(changes) if not changes.full else set()
            self._touched.add(self._records.apply(changes))
            if beginning and self.spare:
                self._fresh |= beginning
                self._do_later(self._let_in(beginning))
            here = {record.spec.task_id for record in self._sandboxes.values()} if self._withdrawn else set()
            self._withdrawn.difference_update(
                [each for each in self._withdrawn if each not in here and not self._records.knows(each)]
            )
            await self._settle()
            if changes.full:
                await self._run(self._overlays.prune, self._records, self._networks_in_use())
        if not self._building:
            await self._leave_unused_parts(self._networks_in_use())

    async def withdraw(self, sandbox_id: str) -> None:
        """Give a sandbox no new connection from this node from now on; those it has go on."""
        await self._set_withdrawn(sandbox_id, withdrawn=True)

    async def restore(self, sandbox_id: str) -> None:
        """Undo `withdraw`."""
        await self._set_withdrawn(sandbox_id, withdrawn=False)

    async def _set_withdrawn(self, sandbox_id: str, *, withdrawn: bool) -> None:
        async with self._lock:
            record = self._sandboxes.get(sandbox_id)
            if record is None or not record.spec.task_id:
                return
            task_id = record.spec.task_id
            if (task_id in self._withdrawn) == withdrawn:
                return
            (self._withdrawn.add if withdrawn else self._withdrawn.discard)(task_id)
            self._touched.add_services(self._records.services_of([task_id]))
            await self._settle()

    async def _settle(self) -> None:
        """Carry out what was touched, and let go of flows to addresses that lost their new connections."""
        touched = self._touched
        self._names.forget(touched.networks, touched)
        failure: NetworkError | None = None
        try:
            await self._make_ways(touched)
        except NetworkError as error:
            failure = error  # no reason to send connections to tasks that are gone
        lost = await self._run(self._lead, touched)
        self._watch_proxy()
        if lost.addresses:
            self._do_later(self._choose_again(lost))
        known, self._known = self._known, asyncio.Event()
        known.set()
        if failure is not None:
            raise failure
        self._touched = Touched()
        self._touched.add_whole(self._overlays.refused)
        if self._overlays.refused and not self._trying:
            self._trying = True
            self._do_later(self._try_again())

    async def _try_again(self) -> None:
        """Make the networks that the kernel refused, as soon as it lets us."""
        pause = _TRY_AGAIN_SECONDS
        try:
            while self._overlays.refused:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                async with self._lock:
                    if self._overlays.refused and self._tunnel is not None:
                        try:
                            await self._settle()
                        except NetworkError as error:
                            log.warning("networks are tried again later: %s", error)
        finally:
            self._trying = False

    async def _make_ways(self, touched: Touched) -> None:
        if touched.keys or touched.whole:
            await self._encrypt(self._encryption.apply)
        if self._tunnel is not None and (touched.whole or touched.addresses):
            await self._run(
                self._overlays.apply, self._tunnel, self._records, touched, self._networks_in_use()
            )

    async def _retry(self, network_id: str) -> str:
        """Make a network that could not be made here, in case the host's links have changed; why it still
        can't be, or ""."""
        async with self._lock:
            self._touched.add_whole({network_id})
            await self._settle()
            return self._overlays.objection(network_id)

    def _lead(self, touched: Touched) -> Lost:
        """Connections to who serves. All in one visit to the worker thread: each may wait for a CPU twice."""
        self._balancers.apply(touched, self._segments())
        self._tell_where_nodes_are()
        lost = self._balancers.take_lost()
        if lost.addresses:
            self._balancers.forget_udp(lost)
        return lost

    def _tell_where_nodes_are(self) -> None:
        nodes = {peer.address for peer in self._records.peers.values()} if self._tunnel is not None else ()
        self._balancers.host.tell_cluster(nodes, self._tunnel.port if self._tunnel is not None else 0)

    def _watch_proxy(self, *, stop: bool = False) -> None:
        """Should the process for the PROXY protocol end, have another."""
        pid = 0 if stop else self._keeper.pid
        if self._proxy_end is not None and self._proxy_end.pid != pid:
            self._proxy_end.close()
            self._proxy_end = None
        if self._proxy_end is None and pid:
            self._proxy_end = ProxyEnd(pid, lambda: self._do_later(self._revive_proxy()))

    async def _revive_proxy(self) -> None:
        async with self._lock:
            log.warning("the process for the PROXY protocol ended: another one takes its place")
            try:
                await self._run(self._balancers.mind_proxy)
            except NetworkError as error:
                log.error("%s; it is tried again with the next change", error)
            self._watch_proxy()

    def _do_later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _let_in(self, tasks: set[str]) -> None:
        """Send tasks connections that still serve after a moment: many a broken program ends in its first.

        Until then they get some only if nobody else serves.
        """
        await asyncio.sleep(self.spare)
        async with self._lock:
            self._fresh -= tasks
            self._touched.add_services(self._records.services_of(tasks))
        while True:
            try:
                async with self._lock:
                    await self._settle()
                return
            except NetworkError as error:
                log.warning("new tasks get connections later: %s", error)
            await asyncio.sleep(_TRY_AGAIN_SECONDS)

    async def _choose_again(self, stale: Lost) -> None:
        """Free connections from addresses that took them and vanished, before TCP tries a second time."""
        await asyncio.sleep(_ANSWER_SECONDS)
        try:
            await self._run(self._balancers.forget_unanswered, stale)
        except NetlinkError as error:
            log.warning("connections that were never answered stay where they are: %s", error)

    async def _drop_unused(self, record: SandboxRecord) -> None:
        """An overlay that was withdrawn from this node goes with its last sandbox, and so does this node's
        part of a network whose addresses are the nodes'."""
        await self._leave_unused_parts(self._networks_in_use())
        gone = {
            each
            for each in record.networks
            if each not in self._records.networks and self._overlays.segment(each) is not None
        }
        if gone - self._networks_in_use():
            async with self._lock:
                await self._run(self._overlays.prune, self._records, self._networks_in_use())
                await self._run(self._balancers.apply_host, self._segments())
