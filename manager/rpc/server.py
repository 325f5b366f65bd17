"""The routes of the cluster port: join, renewal, sessions, Raft membership, requests from other managers."""

from typing import Protocol

import msgspec
from aiohttp import web

from cluster.errors import Forbidden, NotFound, Unavailable
from cluster.identity import Peer
from cluster.joining import JoinRequest, RenewRequest, RootCertificate
from cluster.objects import Node
from cluster.seams import MILLISECOND, SECOND
from manager.api.access import ACCESS, Access
from manager.api.app import MAX_BODY, Handler, engine_app, errors, not_done, on_the_leader
from manager.api.request import answer, body
from manager.ca.authority import Authority
from manager.dispatcher.channel import PeerIdentity
from manager.rpc import attachments, health
from manager.rpc.leader import Barrier
from manager.rpc.membership import Membership, admit_manager, dismiss_manager
from manager.rpc.peers import certificate_of, require_manager, require_node
from manager.rpc.session import MAX_FRAME, Sessions, WebSocketChannel
from manager.store import View

_FORWARD = "/forward"
ROLE_PATIENCE = 10 * SECOND
ROLE_POLL = 20 * MILLISECOND


class RaftAddress(msgspec.Struct, frozen=True):
    """POST /raft/join/{node_id}: where the joining manager's cluster port is, "ip:port"."""

    address: str


class Port(Access, Membership, Protocol):
    """What the cluster port needs of its manager, besides what the API needs."""

    cluster_id: str
    authority: Authority

    def sessions(self) -> Sessions:
        """The dispatcher."""


def port_app(port: Port) -> web.Application:
    """All that is served on the cluster port over HTTP."""
    handlers = _Handlers(port)
    app = web.Application(middlewares=[errors, handlers.managers_only], client_max_size=MAX_BODY)
    app[ACCESS] = port
    app.router.add_get("/ca", handlers.root_ca)
    app.router.add_post("/join", on_the_leader(handlers.join))
    app.router.add_post("/renew", handlers.renew)
    app.router.add_get("/session", handlers.session)
    app.router.add_get("/raft/barrier", handlers.barrier)
    app.router.add_get("/raft/health", health.own)
    app.router.add_post("/raft/join/{node_id}", handlers.own(on_the_leader(handlers.raft_join)))
    app.router.add_post("/raft/leave/{node_id}", handlers.own(on_the_leader(handlers.raft_leave)))
    attachments.routes(app, handlers.own_node, _FORWARD)
    app.router.add_post(f"{_FORWARD}/join", on_the_leader(handlers.join))
    app.router.add_post(f"{_FORWARD}/raft/join/{{node_id}}", on_the_leader(handlers.raft_join))
    app.router.add_post(f"{_FORWARD}/raft/leave/{{node_id}}", on_the_leader(handlers.raft_leave))
    app.add_subapp(_FORWARD, engine_app(port))
    return app


class _Handlers:
    def __init__(self, port: Port) -> None:
        self._port = port

    @web.middleware
    async def managers_only(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What managers ask each other, they alone may ask; checked before anything is read."""
        if request.path.startswith((_FORWARD + "/", "/raft/")):
            try:
                self._manager(request)
            except Forbidden as error:
                if request.path == "/raft/barrier" or "/raft/" not in request.path:
                    # One that was demoted and does not know it yet: its client is told to try elsewhere.
                    return not_done(f"{error}. Ask another manager")
                # About its own vote. That it has none is said from a confirmed state only: a manager that has
                # just started may not know of a promotion that needs this very vote to be committed.
                await self._port.confirmed()
                self._manager(request)
        return await handler(request)

    def _manager(self, request: web.Request) -> Peer:
        port = self._port
        return require_manager(request, port.cluster_id, port.store.view(), port.clock.now())

    def _node(self, request: web.Request, *, removed_too: bool = False) -> Peer:
        port = self._port
        cluster = None if removed_too else port.store.view().cluster()
        return require_node(request, port.cluster_id, cluster, port.clock.now())

    # --- joining --------------------------------------------------------------------------------------

    async def root_ca(self, request: web.Request) -> web.Response:
        """GET /ca, without a certificate."""
        cluster = self._port.store.view().cluster()
        if cluster is None:
            raise NotFound("this manager has not learnt the cluster's state yet: try again")
        return answer(RootCertificate(cluster.root_ca.certificate.decode()))

    async def join(self, request: web.Request) -> web.Response:
        """POST /join: the token is what admits."""
        return answer(await self._port.authority.admit(await body(request, JoinRequest)))

    async def renew(self, request: web.Request) -> web.Response:
        """POST /renew: any manager can answer, from a confirmed view."""
        peer = self._node(request)
        wanted = await body(request, RenewRequest)
        await self._port.confirmed()
        view = await self._role_settled(peer.node_id)
        return answer(await self._port.authority.renew(view, peer.node_id, wanted.csr.encode()))

    async def _role_settled(self, node_id: str) -> View:
        """The state, once a promotion or demotion under way is done: the certificate has the new role."""
        clock = self._port.clock
        deadline = clock.monotonic() + ROLE_PATIENCE
        while True:
            view = self._port.store.view()
            node = view.get(Node, node_id)
            if node is None or node.role is node.spec.role:
                return view
            if clock.monotonic() >= deadline:
                raise Unavailable(
                    f"node {node_id} can't be made a {node.spec.role.value} yet: the leader's log says why. "
                    "It goes on trying"
                )
            await clock.sleep(ROLE_POLL)

    # --- agents ---------------------------------------------------------------------------------------

    async def session(self, request: web.Request) -> web.StreamResponse:
        """GET /session: a WebSocket; a manager that does not lead names the one that does.

        A removed node gets this far, to be told so by the dispatcher: then it leaves by itself.
        """
        peer = self._node(request, removed_too=True)
        socket = web.WebSocketResponse(max_msg_size=MAX_FRAME, compress=False, timeout=1.0)
        await socket.prepare(request)
        who = PeerIdentity(peer.node_id, peer.role, request.remote or "", certificate_of(request) or b"")
        await self._port.sessions().serve(who, WebSocketChannel(socket))
        return socket

    # --- managers -------------------------------------------------------------------------------------

    async def barrier(self, request: web.Request) -> web.Response:
        """GET /raft/barrier: for a follower's confirmed read."""
        index, managers = await self._port.barrier()
        return answer(Barrier(index, managers.leader, managers.members, managers.reachable))

    def own(self, handler: Handler) -> Handler:
        """Only about oneself: the path's node id is the certificate's. Forwarded requests were checked so."""

        async def check(request: web.Request) -> web.StreamResponse:
            peer = self._manager(request)
            if request.match_info["node_id"] != peer.node_id:
                raise Forbidden(f"manager {peer.node_id} may join and leave for itself only")
            return await handler(request)

        return check

    def own_node(self, handler: Handler) -> Handler:
        """As `own`, for any node."""

        async def check(request: web.Request) -> web.StreamResponse:
            peer = self._node(request)
            if request.match_info["node_id"] != peer.node_id:
                raise Forbidden(f"node {peer.node_id} may attach containers of its own only")
            return await handler(request)

        return check

    async def raft_join(self, request: web.Request) -> web.Response:
        """POST /raft/join/{node_id}: a node with the manager role becomes a voting member. Safe to repeat."""
        wanted = await body(request, RaftAddress)
        await admit_manager(self._port, request.match_info["node_id"], wanted.address)
        return answer({})

    async def raft_leave(self, request: web.Request) -> web.Response:
        """POST /raft/leave/{node_id}: a manager gives up its vote and role, unless quorum would be lost."""
        await dismiss_manager(self._port, request.match_info["node_id"])
        return answer({})
