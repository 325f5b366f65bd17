"""Runs the agent of a node that is in a cluster: made at join, ended at leave, its session kept open."""

import asyncio
import logging
from collections.abc import Mapping

from msgspec.structs import replace

from cluster.dataplane import NetworkRecord
from cluster.objects import NodeDescription
from cluster.seams import MILLISECOND, Clock, Random
from netplane.plane import NetPlane
from shoal.daemon.membership import Membership, MembershipStore
from shoal.daemon.task_logs import TaskLogs
from worker.agent.agent import Agent, NodeEvents
from worker.agent.seek import SessionClosed
from worker.agent.session import Session
from worker.agent.state import AgentState
from worker.agent.task_executor import TaskExecutor
from worker.agent.transport import TLSConnector
from worker.engine import Engine

log = logging.getLogger("shoal.daemon.agent")

POLL = 20 * MILLISECOND


class AgentRunner:
    """At most one agent at a time. `failed` completes when one has died of an error."""

    def __init__(self, engine: Engine, store: MembershipStore, clock: Clock, rng: Random) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._rng = rng
        self._agent: Agent | None = None
        self._session: Session | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def error(self) -> str:
        """Why there is no session at present."""
        return self._session.error if self._session else ""

    @property
    def networks(self) -> Mapping[str, NetworkRecord]:
        """The cluster's networks that this node knows."""
        return self._agent.networks if self._agent else {}

    async def start(self, membership: Membership, events: NodeEvents) -> None:
        """Bring the node's network into the cluster, take up its tasks, and open a session."""
        engine, clock = self._engine, self._clock
        description = engine.machine.describe(engine.labels, engine.generic_resources)
        await self._network.join(
            membership.node_id,
            membership.data_path_address,
            membership.data_path_port,
            int(membership.listen_address.rpartition(":")[2]),
        )
        agent = Agent(
            executor=self._executor(description),
            network=self._network,
            logs=TaskLogs(engine.logs),
            state=AgentState(self._store.worker),
            events=events,
            describe=lambda: replace(description, encryption=self._network.encryption),
            address=membership.address,
            data_path_address=membership.data_path_address,
            clock=clock,
            trust_root=self._store.trust_root,
        )
        self._agent = agent
        await agent.start()
        connector = TLSConnector(self._store.client_context, lambda: membership.cluster_id)
        self._session = Session(connector, agent, membership.managers, clock, self._rng)
        self._tasks = [
            asyncio.create_task(agent.run(), name="agent"),
            asyncio.create_task(self._session.run(), name="session"),
            asyncio.create_task(self._tell_keys(agent), name="keys"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def _tell_keys(self, agent: Agent) -> None:
        """Tell the managers what becomes of the keys of encrypted networks."""
        while True:
            await self._network.encryption_changed.wait()
            self._network.encryption_changed.clear()
            try:
                await agent.redescribe()
            except SessionClosed as error:
                log.info("keys are told in the next session", extra={"reason": str(error)})

    async def connected(self, patience: int) -> None:
        """Return when the node has a session: then the managers know that it is ready. Or after so long (ns),
        as a leader may be wanting."""
        deadline = self._clock.monotonic() + patience
        while self._clock.monotonic() < deadline and self._session and not self._session.connected:
            await self._clock.sleep(POLL)

    def reconnect(self) -> None:
        """Open the session anew, with the renewed certificate."""
        if self._session is not None:
            self._session.reconnect()

    async def stop(self) -> None:
        """Let go of the tasks; containers run on."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []
        self._agent = self._session = None

    async def abandon(self) -> None:
        """The node leaves: end its tasks, and its part in the cluster's networks."""
        for session in self._tasks[1:]:
            session.cancel()
            await asyncio.wait((session,))
        if self._agent is not None:
            await self._agent.abandon()
        await self.stop()
        await self._network.leave()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not self.failed.done():
            log.error("the agent failed", exc_info=error)
            self.failed.set_exception(error)

    @property
    def _network(self) -> NetPlane:
        return self._engine.network

    def _executor(self, description: NodeDescription) -> TaskExecutor:
        engine = self._engine
        return TaskExecutor(
            images=engine.images,
            runtime=engine.runtime,
            network=engine.network,
            volumes=engine.volumes,
            networks=lambda: self.networks,
            secrets=lambda: self._agent.secrets if self._agent else {},
            configs=lambda: self._agent.configs if self._agent else {},
            describe=lambda: description,
            clock=self._clock,
        )
