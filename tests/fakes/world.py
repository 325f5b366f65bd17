"""A cluster in one hand: orchestrators' decisions applied to a view, with agents that do as they are told.

No asyncio, no Raft: each step is a function call, so that stories and properties can look between any two.
"""

import random
from collections import Counter

from msgspec.structs import replace

from cluster.objects import Node, NodeDescription, NodeStatus, Service, StoreObject, Task, TaskStatus
from cluster.seams import SECOND
from cluster.spec import NodeSpec, ServiceSpec
from cluster.states import Availability, NodeState, TaskState
from manager.orchestrator import node_down, reaper
from manager.orchestrator.constraint_enforcer import unfit
from manager.orchestrator.job import executed
from manager.orchestrator.orchestrator import reconcile
from manager.orchestrator.plan import Desire, Plan
from manager.orchestrator.resource_enforcer import overcommitted
from manager.orchestrator.situation import Situation, TaskFactory
from manager.store import Transaction, View

START = 1_700_000_000 * SECOND


class World:
    """The cluster's state, its time (`now`, ns), and what the last decisions said (`notes`)."""

    def __init__(self, seed: int = 0) -> None:
        self.view = View.empty()
        self.now = START
        self.factory = TaskFactory(random.Random(seed))
        self.notes: dict[str, str] = {}
        self.steps: list[str] = []

    # --- writing --------------------------------------------------------------------------------------

    def put(self, obj: StoreObject) -> None:
        """Create or replace an object."""
        tx = Transaction(self.view)
        stored = tx.get(type(obj), obj.id)
        if stored is None:
            tx.create(obj)
        else:
            tx.update(replace(obj, version=stored.version))
        self._commit(tx)

    def remove(self, obj: StoreObject) -> None:
        """Delete an object."""
        tx = Transaction(self.view)
        tx.delete(type(obj), obj.id)
        self._commit(tx)

    def _commit(self, tx: Transaction) -> None:
        if tx.changes():
            self.view, _ = tx.commit(self.view.index + 1, self.now)

    # --- cluster --------------------------------------------------------------------------------------

    def node(self, name: str, **labels: str) -> Node:
        """A ready node."""
        node = Node(
            id=name,
            spec=NodeSpec(labels=labels),
            description=NodeDescription(hostname=name),
            status=NodeStatus(state=NodeState.READY),
        )
        self.put(node)
        return node

    def set_node(self, name: str, state: NodeState | None = None, to: Availability | None = None) -> None:
        """Change a node's state or availability."""
        node = self.view.get(Node, name)
        assert node is not None
        if state is not None:
            node = replace(node, status=NodeStatus(state=state))
        if to is not None:
            node = replace(node, spec=replace(node.spec, availability=to))
        self.put(node)

    def service(self, spec: ServiceSpec) -> Service:
        """Create the service of that name, or update it as the API does."""
        service = self.view.by_name(Service, spec.name)
        if service is None:
            service = executed(Service(id=spec.name, spec=spec), self.now)
        else:
            service = replace(
                service,
                previous_spec=service.spec,
                previous_spec_version=service.spec_version,
                spec=spec,
                update_status=None,
            )
            service = executed(service, self.now)
        self.put(service)
        stored = self.view.get(Service, service.id)
        assert stored is not None
        return stored

    def tasks(self, service: str = "") -> list[Task]:
        """All tasks, or a service's, oldest first."""
        return [task for task in self.view.all(Task) if service in ("", task.service_id)]

    def running(self, service: str = "") -> list[Task]:
        """Tasks that run and should."""
        return [
            task
            for task in self.tasks(service)
            if task.status.state == TaskState.RUNNING and not task.desired_state.stops
        ]

    # --- managers -------------------------------------------------------------------------------------

    def decide(self) -> Plan:
        """All controllers' decisions about the present state, not yet written."""
        plan = Plan()
        nodes = {node.id: node for node in self.view.all(Node)}
        for service in self.view.all(Service):
            tasks = tuple(self.view.tasks_of_service(service.id))
            situation = Situation(service, tasks, nodes, self.view.index, self.now, self.factory)
            plan.merge(reconcile(situation))
        for node in nodes.values():
            for task, reason in overcommitted(self.view, node):
                plan.do(Desire(task, TaskState.SHUTDOWN, reason))
        for service_id in {task.service_id: None for task in self.view.all(Task)}:
            plan.merge(reaper.reap(self.view, service_id))
        for node_id in {**nodes, **{task.node_id: None for task in self.view.all(Task) if task.node_id}}:
            plan.merge(node_down.orphans(self.view, node_id, self.now))
        return plan

    def tick(self) -> bool:
        """Decide once and write it; True when there was something to write."""
        plan = self.decide()
        self.notes = plan.notes
        self.steps += [str(change) for step in plan.steps for change in step]
        for write in plan.writes():
            tx = Transaction(self.view)
            write(tx)
            self._commit(tx)
        return bool(plan.steps)

    def settle(self) -> None:
        """Decide until there is nothing more to do at this instant."""
        for _ in range(1000):
            if not self.tick():
                return
        raise AssertionError(f"the controllers never settle: {self.steps[-5:]}")

    def schedule(self) -> None:
        """Put unassigned tasks on the fitting ready node with the fewest."""
        load = Counter(task.node_id for task in self.tasks() if not task.desired_state.stops)
        for task in self.tasks():
            if task.status.state >= TaskState.ASSIGNED or task.desired_state.stops:
                continue
            node_id = task.node_id
            if not node_id:
                fitting = [
                    node.id
                    for node in self.view.all(Node)
                    if node.status.state == NodeState.READY
                    and node.spec.availability == Availability.ACTIVE
                    and not unfit(task.spec, node)
                ]
                if not fitting:
                    continue
                node_id = min(fitting, key=lambda id: load[id])
                load[node_id] += 1
            self.report(replace(task, node_id=node_id), TaskState.ASSIGNED)

    # --- agents ---------------------------------------------------------------------------------------

    def report(self, task: Task, state: TaskState, error: str = "") -> None:
        """What an agent (or the scheduler) writes of a task."""
        status = TaskStatus(state=state, timestamp=self.now, error=error)
        running_at = self.now if state == TaskState.RUNNING and not task.running_at else task.running_at
        self.put(replace(task, status=status, running_at=running_at))

    def obey(self, task: Task) -> bool:
        """One task's agent brings it where it should be; False when it is there or its node is away."""
        node = self.view.get(Node, task.node_id) if task.node_id else None
        if task.status.state < TaskState.ASSIGNED or node is None or node.status.state != NodeState.READY:
            return False
        if task.desired_state.stops:
            wanted = TaskState.SHUTDOWN
        elif task.desired_state >= TaskState.RUNNING:
            wanted = TaskState.RUNNING
        else:
            wanted = TaskState.READY
        if task.status.state.terminal or task.status.state >= wanted:
            return False
        self.report(task, wanted)
        return True

    def work(self) -> None:
        """Controllers, scheduler and agents in turn until nothing changes at this instant."""
        for _ in range(1000):
            before = self.view.index
            self.settle()
            self.schedule()
            for task in self.tasks():
                self.obey(task)
            if self.view.index == before:
                return
        raise AssertionError("the cluster never settles")

    def advance(self, seconds: float) -> None:
        """Let time pass, working whenever the controllers want to wake."""
        end = self.now + int(seconds * SECOND)
        self.work()
        while (wake := self.decide().wake_at) is not None and wake <= end:
            self.now = max(wake, self.now + 1)
            self.work()
        self.now = end
        self.work()
