"""One node of the simulated cluster: its disk, machine and clock, and the two processes of Shoal on it."""

import asyncio
import traceback
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import msgspec

from cluster.errors import ShoalError
from cluster.joining import JoinAnswer, JoinRequest, RenewAnswer, RenewRequest
from cluster.messages import ManagerAddress
from cluster.objects import Cluster, EngineDescription, NodeDescription
from cluster.seams import SECOND
from cluster.spec import Platform, Resources
from manager.keys.locks import UNLOCKED, lock_in
from manager.locking import NoKeeper
from tests.simulator.clock import NodeClock
from tests.simulator.disk import Disk
from tests.simulator.http import Caller, Request
from tests.simulator.loop import Process
from tests.simulator.machine import Machine, SimExecutor, SimPlane
from tests.simulator.manager import RAFT, SimCore, manage
from tests.simulator.network import Certificate
from tests.simulator.raft_network import AgentConnector
from tests.simulator.root_ca import ROOTS, Held, held
from worker.agent.agent import Agent
from worker.agent.records import DataplaneRecords
from worker.agent.session import Session
from worker.agent.state import AgentState

if TYPE_CHECKING:
    from tests.simulator.world import World

PORT = 2377
WORKER = Path("/shoal/worker")
CSR = "simulated"


class SimNode:
    """A host. What a real node keeps in its membership files is kept in `node_id`, `role` and `managers`."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        self.name = f"h{number}"
        self.host = f"192.0.2.{number}"
        self.address = f"{self.host}:{PORT}"
        self.rng = Random(f"{world.seed} {self.name}")
        skew = self.rng.randrange(4 * SECOND) - 2 * SECOND
        self.clock = NodeClock(world.loop, skew)
        self.disk = Disk(Random(f"{world.seed} {self.name} disk"))
        self.machine = Machine(world, self.name, world.loop, Random(f"{world.seed} {self.name} machine"))
        self.node_id = ""
        self.role = ""
        self.managers: tuple[ManagerAddress, ...] = ()
        self.powered = True
        self.manages = False
        self.refused = ""
        """Why its manager does not start: an operator is needed."""
        self.manager: Process | None = None
        self.agent: Process | None = None
        self.core: SimCore | None = None
        self.the_agent: Agent | None = None
        self.session: Session | None = None
        self.boots = 0
        self.token = ""
        self.held = Held()
        self.root_ca = ROOTS[0].decode()
        self.gone = False
        self.keys = NoKeeper()
        """What shoald, or after a loss of power a person, knows of the unlock keys."""

    def __repr__(self) -> str:
        return f"{self.name}({self.node_id[:6]})"

    def certificate(self) -> Certificate:
        """Who it is."""
        return Certificate(self.node_id, self.role, self.world.cluster_id, self.held)

    def _process(self, kind: str) -> Process:
        self.boots += 1
        process = Process(self.world.loop, f"{self.name}.{kind}")
        process.random = Random(f"{self.world.seed} {self.name} {kind} {self.boots}")  # type: ignore[attr-defined]
        self.world.processes.append(process)
        return process

    # --- the manager process ------------------------------------------------------------------------------

    def start_manager(self, founding: Cluster | None = None) -> None:
        """Start the manager process, as shoald does."""
        process = self.manager = self._process("manager")
        self.disk.failed = self.disk.full or self.disk.sync_fails > 0
        self.manages = True
        self.world.story.note(self.name, "manager starts")
        process.start(manage(self, process, founding))

    def end_manager(self, why: str, *, silently: bool = False) -> None:
        """The manager process is gone; shoald starts it again in a while."""
        process = self.manager
        if process is None or not process.alive:
            return
        self.world.story.note(self.name, f"manager gone: {why}")
        process.kill()
        self.core = None
        self.world.network.died(process, silently=silently)
        self.world.checks.manager_gone(self)
        if not silently and self.manages and not self.refused:
            again = SECOND // 2 + self.rng.randrange(SECOND)
            self.world.later(again, self._restart_manager, process)

    def _restart_manager(self, before: Process) -> None:
        if self.powered and self.manages and self.manager is before and not self.refused:
            self.start_manager()

    # --- shoald -------------------------------------------------------------------------------------------

    def start_agent(self) -> None:
        """Start shoald with its agent."""
        process = self.agent = self._process("shoald")
        process.start(self._run_agent(process))

    async def _run_agent(self, process: Process) -> None:
        executor = SimExecutor(self.machine, process)
        agent = Agent(
            executor=executor,
            network=SimPlane(self.machine, process),
            logs=None,  # type: ignore[arg-type] - nobody asks for logs here
            state=AgentState(WORKER, self.disk.of(process)),
            events=self,
            describe=self._describe,
            address=self.host,
            data_path_address=self.host,
            clock=self.clock,
            trust_root=lambda: self.root_ca,
        )
        executor.secrets = agent.secrets  # type: ignore[assignment]
        self.the_agent = agent
        self._wishes: asyncio.Queue[str] = asyncio.Queue()
        try:
            await agent.start()
        except OSError as error:
            self.world.story.note(self.name, f"agent can't start: {error}")
            self.end_agent("can't start")
            return
        connector = AgentConnector(self.world.network, process, self.host, self.certificate)
        connector.told = lambda message: self.world.checks.assigned(self.node_id, message)
        random: Random = process.random  # type: ignore[attr-defined]
        self.session = Session(connector, agent, self.managers, self.clock, random)
        if self.manages and (self.manager is None or not self.manager.alive) and not self.refused:
            self.start_manager()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(agent.run())
                group.create_task(self.session.run())
                group.create_task(self._renew_when_wished(process))
        except BaseExceptionGroup as failures:
            process.check()
            text = "".join(traceback.format_exception(failures))
            self.world.checks.violated(f"{self.name}: the agent died of {text}")

    def _describe(self) -> NodeDescription:
        return NodeDescription(
            hostname=self.name,
            platform=Platform(architecture="amd64", os="linux"),
            resources=Resources(nano_cpus=8 * 10**9, memory_bytes=16 << 30),
            engine=EngineDescription(version="0", plugins=(("Network", "overlay"),)),
        )

    def end_agent(self, why: str, *, silently: bool = False) -> None:
        """shoald is gone, and soon started again; its manager process goes on."""
        process = self.agent
        if process is None or not process.alive:
            return
        self.world.story.note(self.name, f"shoald gone: {why}")
        process.kill()
        self.the_agent = self.session = None
        self.world.network.died(process, silently=silently)
        if not silently and not self.gone:
            again = SECOND // 2 + self.rng.randrange(2 * SECOND)
            self.world.later(again, self._restart_agent, process)

    def _restart_agent(self, before: Process) -> None:
        if self.powered and self.agent is before and not self.gone:
            self.start_agent()

    # --- worker.agent.agent.NodeEvents: what the daemon does ----------------------------------------------

    def managers_changed(self, managers: Sequence[ManagerAddress]) -> None:
        self.managers = tuple(managers)

    def role_changed(self, role: str) -> None:
        self._wishes.put_nowait(role)

    def removed_from_cluster(self, message: str) -> None:
        self.world.story.note(self.name, f"removed from the cluster: {message}")

    def removed(self, message: str) -> None:
        self.world.story.note(self.name, f"removed: {message}")
        self._wishes.put_nowait("removed")

    def wish_to_leave(self) -> None:
        """`docker swarm leave --force` on the node."""
        self._wishes.put_nowait("removed")

    async def _renew_when_wished(self, process: Process) -> None:
        """Renew the certificate when the managers wish it, and become what it says."""
        while True:
            wish = await self._wishes.get()
            if wish == "removed":
                self.gone = True
                process.start(self._leave(process), "leave")
                return
            try:
                await self._renew(process)
            except (ShoalError, OSError, TimeoutError) as error:
                self.world.story.debug(self.name, f"renewing failed: {error}")
                await self.clock.sleep(SECOND)
                self._wishes.put_nowait(wish)

    async def _renew(self, process: Process) -> None:
        reasons = []
        for manager in self.managers:
            caller = Caller(self.world.network, process, self.host, self.certificate())
            content = msgspec.json.encode(RenewRequest(csr=CSR))
            try:
                answer = await caller.ask(manager.address, Request("POST", "/renew", {}, content), 15)
            except (OSError, TimeoutError) as error:
                reasons.append(str(error))
                continue
            if answer.status >= 400:
                reasons.append(answer.message)
                continue
            self._become(msgspec.json.decode(answer.body, type=RenewAnswer))
            return
        raise ConnectionError("no manager renewed: " + "; ".join(reasons))

    def _become(self, answer: RenewAnswer) -> None:
        role = self.role = answer.role.value
        self._take(answer)
        if role == "manager" and not self.manages:
            self.world.story.note(self.name, "promoted")
            self.keys.locks = (UNLOCKED, lock_in(answer))
            self.start_manager()
        elif role == "worker" and self.manages:
            self.world.story.note(self.name, "demoted")
            self.manages = False
            self.end_manager("demoted")
            self.disk.wipe(RAFT)
            self.refused, self.disk.damaged = "", False
        elif self.manager is not None and self.manager.alive and hasattr(self.manager, "renewed"):
            self.manager.renewed(self.certificate())
        if self.session is not None:
            self.session.reconnect()

    def _take(self, answer: RenewAnswer | JoinAnswer) -> None:
        """Keep what the answer says of certificates."""
        self.held, self.root_ca = held(answer.certificate, answer.root_ca), answer.root_ca

    async def _leave(self, process: Process) -> None:
        agent = self.the_agent
        assert agent is not None
        self.manages = False
        self.end_manager("removed")
        self.disk.wipe(RAFT)
        self.disk.damaged = False
        await agent.abandon()
        self.machine.records = DataplaneRecords()  # as NetPlane.leave does
        self.world.story.note(self.name, "left")
        self.world.left(self)
        self.end_agent("left")

    # --- joining ------------------------------------------------------------------------------------------

    async def join(self, process: Process, token: str, managers: Sequence[str]) -> None:
        """Join the cluster with a token, as `docker swarm join`. Raises OSError when nobody admits it."""
        stranger = Caller(self.world.network, process, self.host, Certificate("", "worker", ""))
        content = msgspec.json.encode(JoinRequest(token=token, csr=CSR, address=self.host))
        for manager in managers:
            try:
                answer = await stranger.ask(manager, Request("POST", "/join", {}, content), 15)
            except (OSError, TimeoutError):
                continue
            if answer.status >= 400:
                self.world.story.note(self.name, f"not admitted: {answer.message}")
                continue
            joined = msgspec.json.decode(answer.body, type=JoinAnswer)
            self.node_id, self.role, self.managers = joined.node_id, joined.role.value, joined.managers
            self._take(joined)
            self.keys.locks = (lock_in(joined),)
            self.gone, self.refused, self.disk.damaged = False, "", False
            self.world.joined(self)
            if self.role == "manager":
                self.start_manager()
            self.start_agent()
            return
        raise ConnectionError("no manager admitted this node")

    # --- the host -----------------------------------------------------------------------------------------

    def lose_power(self) -> None:
        """Everything stops; the disk keeps what it had synced, and some of the rest."""
        if not self.powered:
            return
        self.powered = False
        self.world.story.note(self.name, "loses power")
        self.end_manager("power", silently=True)
        self.end_agent("power", silently=True)
        self.machine.lose_power()
        self.disk.cut_power()
        self.world.network.dead_hosts.add(self.host)

    def boot(self) -> None:
        """Power is back."""
        if self.powered:
            return
        self.powered = True
        self.world.story.note(self.name, "boots")
        self.world.network.dead_hosts.discard(self.host)
        if self.node_id and not self.gone:
            self.start_agent()

    @property
    def in_session(self) -> bool:
        """Whether a leader has its session."""
        return any(
            node.core is not None and self.node_id in node.core._dispatcher.connected
            for node in self.world.nodes
        )
