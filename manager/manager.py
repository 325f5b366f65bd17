"""One manager process: the core behind its cluster port, its API and its certificate."""

import asyncio
import logging
import socket
import ssl
from collections import OrderedDict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NoReturn

from aiohttp import web

from cluster.errors import Unavailable
from cluster.identity import Identity, check_identity
from cluster.joining import RenewRequest
from cluster.objects import Cluster, Node
from cluster.seams import Clock, Random
from manager.api.app import MAX_BODY, engine_app
from manager.api.health import own_health
from manager.api.leaving import leave
from manager.api.request import answer, body
from manager.ca.authority import first_identity, found_cluster
from manager.ca.external import ExternalCAs, https
from manager.certificates import load_identity, save_identity
from manager.core import Core
from manager.exits import leave_last_words
from manager.guard import Bounds, Guard
from manager.health import ClusterHealth, ManagerHealth, judge
from manager.keys.locks import lock_of
from manager.locking import DaemonPipe
from manager.port import ClusterPort
from manager.raft import Raft, TlsMaterial
from manager.raft.engine import exit_process
from manager.raft.room import RESERVE
from manager.raft.timing import RaftLimits
from manager.rpc.health import ask_all
from manager.rpc.join import Answered, posting
from manager.rpc.leader import LeaderClient
from manager.rpc.server import port_app
from manager.rpc.tls import server_context
from manager.settings import Settings

log = logging.getLogger("shoal.manager")

SERVER: dict[str, Any] = {"handler_cancellation": True, "shutdown_timeout": 1.0}
"""How both of the manager's HTTP servers run."""
PORT = Bounds(
    connections=16384,  # every agent holds one
    anonymous=128,
    head_timeout=10.0,
    idle_timeout=60.0,
    body_bytes=MAX_BODY,
    body_timeout=20.0,
)
PORT_SHARE, API_SHARE = 0.5, 0.125
"""Of the files that the manager may open; the rest is Raft's and the disk's."""
MAX_HANDSHAKES = 256
"""TLS handshakes at a time; beyond that, the one that has taken longest is ended."""
HANDSHAKE_TIMEOUT = 5.0


class Manager(Core):
    """The core, with sockets. Implements the API's `Access` and the cluster port's `Port`."""

    def __init__(self, settings: Settings, clock: Clock, rng: Random, pipe: DaemonPipe | None = None) -> None:
        """pipe: to the node daemon, which knows the unlock key."""
        super().__init__(settings.node_id, settings.advertise, clock, rng)
        self.ipv6 = Path("/proc/net/if_inet6").exists()  # not there in a kernel that has IPv6 off, or none
        self._settings = settings
        if pipe is not None:
            self.key_keeper = pipe
        self._identity: Identity
        self.authority.external = ExternalCAs(https(lambda: self._identity))
        self._tls: ssl.SSLContext | None = None
        self._handshakes: OrderedDict[asyncio.Task[None], None] = OrderedDict()

    # --- life -----------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Start, serve until `stop` is set, hand leadership over and end.

        Raises ShoalError when it can't start, and whatever ends a controller.
        """
        async with AsyncExitStack() as stack:
            founding, cluster = self._settings.founding, self._become()
            await self._start_raft(stack)
            await self._open_port(stack)
            if founding is not None and cluster is not None:
                await self.found(cluster, founding)
            else:
                await self.ensure_member(self._settings.peers, self._post)
            await self._serve(stack)
            log.info("manager ready", extra={"node": self.node_id, "address": self._settings.advertise})
            await self.lead_until(stop, self._post)
            await self.hand_over()

    def _become(self) -> Cluster | None:
        """Take up the identity in the files, or found a cluster and take its first; returns a new cluster."""
        settings, keeper, cluster = self._settings, self.key_keeper, None
        if settings.founding is not None:
            cluster = found_cluster(
                settings.founding.spec,
                clock=self.clock,
                rng=self.rng,
                default_address_pool=settings.founding.default_addr_pool,
                subnet_size=settings.founding.subnet_size,
                data_path_port=settings.founding.data_path_port,
                unlock_key=keeper.locks[0].key,
            )
            keeper.locks = (lock_of(cluster),)
            identity = first_identity(cluster, self.node_id, self.clock)
            save_identity(settings.certificates, identity, keeper.locks)
        else:
            identity = load_identity(settings.certificates, keeper.locks)
        peer = check_identity(identity, self.clock.now(), expired_too=True)
        if self.clock.now() >= peer.not_after:  # the node daemon asks for another as soon as this one answers
            log.warning("this manager's certificate has expired", extra={"node": self.node_id})
        if peer.node_id != self.node_id:
            raise Unavailable(f"the certificate is of node {peer.node_id}, not of {self.node_id}")
        self.cluster_id = peer.cluster_id
        self._identity = identity
        self._tls = server_context(identity)
        return cluster

    async def _start_raft(self, stack: AsyncExitStack) -> None:
        settings, identity = self._settings, self._identity
        self._client = LeaderClient(self.node_id, self.leader_member, identity, self.clock, self.no_leader)
        stack.push_async_callback(self._client.close)
        raft = Raft(
            node_id=self.node_id,
            cluster_id=self.cluster_id,
            address=settings.advertise,
            directory=settings.state_dir,
            state_machine=self.store,
            tls=TlsMaterial(identity.certificate, identity.key, identity.root_ca),
            peers=None if settings.founding is not None else settings.peers,
            clock=self.clock,
            random=self.rng,
            limits=RaftLimits(reserve=RESERVE),
            on_fatal=self._fatal,
            locks=self.key_keeper.locks,
            force_new_cluster=settings.force_new_cluster,
        )
        await self.start(stack, raft, self._client)

    def _fatal(self, reason: str) -> NoReturn:
        """Raft can keep its promises no longer: say why, for `docker info`, and end."""
        leave_last_words(self._settings.socket, reason)
        exit_process(reason)

    async def _open_port(self, stack: AsyncExitStack) -> None:
        guard, app = Guard(PORT.within(PORT_SHARE)), port_app(self)
        app.middlewares.append(guard.bodies)
        runner = guard.runner(app, **SERVER)
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
        app = engine_app(
            self,
            web.post("/internal/leave", leave),
            web.get("/internal/alive", self._alive),
            web.post("/internal/renew", self._renew),
        )
        guard = Guard(Bounds(body_bytes=MAX_BODY).within(API_SHARE))
        app.middlewares.append(guard.bodies)
        runner = guard.runner(app, **SERVER)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback(path.unlink, missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        await web.SockSite(runner, listener).start()

    async def _alive(self, request: web.Request) -> web.Response:
        """GET /internal/alive: the loops turn, this one and Raft's."""
        await self.raft.turn()
        return web.Response(status=204)

    async def _renew(self, request: web.Request) -> web.Response:
        """POST /internal/renew: a certificate for this very node, from the state as it is here.

        For one that has expired, with which no other manager can be asked. It gives no power that the state
        on this disk does not give: who was removed or demoted meanwhile is refused by the others.
        """
        wanted = await body(request, RenewRequest)
        return answer(await self.authority.renew(self.store.view(), self.node_id, wanted.csr.encode()))

    async def reload_identity(self) -> None:
        """Use the renewed certificate from the files for connections from now on."""
        identity = load_identity(self._settings.certificates, self.key_keeper.locks)
        check_identity(identity, self.clock.now())
        self._identity = identity
        self._tls = server_context(identity)
        self.raft.update_tls(TlsMaterial(identity.certificate, identity.key, identity.root_ca))
        await self._client.use(identity)
        log.info("certificate renewed")

    async def _post(self, manager: str, path: str, content: bytes) -> Answered:
        """A request with the certificate as it is now."""
        async with posting(self._identity) as post:
            return await post(manager, path, content)

    # --- connections ----------------------------------------------------------------------------------

    def _accept_http(self, sock: socket.socket) -> None:
        if len(self._handshakes) >= MAX_HANDSHAKES:
            self._handshakes.popitem(last=False)[0].cancel()
        task = asyncio.create_task(self._handshake(sock))
        self._handshakes[task] = None
        task.add_done_callback(lambda done: self._handshakes.pop(done, None))
        # Cancelled before its first step, a task runs none of its code.
        task.add_done_callback(lambda done: sock.close() if done.cancelled() else None)

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

    # --- how it is ------------------------------------------------------------------------------------

    def health(self) -> ManagerHealth:
        """This manager in its own words."""
        settings, expires = self._settings, self._identity.peer.not_after
        return own_health(self, self.raft, self.advertise, settings.state_dir, expires)

    async def cluster_health(self) -> ClusterHealth:
        """Ask every manager. Needs no leader."""
        status = self.raft.status()
        learners = {peer.node_id: peer.address for peer in status.peers if peer.learner}
        others = {**learners, **status.members}
        others.pop(self.node_id, None)
        names = {node.id: node.description.hostname for node in self.store.view().all(Node)}
        found = [self.health(), *await ask_all(others, names, self._identity)]
        return judge(self.node_id, status.members, found, self.clock.now())

    # --- asking the leader ------------------------------------------------------------------------------

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """The leader's answer."""
        return await self._client.forward(request)

    async def ask_leader(self, method: str, path: str) -> None:
        """A call of this manager's own to the leader's cluster port."""
        await self._client.call(method, path)
