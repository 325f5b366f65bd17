"""One manager: Raft, store, certificate authority, controllers, cluster port and API, put together."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import web

from cluster.errors import ShoalError, Unavailable
from cluster.identity import check_identity
from cluster.messages import LogChunk, LogRequest
from cluster.seams import MILLISECOND, SECOND, Clock, Random
from manager.allocator import Allocator
from manager.api.access import NO_LEADER, Managers, SelfLeads
from manager.api.app import engine_app
from manager.api.leaving import leave
from manager.ca.authority import Authority, first_identity, found_cluster, founding_objects
from manager.ca.roles import RoleManager
from manager.certificates import load_identity, save_identity
from manager.dispatcher import Dispatcher
from manager.leader import Leadership, Runnable
from manager.orchestrator.node_down import OrphanKeeper
from manager.orchestrator.orchestrator import GlobalOrchestrator, ReplicatedOrchestrator
from manager.orchestrator.reaper import Reaper
from manager.port import ClusterPort
from manager.raft import NotLeader, Raft, TlsMaterial
from manager.rpc.join import ask_to_be_member
from manager.rpc.leader import LeaderClient
from manager.rpc.server import port_app
from manager.rpc.session import Sessions
from manager.rpc.tls import server_context
from manager.rpc.vote import VoteKeeper
from manager.scheduler import Scheduler
from manager.settings import Founding, Settings
from manager.store import Store, View

log = logging.getLogger("shoal.manager")

REACHABLE_WITHIN = 2 * SECOND
"""A member that has not answered the leader for longer counts as unreachable."""
HAND_OVER_TIMEOUT = 3.0
APPLY_TIMEOUT = 3 * SECOND
FOUNDING_TIMEOUT = 10.0
SERVER: dict[str, Any] = {
    "access_log": None,
    "handler_cancellation": True,
    "shutdown_timeout": 1.0,
    # As in Go's servers: a filter may name very many services.
    "max_line_size": 1 << 20,
    "max_field_size": 1 << 20,
}
"""How both of the manager's HTTP servers run."""
HANDSHAKE_TIMEOUT = 5.0
ASKING_PATIENCE = 3 * SECOND
_CATCH_UP = 25 * MILLISECOND
_ATTEMPTS = 40


class Manager:
    """Implements the API's `Access` and the cluster port's `Port`."""

    def __init__(self, settings: Settings, clock: Clock, rng: Random) -> None:
        self.node_id = settings.node_id
        self.cluster_id = ""
        self.clock = clock
        self.rng = rng
        self.store = Store(clock, rng)
        self.authority = Authority(self.store, clock, rng)
        self._dispatcher = Dispatcher(self.store, clock, rng, self.leader_address)
        self._settings = settings
        self._elected = asyncio.Event()
        self._tls: ssl.SSLContext | None = None
        self._handshakes: set[asyncio.Task[None]] = set()

    # --- life -----------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Start, serve until `stop` is set, hand leadership over and end.

        Raises ShoalError when it can't start, and whatever ends a controller.
        """
        async with AsyncExitStack() as stack:
            await self._start_raft(stack)
            await self._open_port(stack)
            founding = self._settings.founding
            if founding is not None:
                await self._found(founding)
            else:
                await self._ensure_member()
            await self._serve(stack)
            log.info("manager ready", extra={"node": self.node_id, "address": self._settings.advertise})
            await self._lead_until(stop)
            await self._hand_over()

    async def _start_raft(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        if settings.founding is not None:
            self._cluster = found_cluster(
                settings.founding.spec,
                clock=self.clock,
                rng=self.rng,
                default_address_pool=settings.founding.default_addr_pool,
                subnet_size=settings.founding.subnet_size,
                data_path_port=settings.founding.data_path_port,
            )
            identity = first_identity(self._cluster, self.node_id, self.clock)
            save_identity(settings.certificates, identity)
        else:
            identity = load_identity(settings.certificates)
        peer = check_identity(identity, self.clock.now())
        if peer.node_id != self.node_id:
            raise Unavailable(f"the certificate is of node {peer.node_id}, not of {self.node_id}")
        self.cluster_id = peer.cluster_id
        self._identity = identity
        self._tls = server_context(identity)
        self.raft = Raft(
            node_id=self.node_id,
            cluster_id=peer.cluster_id,
            address=settings.advertise,
            directory=settings.state_dir,
            state_machine=self.store,
            tls=TlsMaterial(identity.certificate, identity.key, identity.root_ca),
            peers=settings.peers,
            clock=self.clock,
            random=self.rng,
        )
        self.store.bind(self.raft)
        self._leader = LeaderClient(self.node_id, self._known_leader, identity, self.clock)
        stack.push_async_callback(self._leader.close)
        await self.raft.start()
        stack.push_async_callback(self.raft.stop)
        stack.callback(self.raft.watch_leadership(self._leadership_changed))

    def _leadership_changed(self, leads: bool, _term: int) -> None:
        if leads:
            self._elected.set()
        else:
            self._elected.clear()

    async def _open_port(self, stack: AsyncExitStack) -> None:
        runner = web.AppRunner(port_app(self), **SERVER)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        self._port_runner = runner
        host, _, port = self._settings.listen.rpartition(":")
        listener = ClusterPort(host.strip("[]"), int(port), self.raft.accept, self._accept_http)
        await listener.start()
        stack.push_async_callback(listener.stop)

    async def _serve(self, stack: AsyncExitStack) -> None:
        """Serve the API on the private socket; its answers say that the manager is ready."""
        path = self._settings.socket
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stack.callback(listener.close)
        app = engine_app(self, web.post("/internal/leave", leave))
        runner = web.AppRunner(app, **SERVER)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback(path.unlink, missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        await web.SockSite(runner, listener).start()

    async def _lead_until(self, stop: asyncio.Event) -> None:
        """Run the controllers whenever this manager leads, until told to stop or one of them fails."""
        leadership = asyncio.create_task(Leadership(self.raft.watch_leadership, self._controllers).run())
        votes = asyncio.create_task(VoteKeeper(self.known_leader, self._ask_for_vote, self.clock).run())
        stopping = asyncio.create_task(stop.wait())
        running = (leadership, votes, stopping)
        try:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    async def _hand_over(self) -> None:
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
            Allocator(store, clock, rng),
            ReplicatedOrchestrator(store, clock, rng),
            GlobalOrchestrator(store, clock, rng),
            OrphanKeeper(store, clock),
            Reaper(store, clock),
            Scheduler(store, clock),
            self._dispatcher,
            RoleManager(store, self.members, self.raft.remove_member, clock),
        ]

    async def reload_identity(self) -> None:
        """Use the renewed certificate from the files for connections from now on."""
        identity = load_identity(self._settings.certificates)
        check_identity(identity, self.clock.now())
        self._identity = identity
        self._tls = server_context(identity)
        self.raft.update_tls(TlsMaterial(identity.certificate, identity.key, identity.root_ca))
        await self._leader.use(identity)
        log.info("certificate renewed")

    async def _ask_for_vote(self) -> None:
        members = self.members()
        others = [address for node_id, address in members.items() if node_id != self.node_id]
        if others:
            await ask_to_be_member(
                self.node_id,
                self._settings.advertise,
                others,
                self._identity,
                self.clock,
                patience=ASKING_PATIENCE,
            )

    # --- becoming a member ----------------------------------------------------------------------------

    async def _found(self, founding: Founding) -> None:
        async with asyncio.timeout(FOUNDING_TIMEOUT):
            await self._elected.wait()
            await self.store.update(
                lambda tx: founding_objects(
                    tx,
                    self._cluster,
                    self.node_id,
                    self._settings.advertise,
                    data_path_address=founding.data_path_addr,
                    availability=founding.availability,
                )
            )
        log.info("cluster founded", extra={"cluster": self.cluster_id})

    async def _ensure_member(self) -> None:
        """Ask the managers for a vote, unless this manager has one: a join that broke off goes on here."""
        members = {**self._settings.peers, **self.members()}
        if self.node_id in members:
            return
        await ask_to_be_member(
            self.node_id,
            self._settings.advertise,
            [address for node_id, address in members.items() if node_id != self.node_id],
            self._identity,
            self.clock,
        )

    # --- connections ----------------------------------------------------------------------------------

    def _accept_http(self, sock: socket.socket) -> None:
        task = asyncio.create_task(self._handshake(sock))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _handshake(self, sock: socket.socket) -> None:
        """TLS as the server; an expired or foreign client certificate ends here, and both sides log it."""
        peer = sock.getpeername() if sock.fileno() >= 0 else ""
        server = self._port_runner.server
        assert server is not None, "the runner is set up before the port opens"
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                server, sock, ssl=self._tls, ssl_handshake_timeout=HANDSHAKE_TIMEOUT
            )
        except (OSError, TimeoutError) as error:
            sock.close()
            log.warning(
                "refused a connection to the cluster port", extra={"peer": peer, "reason": str(error)}
            )

    # --- what the API and the port ask ----------------------------------------------------------------

    def leading(self) -> bool:
        """Whether this manager leads and has applied what its predecessors wrote."""
        return self._elected.is_set()

    def known_leader(self) -> str:
        """The leader's node id; empty during an election."""
        return self.raft.leader_id or ""

    def leader_address(self) -> str:
        """The leader's address; empty when none is known."""
        leader = self._known_leader()
        return leader[1] if leader else ""

    def _known_leader(self) -> tuple[str, str] | None:
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
        raise Unavailable(NO_LEADER)

    async def confirmed(self) -> View:
        """The state, confirmed by the leader."""
        await self._confirmed()
        return self.store.view()

    async def managers(self) -> Managers:
        """Who leads and who can be reached."""
        return await self._confirmed()

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """The leader's answer."""
        return await self._leader.forward(request)

    async def ask_leader(self, method: str, path: str) -> None:
        """A call of this manager's own to the leader's cluster port."""
        await self._leader.call(method, path)

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
