"""A manager without its connections: store, Raft, authority, dispatcher, controllers and leadership.

`manager.manager` puts it behind the cluster port and the API; the simulator drives it in virtual time.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Protocol

from cluster.errors import ShoalError, Unavailable
from cluster.messages import LogChunk, LogRequest
from cluster.objects import Cluster, Node
from cluster.seams import MILLISECOND, SECOND, Clock, Random
from cluster.states import Role
from manager.allocator import Allocator
from manager.api.access import Managers, Read, SelfLeads
from manager.ca.authority import Authority, founding_objects
from manager.ca.roles import RoleManager
from manager.ca.rotator import Rotator
from manager.dispatcher import Dispatcher
from manager.encryption.keeper import EpochKeeper
from manager.guidance import no_leader, warnings
from manager.leader import Leadership, Runnable
from manager.locking import KeyKeeper, LockFollower, NoKeeper
from manager.orchestrator.node_down import OrphanKeeper
from manager.orchestrator.orchestrator import GlobalOrchestrator, JobOrchestrator, ReplicatedOrchestrator
from manager.orchestrator.reaper import Reaper
from manager.orchestrator.resource_enforcer import ResourceEnforcer
from manager.raft import NotLeader, Raft
from manager.rpc.address import AddressKeeper
from manager.rpc.join import Post, ask_to_be_member
from manager.rpc.leader import Barrier
from manager.rpc.membership import admit_manager
from manager.rpc.session import Sessions
from manager.rpc.vote import VoteKeeper
from manager.scheduler import Scheduler
from manager.settings import Founding
from manager.snapshot_settings import SnapshotSettings
from manager.store import Store, View
from manager.versions import VersionKeeper

log = logging.getLogger("shoal.manager")

REACHABLE_WITHIN = 2 * SECOND
"""A member that has not answered the leader for longer counts as unreachable."""
HAND_OVER_TIMEOUT = 3.0
APPLY_TIMEOUT = 3 * SECOND
FOUNDING_TIMEOUT = 10.0
ASKING_PATIENCE = 3 * SECOND
_CATCH_UP = 25 * MILLISECOND
_ATTEMPTS = 40


class Leader(Protocol):
    """The manager that leads, asked from another one."""

    async def barrier(self) -> Barrier:
        """A confirmed read's index. Raises Unavailable when no leader is found in time, or SelfLeads."""


class Core:
    """One manager's state and what it does with it. `start` first; then `found`, or be made a member."""

    raft: Raft
    ipv6 = True  # whether the ingress network of a new cluster has IPv6

    def __init__(self, node_id: str, advertise: str, clock: Clock, rng: Random) -> None:
        """advertise: "ip:port" at which the other nodes reach this manager's cluster port."""
        self.node_id = node_id
        self.advertise = advertise
        self.cluster_id = ""
        self.clock = clock
        self.rng = rng
        self.store = Store(clock, rng)
        self.authority = Authority(self.store, clock, rng)
        self._dispatcher = Dispatcher(self.store, clock, rng, self.leader_address)
        self._elected = asyncio.Event()
        self.key_keeper: KeyKeeper = NoKeeper()
        self._leader: Leader

    # --- life -----------------------------------------------------------------------------------------

    async def start(self, stack: AsyncExitStack, raft: Raft, leader: Leader) -> None:
        """Take part in Raft, until the stack is closed. `raft` replicates `self.store`."""
        self.raft = raft
        self.cluster_id = raft.cluster_id
        self._leader = leader
        self.store.bind(raft)
        await raft.start()
        stack.push_async_callback(raft.stop)
        stack.callback(raft.watch_leadership(self._leadership_changed))

    def _leadership_changed(self, leads: bool, _term: int) -> None:
        if leads:
            self._elected.set()
        else:
            self._elected.clear()

    async def found(self, cluster: Cluster, founding: Founding) -> None:
        """Write a new cluster's first objects, as its only manager."""
        async with asyncio.timeout(FOUNDING_TIMEOUT):
            await self._elected.wait()
            cluster = await self.authority.at_founding(cluster, founding.spec)
            await self.store.update(
                lambda tx: founding_objects(
                    tx,
                    cluster,
                    self.node_id,
                    self.advertise,
                    data_path_address=founding.data_path_addr,
                    availability=founding.availability,
                )
            )
        log.info("cluster founded", extra={"cluster": self.cluster_id})

    async def ensure_member(self, peers: Mapping[str, str], post: Post) -> None:
        """Ask the managers for a vote, unless this manager has one: a join that broke off goes on here.

        peers: the members that it was told of, node id → address. Raises ShoalError when it gets none.
        """
        members = {**peers, **self.members()}
        if self.node_id not in members and not self.raft.status().member:
            await ask_to_be_member(self.node_id, self.advertise, [*members.values()], post, self.clock)

    async def _ask_for_vote(self, post: Post) -> None:
        """Make sure that the others still have this manager as a member."""
        others = [address for node_id, address in self.members().items() if node_id != self.node_id]
        if others:
            await ask_to_be_member(
                self.node_id, self.advertise, others, post, self.clock, patience=ASKING_PATIENCE
            )

    async def lead_until(self, stop: asyncio.Event, post: Post) -> None:
        """Run the controllers whenever this manager leads, until told to stop or one of them fails."""
        leadership = asyncio.create_task(Leadership(self.raft.watch_leadership, self._controllers).run())
        votes = asyncio.create_task(
            VoteKeeper(self.known_leader, lambda: self._ask_for_vote(post), self.clock).run()
        )
        follower = LockFollower(self.store, self.raft, self.key_keeper, self.clock)
        locking = asyncio.create_task(follower.run())
        keeper = AddressKeeper(self._moved, lambda: self._tell_address(post), self.clock)
        address = asyncio.create_task(keeper.run())
        stopping = asyncio.create_task(stop.wait())
        settings = SnapshotSettings(self.store, self.raft, self.clock)
        snapshots = asyncio.create_task(settings.run())
        running = (leadership, votes, locking, address, snapshots, stopping)
        try:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    def _moved(self) -> bool:
        """Whether the others have another address of this manager than it has, or the state has none: the
        leader that made it a member may have died before it noted that, and no agent would ever ask it."""
        known = self.members().get(self.node_id)
        node = self.store.view().get(Node, self.node_id)
        if (
            known is None
            or node is None
            or node.role is not Role.MANAGER
            or node.spec.role is not Role.MANAGER
        ):
            return False
        status = node.manager_status
        return known != self.advertise or status is None or status.address != self.advertise

    async def _tell_address(self, post: Post) -> None:
        if self.leading():
            await admit_manager(self, self.node_id, self.advertise)
        else:
            await self._ask_for_vote(post)

    async def hand_over(self) -> None:
        """Before the end: leave leadership, if this manager has it, to another one."""
        if not self.raft.is_leader or len(self.raft.members) < 2:
            return
        try:
            async with asyncio.timeout(HAND_OVER_TIMEOUT):
                await self.raft.transfer_leadership()
        except (ShoalError, TimeoutError) as error:
            log.warning("leadership could not be handed over", extra={"reason": str(error)})

    def _controllers(self) -> Sequence[Runnable]:
        """All that only the leader does, anew for each term."""
        store, clock, rng = self.store, self.clock, self.rng
        return [
            Allocator(store, clock, rng, ipv6=self.ipv6),
            ReplicatedOrchestrator(store, clock, rng),
            GlobalOrchestrator(store, clock, rng),
            JobOrchestrator(store, clock, rng),
            ResourceEnforcer(store, clock),
            OrphanKeeper(store, clock),
            EpochKeeper(store, clock),
            Reaper(store, clock),
            VersionKeeper(store, clock),
            Scheduler(store, clock),
            self._dispatcher,
            Rotator(store, clock, rng, self._dispatcher.renew),
            RoleManager(
                store, self.members, self.raft.remove_member, clock, lambda: self.raft.status().generation
            ),
        ]

    # --- what the API and the port ask ----------------------------------------------------------------

    def leading(self) -> bool:
        """Whether this manager leads and has applied what its predecessors wrote."""
        return self._elected.is_set()

    def trouble(self) -> str:
        """A full disk; empty when there is none."""
        return self.raft.status().no_room

    def known_leader(self) -> str:
        """The leader's node id; empty during an election."""
        return self.raft.leader_id or ""

    def no_leader(self) -> str:
        """Why there is none as far as this manager sees, and what to type."""
        status, left_behind = self.raft.status(), self.raft.left_behind
        # A connection to a host without power looks alive for some seconds; one that is up asks for votes.
        heard = {
            peer.node_id
            for peer in status.peers
            if peer.connected and peer.since_heard is not None and peer.since_heard < REACHABLE_WITHIN
        }
        names = {node.id: node.description.hostname for node in self.store.view().all(Node)}
        reason = left_behind.reason if left_behind is not None else ""
        return no_leader(self.node_id, status.members, heard | {self.node_id}, names, reason)

    def warnings(self) -> list[str]:
        """What `docker info` should warn of."""
        status = self.raft.status()
        connected = {peer.node_id for peer in status.peers if peer.connected}
        return warnings(status.members, connected | {self.node_id})

    def leader_address(self) -> str:
        """The leader's address; empty when none is known."""
        leader = self.leader_member()
        return leader[1] if leader else ""

    def leader_member(self) -> tuple[str, str] | None:
        """The leader's node id and address, as known here."""
        leader = self.raft.leader_id
        address = self.raft.members.get(leader) if leader else None
        return (leader, address) if leader and address else None

    def members(self) -> Mapping[str, str]:
        """Raft's members."""
        return self.raft.members

    async def barrier(self) -> tuple[int, Managers]:
        """A confirmed index and the members' state; NotLeader elsewhere than on the leader."""
        index = await self.raft.read_barrier()
        status = self.raft.status()
        reachable = {self.node_id} | {
            peer.node_id
            for peer in status.peers
            if peer.since_contact is not None and peer.since_contact < REACHABLE_WITHIN
        }
        return index, Managers(self.node_id, frozenset(status.members), frozenset(reachable))

    async def _confirmed(self) -> Managers:
        """Wait until everything acknowledged before this call is applied here."""
        for _ in range(_ATTEMPTS):
            try:
                if self.leading():
                    _, managers = await self.barrier()
                    return managers
                answer = await self._leader.barrier()
                await self.raft.wait_applied(answer.index, timeout=APPLY_TIMEOUT)
                return Managers(answer.leader, answer.members, answer.reachable)
            except (NotLeader, SelfLeads):
                await self.clock.sleep(_CATCH_UP)
            except TimeoutError:
                break
        raise Unavailable(self.no_leader())

    async def confirmed(self) -> View:
        """The state, confirmed by the leader."""
        return (await self.confirmed_read()).view

    async def confirmed_read(self) -> Read:
        """The state, confirmed by the leader, and who can be reached."""
        managers = await self._confirmed()
        return Read(self.store.view(), managers, confirmed=True)

    def own_read(self) -> Read:
        """The state as it is here."""
        managers = Managers(
            self.known_leader(), frozenset(self.members()), frozenset((self.node_id,)), known=False
        )
        return Read(self.store.view(), managers, confirmed=False, age=self.raft.age())

    def logs(self, query: LogRequest) -> AsyncIterator[LogChunk]:
        """Logs from the agents."""
        return self._dispatcher.logs(query)

    async def add_member(self, node_id: str, address: str) -> None:
        """Make a manager a voting member."""
        await self.raft.add_member(node_id, address)

    async def remove_member(self, node_id: str) -> None:
        """Take a manager's vote away."""
        await self.raft.remove_member(node_id)

    async def resign_leadership(self) -> None:
        """Hand leadership to another manager, so that this one can leave."""
        await self.raft.transfer_leadership()

    def sessions(self) -> Sessions:
        """The dispatcher."""
        return self._dispatcher
