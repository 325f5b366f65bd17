"""A simulated cluster from a seed: nodes, network, clients, and the checks that watch them."""

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from cluster.objects import Cluster, Node
from cluster.seams import MILLISECOND, SECOND
from cluster.spec import ClusterSpec
from cluster.states import NodeState, Role
from manager.ca import authority, rotation
from manager.dispatcher import registration
from manager.raft.errors import RaftCorrupt
from manager.raft.timing import RaftLimits, RaftTiming
from manager.rpc import peers
from tests.simulator import http
from tests.simulator.checks import Checks
from tests.simulator.loop import Process, VirtualLoop, close_tasks
from tests.simulator.network import NOBODY, SimNetwork
from tests.simulator.node import SimNode
from tests.simulator.root_ca import Roots
from tests.simulator.story import Story, StoryHandler

TIMING = RaftTiming(1800 * MILLISECOND, 3600 * MILLISECOND, 550 * MILLISECOND, 3600 * MILLISECOND)
"""As wan(), with fewer heartbeats: they are most of what an idle cluster does."""
DISTURBED = 30 * SECOND
"""So long after a fault a node may run what the managers have replaced elsewhere."""


class Violation(AssertionError):
    """A promise was broken."""


class World:
    """Everything of one run."""

    def __init__(self, seed: int, *, managers: int = 3, workers: int = 0, verbose: bool = False) -> None:
        self.seed = seed
        self.loop = VirtualLoop()
        self.story = Story(self.loop, verbose)
        self.rng = Random(f"{seed} world")
        self.network = SimNetwork(self.loop, Random(f"{seed} network"))
        self.network.record = lambda end, data: self.story.traffic(data)
        self.timing = TIMING
        self.limits = RaftLimits(compact_entries=150, keep_entries=30)
        self.cluster_id = ""
        self.processes: list[Process] = []
        self.checks = Checks(self)
        self.nodes = [SimNode(self, number) for number in range(1, managers + workers + 1)]
        self._first_managers = managers
        self.healing = False
        self.last_fault = 0
        self.pace = 0.25
        """Operations a second and client."""
        self.services: list[str] = []
        self.secrets: dict[str, str] = {}
        self.most_services = 3
        self.images = ("steady",) * 12 + ("slow", "slow", "stubborn", "crashing", "broken", "ending")

    # --- time and parts -----------------------------------------------------------------------------------

    def later(self, delay: int, callback: Callable[..., object], *args: object) -> None:
        """Call outside any process, in so many ns."""
        self.loop.at(self.loop.now + delay, callback, *args, context=NOBODY)

    def process(self, name: str) -> Process:
        """A process that is no node's: a client, an operator."""
        process = Process(self.loop, name)
        self.processes.append(process)
        return process

    def node_of(self, node_id: str) -> SimNode | None:
        """The host that has this id now."""
        return next((node for node in self.nodes if node.node_id == node_id), None)

    def cores(self) -> list[SimNode]:
        """Nodes whose manager process runs and has started."""
        return [node for node in self.nodes if node.core is not None]

    def leader(self) -> SimNode | None:
        """The node that leads, by the newest term that a manager believes to lead in."""
        leading = [node for node in self.cores() if node.core is not None and node.core.leading()]
        return max(leading, key=lambda node: node.core.raft.term, default=None)  # type: ignore[union-attr]

    def joined(self, node: SimNode) -> None:
        """A node has a new id."""
        self.story.note(node.name, f"joined as {node.role} {node.node_id}")

    def left(self, node: SimNode) -> None:
        """A node is in no cluster any more."""

    def fault(self, what: str) -> None:
        """A fault begins or ends."""
        self.story.note("FAULT", what)
        self.last_fault = self.loop.now

    def disturbed(self, node: SimNode) -> bool:
        """Whether a fault may have kept the managers and this node from each other lately."""
        return self.calm_for() < DISTURBED

    def disturbed_name(self, name: str) -> bool:
        """As `disturbed`, by the host's name."""
        return any(node.name == name and self.disturbed(node) for node in self.nodes)

    def calm_for(self) -> int:
        """ns since the last fault began or ended."""
        return self.loop.now - self.last_fault

    def may_lose(self, node: SimNode) -> bool:
        """Whether the cluster survives that this manager loses its disk: still only a minority has."""
        leader = self.leader()
        if leader is None or leader.core is None or self.healing:
            return False
        members = leader.core.members()
        lost = {node.node_id}
        for other in self.nodes:
            if other.node_id in members and (other.disk.damaged or other.refused):
                lost.add(other.node_id)
        return node.node_id in members and len(lost) * 2 < len(members)

    def manager_ended(self, node: SimNode, error: Exception) -> None:
        """A manager can't run. One whose files are damaged needs an operator; others try again."""
        self.story.note(node.name, f"manager refuses to run: {error}")
        if isinstance(error, RaftCorrupt):
            if not node.disk.damaged:
                self.checks.violated(f"{node.name} refuses files that nothing has damaged: {error}")
            node.refused = str(error)

    def excused(self, node: SimNode) -> bool:
        """Whether a fault explains that a manager fails."""
        return node.disk.failed or node.disk.damaged

    # --- beginning ----------------------------------------------------------------------------------------

    async def form(self) -> None:
        """Found the cluster on the first node, and let the others join."""
        first = self.nodes[0]
        founder = Random(f"{self.seed} founding")
        cluster = authority.found_cluster(ClusterSpec(), clock=first.clock, rng=founder)
        self.cluster: Cluster = cluster
        self.cluster_id = cluster.id
        from cluster.ids import new_id

        first.node_id, first.role = new_id(founder), "manager"
        self.story.note(first.name, f"founds the cluster as {first.node_id}")
        first.start_manager(cluster)
        await self.until(lambda: self.leader() is first and _has(first, Node), 20)
        from cluster.messages import ManagerAddress

        first.managers = (ManagerAddress(first.node_id, first.address),)
        first.start_agent()
        for number, node in enumerate(self.nodes[1:], 2):
            await self._join(node, Role.MANAGER if number <= self._first_managers else Role.WORKER)
        await self.until(self.all_ready, 60)

    def token(self, role: Role) -> str:
        """The newest join token that any manager knows."""
        cores = [node.core for node in self.nodes if node.core is not None]
        known = [found for core in cores if (found := core.store.view().cluster()) is not None]
        tokens = max(known, key=lambda found: found.version, default=self.cluster).root_ca.join_tokens
        return tokens.manager if role is Role.MANAGER else tokens.worker

    async def _join(self, node: SimNode, role: Role) -> None:
        token = self.token(role)
        process = self.process(f"{node.name}.join")
        managers = [other.address for other in self.nodes if other.manages]
        for _ in range(20):
            try:
                await process.start(node.join(process, token, managers), "try to join")
                break
            except ConnectionError:
                await asyncio.sleep(1)
        else:
            raise Violation(f"{node.name} could not join")
        if role is Role.MANAGER:
            await self.until(lambda: node.core is not None and node.node_id in node.core.members(), 60)

    def all_ready(self) -> bool:
        """Whether every node that takes part is ready, and every manager a member."""
        leader = self.leader()
        if leader is None or leader.core is None:
            return False
        view = leader.core.store.view()
        for node in self.nodes:
            if node.gone or not node.node_id:
                continue
            stored = view.get(Node, node.node_id)
            if stored is None or stored.status.state is not NodeState.READY:
                return False
            if node.manages and (node.core is None or node.node_id not in leader.core.members()):
                return False
        return True

    async def until(self, condition: Callable[[], bool], seconds: float, what: str = "") -> None:
        """Wait for something; a violation when it does not come in time."""
        end = self.loop.now + int(seconds * SECOND)
        while not condition():
            if self.loop.now >= end:
                raise Violation(f"not within {seconds} s: {what or condition}")
            await asyncio.sleep(0.1)

    # --- running ------------------------------------------------------------------------------------------

    def run(self, main: Coroutine[Any, Any, Any]) -> None:
        """Run a scenario to its end. Raises Violation."""
        with simulated(self.story):
            try:
                self.loop.run(main)
            finally:
                self.loop.bury()
                for process in self.processes:
                    process.alive = False
                    close_tasks(self.loop, process.tasks())
                close_tasks(self.loop, self.loop.free_tasks)


def _has(node: SimNode, cls: Any) -> bool:
    return node.core is not None and node.core.store.view().count(cls) > 0


@contextmanager
def simulated(story: Story) -> Iterator[None]:
    """What the real code does in ways that would differ from run to run, replaced: keys and certificates."""
    roots = Roots()
    replaced: list[tuple[Any, str, Any]] = [
        (authority, "create_root_ca", roots.create),
        (authority, "issue_certificate", roots.sign),
        (rotation, "create_root_ca", roots.create),
        (rotation, "cross_sign", roots.cross_sign),
        (registration, "issuer_among", roots.issuer_among),
        (peers, "peer_of_der", http.peer_of_der),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    logger = logging.getLogger("shoal")
    level, propagate = logger.level, logger.propagate
    handler = StoryHandler(story)
    logger.propagate = False
    if story.verbose:
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    else:
        logger.setLevel(logging.CRITICAL + 1)
    collects = gc.isenabled()
    gc.disable()  # what a collector ends, and when, must not depend on what ran before
    for module, name, value in replaced:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        if collects:
            gc.enable()
