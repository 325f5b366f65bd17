"""The cluster as it would go on from a view, if every task starts that is told to and every image is there.

The state is a value, so that going on from a copy costs nothing and touches nothing. What orchestrators,
allocator and scheduler decide comes from their own functions; this stands in for the agents and for time.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence

from msgspec.structs import replace

from cluster.objects import Network, Node, Service, Task, TaskStatus
from cluster.seams import Random
from cluster.spec import UpdateConfig
from cluster.states import NodeState, TaskState
from manager.allocator.claims import Allocations
from manager.allocator.plan import Key, to_allocate
from manager.allocator.plan import Plan as AllocatorPlan
from manager.orchestrator.orchestrator import reconcile
from manager.orchestrator.reaper import reap
from manager.orchestrator.replicated import replicas
from manager.orchestrator.situation import Situation, TaskFactory
from manager.scheduler import Decision, NodeTable, confirm, decide
from manager.store import Event, Transaction, View

Write = Callable[[Transaction], None]
MOST_BATCHES = 40
"""An update is simulated in at most so many batches, so that big services take no longer than small ones."""
MOST_ROUNDS = 4000


class Simulation:
    """A state that goes its own way. `view` is how it is, `now` its time in ns."""

    def __init__(self, view: View, now: int, rng: Random) -> None:
        self.view = view
        self.now = now
        self.settled = False
        self.reasons: dict[str, str] = {}
        """Why the tasks that have no node have none, by task id."""
        self._factory = TaskFactory(rng).of(view.cluster())
        self._wakes: list[int] = []
        self._table = NodeTable(view.all(Node), view.all(Task), view.all(Network))
        self._allocations = Allocations.of(view)
        self._waiting = {task.id: task for task in view.all(Task) if _to_place(task)}

    def size(self, services: Collection[str]) -> int:
        """How many tasks these services want at once."""
        nodes = self.view.count(Node)
        found = [service for id in services if (service := self.view.get(Service, id)) is not None]
        return sum(_size(service, nodes) for service in found)

    def write(self, writes: Iterable[Write]) -> bool:
        """Make these changes; False when they change nothing."""
        tx = Transaction(self.view)
        for write in writes:
            write(tx)
        if not tx.changes():
            return False
        self.view, events = tx.commit(self.view.index + 1, self.now)
        for event in events:
            self._note(event)
        return True

    def _note(self, event: Event) -> None:
        """Keep up what is read off the state as a whole, which would take long to do anew for each step."""
        obj, gone = event.object, event.new is None
        self._allocations.drop(obj) if gone else self._allocations.put(obj)
        if isinstance(obj, Network):
            self._table.drop_network(obj.id) if gone else self._table.put_network(obj)
        elif isinstance(obj, Task):
            self._waiting.pop(obj.id, None)
            if gone:
                self._table.drop_task(obj.id)
                return
            self._table.put_task(obj)
            if _to_place(obj):
                self._waiting[obj.id] = obj

    async def run(self, services: Collection[str], in_time: Callable[[], bool] = lambda: True) -> None:
        """Go on until nothing more happens to these services, or it is not `in_time` any more. Other services
        only take what becomes free."""
        for _ in range(MOST_ROUNDS):
            if not self._round(services):
                if not self._wakes:
                    self.settled = True
                    return
                self.now = max(self.now + 1, min(self._wakes))
            if not in_time():
                return
            await asyncio.sleep(0)  # the manager has other things to do

    def _round(self, services: Collection[str]) -> bool:
        self._wakes = []
        decided = [self.write(self._orchestrate(id)) for id in sorted(services)]
        allocated = self.write(self._allocate(services))
        placed = self.write(self._schedule())
        acted = self.write(self._agents(services))
        return any(decided) or allocated or placed or acted

    # --- the managers' part -------------------------------------------------------------------------------

    def _orchestrate(self, id: str) -> Sequence[Write]:
        service = self.view.get(Service, id)
        if service is None:
            return reap(self.view, id).writes()
        situation = Situation(
            service=_in_few_batches(service),
            tasks=tuple(self.view.tasks_of_service(id)),
            nodes={node.id: node for node in self.view.all(Node)},
            version=self.view.index,
            now=self.now,
            factory=self._factory,
        )
        plan = reconcile(situation)
        self._wakes += [at for at, _ in plan.waits]
        return plan.writes()

    def _allocate(self, services: Collection[str]) -> Sequence[Write]:
        tasks = [task.id for id in services for task in self.view.tasks_of_service(id) if to_allocate(task)]
        if not tasks:
            return ()
        blocked: dict[Key, str] = {}
        plan = AllocatorPlan(self.view, self._allocations, blocked, self.now)
        plan.allocate_networks([network.id for network in self.view.all(Network)])
        plan.allocate_services([id for id in services if self.view.get(Service, id) is not None])
        plan.allocate_tasks(tasks)
        self.reasons.update({id: reason for (kind, id), reason in blocked.items() if kind is Task})
        return [] if blocked and not _allocates(self.view, plan, blocked) else plan.writes

    def _schedule(self) -> Sequence[Write]:
        groups: dict[tuple[str, int], list[Task]] = {}
        writes: list[Write] = []
        for task in self._waiting.values():
            if task.node_id:
                writes += self._placed(confirm(self._table, task))
            else:
                groups.setdefault((task.service_id, task.spec_version), []).append(task)
        for group in groups.values():
            writes += self._placed(decide(self._table, group, self.now))
        return writes

    def _placed(self, decision: Decision) -> list[Write]:
        """The assignments of a decision, which the table knows of at once, as the scheduler's does."""
        self.reasons.update({task.id: decision.explanation for task in decision.unplaced})
        writes: list[Write] = []
        for placement in decision.placements:
            self.reasons.pop(placement.task.id, None)
            assigned = replace(
                placement.task,
                node_id=placement.node_id,
                generic_resources=placement.generic_resources,
                status=TaskStatus(state=TaskState.ASSIGNED, timestamp=self.now),
            )
            self._table.put_task(assigned)
            writes.append(_update(assigned))
        return writes

    # --- the agents' part ---------------------------------------------------------------------------------

    def _agents(self, services: Collection[str]) -> list[Write]:
        """Tasks on nodes that answer do at once what is desired of them."""
        up = {node.id for node in self.view.all(Node) if node.status.state == NodeState.READY}
        tasks = [task for id in services for task in self.view.tasks_of_service(id) if task.node_id in up]
        return [_update(moved) for task in tasks if (moved := self._obeyed(task)) is not task]

    def _obeyed(self, task: Task) -> Task:
        state, desired = task.status.state, task.desired_state
        if state.terminal or state < TaskState.ASSIGNED:
            return task
        reached = TaskState.SHUTDOWN if desired.stops else desired
        if reached <= state:
            return task
        running = self.now if reached is TaskState.RUNNING else task.running_at
        status = TaskStatus(state=reached, timestamp=self.now)
        return replace(task, status=status, running_at=running)


def _update(task: Task) -> Write:
    return lambda tx: tx.update(task)


def _size(service: Service, nodes: int) -> int:
    mode = service.spec.mode
    if (job := mode.replicated_job) is not None:
        return job.max_concurrent or job.total_completions or 1
    return nodes if mode.global_ is not None or mode.global_job is not None else replicas(service)


def _to_place(task: Task) -> bool:
    return task.status.state is TaskState.PENDING and not task.desired_state.stops


def _allocates(view: View, plan: AllocatorPlan, blocked: Collection[Key]) -> bool:
    """Whether the plan does more than tell tasks why they wait."""
    return len(plan.writes) > sum(1 for kind, _ in blocked if kind is Task)


def _in_few_batches(service: Service) -> Service:
    """The service with an update that takes at most MOST_BATCHES batches."""
    config = service.spec.update_config or UpdateConfig(parallelism=1)
    least = -(-replicas(service) // MOST_BATCHES)
    if not 0 < config.parallelism < least:
        return service
    return replace(service, spec=replace(service.spec, update_config=replace(config, parallelism=least)))
