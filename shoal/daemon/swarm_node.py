"""This node's part in a cluster: founding, joining, leaving, changing roles, coming back after a restart."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from cluster.errors import Conflict, Unavailable
from cluster.ids import new_id
from cluster.messages import ManagerAddress
from cluster.seams import SECOND, Clock, Random
from cluster.states import Role
from manager.keys.locks import Lock, lock_in, parse_unlock_key
from manager.keys.sealing import new_key
from shoal.daemon.agent_runner import AgentRunner
from shoal.daemon.join import join
from shoal.daemon.manager_files import ManagersFiles
from shoal.daemon.manager_process import ManagerProcess
from shoal.daemon.membership import LOCKED, Membership, MembershipStore
from shoal.daemon.node_state import NodeState
from shoal.daemon.proxy import NOT_A_MANAGER, NOT_IN_SWARM, ManagerProxy
from shoal.daemon.recovery import Recovery
from shoal.daemon.renewal import Renewal, Wish
from shoal.daemon.swarm_requests import InitRequest, JoinRequest, addresses
from worker.agent.agent import NodeEvents

log = logging.getLogger("shoal.daemon.swarm")

ALREADY = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
)
STATE_LOST = (
    "this manager's copy of the cluster's state is gone, and it knows no other manager to get it from: "
    'restore it, or use "docker swarm leave --force"'
)

READY_PATIENCE = 5 * SECOND
"""How long init and join wait for the managers to count this node as ready."""
T = TypeVar("T")


class SwarmNode(Renewal, Recovery):
    """Owns the manager process and the agent of this node.

    State changes are serialised: one of init, join, leave, promote and demote at a time.
    """

    def __init__(
        self,
        store: MembershipStore,
        agents: AgentRunner,
        proxy: ManagerProxy,
        manager_files: ManagersFiles,
        log_flags: Sequence[str],
        clock: Clock,
        rng: Random,
        advertise_address: str = "",
    ) -> None:
        """`advertise_address`: where this node is, "ip", "ip:port" or an interface; empty: where it was."""
        self._advertise_address = advertise_address
        self._store = store
        self._agents = agents
        self._proxy = proxy
        self._files = manager_files
        self._socket = str(manager_files.socket)
        self._log_flags = tuple(log_flags)
        self._clock = clock
        self._rng = rng
        self._lock = asyncio.Lock()
        self._membership: Membership | None = None
        self._pending = ""  # "pending" while a join is under way
        self._error = ""
        self._manager = ManagerProcess(self._manager_arguments, manager_files, clock)
        self._wishes: asyncio.Queue[Wish] = asyncio.Queue()
        self._under_way: set[asyncio.Task[Any]] = set()

    # --- life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up the membership on disk, if there is one."""
        self._membership = self._store.load()
        if self._membership is None:
            return
        self._membership = await self._settle_address(self._membership)
        if self._membership.role is Role.MANAGER:
            # Without its manager the node still runs its tasks; `docker info` shows the error.
            self._store.look_at_lock()
            if self._store.locked:
                self._proxy.refusal = LOCKED
                log.warning("this manager is locked; `docker swarm unlock` starts it")
            elif self._store.has_raft() or self._other_managers():
                await self._manager.resume()
                self._proxy.attach(self._socket)
            else:
                self._error = self._proxy.refusal = STATE_LOST
                log.error(STATE_LOST)
        else:
            self._proxy.refusal = NOT_A_MANAGER
            self._store.forget_raft()  # a demotion may have broken off
        await self._agents.start(self._membership, self)

    async def stop(self) -> None:
        """End the manager process and the agent; containers run on."""
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)
        await self._agents.stop()
        await self._manager.stop()
        await self._proxy.detach()

    # --- the API's verbs ----------------------------------------------------------------------------------

    async def init(self, request: InitRequest) -> str:
        """Found a cluster; this node's id."""
        async with self._lock:
            if request.force_new_cluster:
                return await self._force_new_cluster(request)
            self._must_be_outside()
            request.check()
            self._begin()
            node_id = new_id(self._rng)
            listen, advertise, data_path, local = await addresses(request)
            membership = Membership(
                node_id=node_id,
                cluster_id="",
                role=Role.MANAGER,
                listen_address=listen,
                advertise_address=advertise,
                data_path_address=data_path,
                advertise_local=local,
                data_path_port=request.data_path_port or 4789,
                managers=(ManagerAddress(node_id, advertise),),
            )
            self._membership = membership
            if request.autolock:
                self._store.locks = (Lock(new_key(self._rng)),)
            try:
                await self._start_manager(("--init", request.founding(membership.data_path_address)))
                self._files.take_certificates()
                cluster_id = self._store.identity().peer.cluster_id
                self._membership = replace(membership, cluster_id=cluster_id)
                self._store.save(self._membership)
                await self._agents.start(self._membership, self)
                await self._agents.connected(READY_PATIENCE)
            except BaseException:
                await self._undo()
                raise
            self._wishes.put_nowait(Wish("", node_id))
            log.info("cluster founded", extra={"node": node_id, "cluster": cluster_id})
            return node_id

    async def join(self, request: JoinRequest) -> None:
        """Join a cluster through one of its managers, or come back to it after the certificate expired."""
        async with self._lock:
            if self._membership is not None and self._expired():
                await self._come_back(self._membership, request)
                return
            self._must_be_outside()
            self._begin()
            self._pending = "pending"
            try:
                await self._join(request)
            except BaseException:
                await self._undo()
                raise
            finally:
                self._pending = ""

    async def _come_back(self, membership: Membership, request: JoinRequest) -> None:
        """Get another certificate as the node that this one is; its tasks and its role stay."""
        if self._store.locked:
            raise Unavailable(LOCKED)
        joined = await join(
            request.remote_addrs,
            request.join_token,
            clock=self._clock,
            address=membership.address,
            data_path_address=membership.data_path_address,
            former=self._store.identity(),
        )
        if joined.answer.node_id != membership.node_id:
            raise Conflict(
                "the manager is of a version that made this a new node, "
                f"{joined.answer.node_id}: remove that one (docker node rm --force), and upgrade the managers"
            )
        await self._take(membership, joined.identity, joined.answer)
        log.info("came back to the cluster with another certificate", extra={"node": membership.node_id})

    async def _join(self, request: JoinRequest) -> None:
        listen, advertise, data_path, local = await addresses(request)
        joined = await join(
            request.remote_addrs,
            request.join_token,
            clock=self._clock,
            address=advertise.rpartition(":")[0],
            data_path_address=data_path,
            availability=request.wanted_availability,
        )
        answer = joined.answer
        self._store.save_identity(joined.identity, (lock_in(answer),))
        self._membership = Membership(
            node_id=answer.node_id,
            cluster_id=answer.cluster_id,
            role=answer.role,
            listen_address=listen,
            advertise_address=advertise,
            data_path_address=data_path,
            advertise_local=local,
            data_path_port=answer.data_path_port,
            managers=answer.managers,
        )
        if answer.role is Role.MANAGER:
            await self._start_manager()
        else:
            await self._proxy.detach(NOT_A_MANAGER)
        self._store.save(self._membership)
        await self._agents.start(self._membership, self)
        await self._agents.connected(READY_PATIENCE)
        self._wishes.put_nowait(Wish("", answer.node_id))
        log.info("joined the cluster", extra={"node": answer.node_id, "role": answer.role.value})

    async def unlock(self, text: str) -> None:
        """Start a manager that autolock keeps from starting. Raises InvalidUnlockKey, InvalidArgument."""
        async with self._lock:
            if self._membership is None:
                raise Unavailable(NOT_IN_SWARM)
            if self._membership.role is not Role.MANAGER:
                raise Unavailable(NOT_A_MANAGER)
            if not self._store.locked:
                raise Conflict("swarm is not locked")
            self._store.unlock(parse_unlock_key(text))
            await self._manager.resume()
            self._proxy.attach(self._socket)
            self._agents.reconnect()
            log.info("unlocked")
            if self._manager.error:
                raise Unavailable(f"swarm component could not be started: {self._manager.error}")

    async def leave(self, force: bool) -> None:
        """Leave the cluster: tasks end, certificates and state go."""
        await self._to_the_end(self._leave(force))

    async def _leave(self, force: bool) -> None:
        async with self._lock:
            if self._membership is None:
                raise Unavailable("This node is not part of a swarm.")
            if self._store.locked and not force:
                raise Unavailable(
                    "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this "
                    "message."
                )
            if self._membership.role is Role.MANAGER:
                await self._give_up_managing(force)
            await self._undo()

    async def _give_up_managing(self, force: bool) -> None:
        try:
            answer = await self._proxy.call("POST", f"/internal/leave?force={int(force)}")
        except Unavailable as error:
            if not force:
                raise Unavailable(f"{error}; or use --force to leave all the same") from error
            log.warning("left without telling the other managers", extra={"reason": str(error)})
        else:
            if answer.get("Warning"):
                log.warning("left untidily", extra={"reason": answer["Warning"]})

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Work that goes on when the client that asked for it goes away."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: "asyncio.Task[Any]") -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("a change of this node's membership failed", extra={"reason": str(error)})

    @property
    def state(self) -> NodeState:
        """For those who ask what this node is."""
        failure = self._error or self._manager.error
        silence = self.expired or self._agents.error
        locked, epitaph = self._store.locked, self._manager.epitaph
        return NodeState(self._membership, self._pending, locked, failure, silence, epitaph)

    @property
    def membership(self) -> Membership | None:
        """This node's membership, if it is in a cluster."""
        return self._membership

    @property
    def ping_state(self) -> str:
        """The Swarm header of /_ping."""
        return self.state.ping

    @property
    def manager_pid(self) -> int | None:
        """The manager process, if one runs."""
        return self._manager.pid

    @property
    def _events(self) -> NodeEvents:
        return self

    # --- parts --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Forget what an interrupted attempt left, and why an earlier membership ended."""
        self._error = ""
        self._store.forget()

    def _must_be_outside(self) -> None:
        if self._membership is not None:
            raise Unavailable(ALREADY)
