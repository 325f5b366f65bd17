"""The promises, checked at every step: each commit, each container that starts or stops, each answer."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cluster.objects import Node, Service, StoreObject, Task
from cluster.seams import SECOND
from cluster.states import TaskState
from manager.allocator.claims import ADDRESS, Claim, claims
from manager.orchestrator.replicated import is_replicated, replicas
from manager.orchestrator.replicated_job import is_replicated_job, max_concurrent
from manager.store import Store, View, WatchLagged
from manager.store.entry import decode
from manager.store.tables import KINDS
from tests.simulator.loop import Process

if TYPE_CHECKING:
    from cluster.messages import Assignments
    from tests.simulator.http import Response
    from tests.simulator.machine import Container
    from tests.simulator.node import SimNode
    from tests.simulator.world import World

COMPARE_EVERY = 64
CALM = 20 * SECOND
"""Without faults for so long, nothing but Shoal itself decides how many containers run."""
WITHDRAWN_WITHIN = 2 * SECOND
"""manager.dispatcher.rounds.BOUND: after it a task is stopped, or counts as running, all the same."""


class Witness:
    """Raft's state machine: the store, watched."""

    def __init__(self, checks: "Checks", node: "SimNode", process: Process, store: Store) -> None:
        self._checks, self._node, self._process, self._store = checks, node, process, store

    def apply(self, index: int, entry: bytes) -> object:
        before = self._store.view()
        outcome = self._store.apply(index, entry)
        self._checks.applied(self._node, index, entry, before, self._store.view())
        return outcome

    def snapshot(self) -> Iterator[bytes]:
        return self._store.snapshot()

    def restoring(self, index: int, chunks: Iterator[bytes]) -> Iterator[None]:
        yield from self._store.restoring(index, chunks)
        self._checks.restored(self._node, index, self._store.view())


class Checks:
    """What is known for certain, and what must hold of it."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.entries: dict[int, bytes] = {}
        self.views: dict[int, View] = {}
        self.last_index = 0
        self.acknowledged = 0
        """The highest index that anyone was told to be done."""
        self.committed_ops: dict[str, int] = {}
        self.leaders: dict[int, str] = {}
        self._used: dict[tuple[str, str, int], int] = {}
        self._holders: dict[Claim, str] = {}
        self._refused_ops: set[str] = set()
        self._needs: dict[str, set[str]] = {}
        self._unwanted_since: dict[str, int] = {}
        self._scaled: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        self._drained = 0
        self.violations: list[str] = []

    def violated(self, text: str) -> None:
        """A promise is broken: the run ends."""
        from tests.simulator.world import Violation

        self.world.story.note("VIOLATION", text)
        self.violations.append(text)
        # The code that is being checked may well catch what is raised here: the loop ends the run.
        self.world.loop.failures.append(text)
        raise Violation(text)

    # --- the log ------------------------------------------------------------------------------------------

    def witness(self, node: "SimNode", process: Process, store: Store) -> Witness:
        """The state machine for a manager process."""
        return Witness(self, node, process, store)

    def applied(self, node: "SimNode", index: int, entry: bytes, before: View, after: View) -> None:
        """A manager applied an entry."""
        known = self.entries.get(index)
        if known is None:
            if index <= self.last_index:
                self.violated(f"{node.name} applied an entry at {index}, where the others applied none")
            self.entries[index] = entry
            self.views[index] = after
            self.last_index = index
            self._committed(index, entry, before, after)
        elif known != entry:
            self.violated(f"{node.name} applied another entry at {index} than the others")
        elif index % COMPARE_EVERY == 0:
            self._compare(node, index, after)

    def restored(self, node: "SimNode", index: int, view: View) -> None:
        """A manager's state is a snapshot's."""
        self._compare(node, index, view)

    def _compare(self, node: "SimNode", index: int, view: View) -> None:
        at = max((i for i in self.views if i <= index), default=0)
        if not at:
            return
        if not same(self.views[at], view):
            self.violated(f"{node.name} has another state at {index} than the others")

    def _committed(self, index: int, entry: bytes, before: View, after: View) -> None:
        for change in decode(entry).changes:
            cls = KINDS[change.kind]
            old, new = before.get(cls, change.id), after.get(cls, change.id)
            if old is new:
                continue  # refused
            if old is not None:
                version = (change.kind, change.id, change.base)
                if version in self._used or change.base != old.version:
                    self.violated(f"two updates won for version {change.base} of {change.kind} {change.id}")
                self._used[version] = index
            self._check_claims(old, new)
            if isinstance(old, Service) and isinstance(new, Service) and old.spec.mode != new.spec.mode:
                self._scaled[new.id] = self.world.loop.now
            if isinstance(new, Service) and old is None:
                self._scaled[new.id] = self.world.loop.now
            if isinstance(old, Node) and (
                not isinstance(new, Node) or old.spec != new.spec or old.status != new.status
            ):
                self._drained = self.world.loop.now
            if isinstance(new, Task):
                self._note_needs(new)
                if old is None and new.job_iteration is not None:
                    self._check_done_once(new, before)
                if isinstance(old, Task):
                    self._check_states(old, new)
                if new.desired_state.stops:
                    self._unwanted_since.setdefault(new.id, self.world.loop.now)
            labels = getattr(getattr(new, "spec", None), "labels", None)
            if labels and "op" in labels and new is not None:
                before_labels = getattr(getattr(old, "spec", None), "labels", None) or {}
                if before_labels.get("op") != labels["op"] and labels["op"] not in self.committed_ops:
                    self.committed_ops[labels["op"]] = index
                    if labels["op"] in self._refused_ops:
                        self.violated(f"{labels['op']}, which was refused, is committed at {index}")

    def _check_done_once(self, task: Task, before: View) -> None:
        """What completed in an execution of a job is not done again."""
        for other in before.tasks_of_service(task.service_id):
            same_place = other.slot == task.slot and (task.slot > 0 or other.node_id == task.node_id)
            done = other.status.state is TaskState.COMPLETE and other.job_iteration == task.job_iteration
            if same_place and done:
                self.violated(f"{task.name} was made, and {other.name} had completed")

    def _check_states(self, old: Task, new: Task) -> None:
        if new.status.state < old.status.state:
            self.violated(f"task {new.id} went back from {old.status.state.word} to {new.status.state.word}")
        if new.desired_state < old.desired_state:
            self.violated(f"task {new.id} is wanted {new.desired_state.word} after {old.desired_state.word}")
        if old.status.state < TaskState.RUNNING and new.status.state == TaskState.RUNNING:
            self._check_admitted(new)

    def _check_admitted(self, task: Task) -> None:
        """A task counts as running once every node that has containers in its network sends it connections;
        looked at when all is calm."""
        node = self.world.node_of(task.node_id)
        container = node.machine.containers.get(task.id) if node is not None else None
        if container is None or task.desired_state.stops or self.world.calm_for() < CALM:
            return
        if self.world.loop.now - container.started_at >= WITHDRAWN_WITHIN:
            return
        for other in self.world.nodes:
            if other.machine.plane_slow or other.gone:
                continue
            for network in task.networks:
                records = other.machine.records
                endpoint = records.endpoints.get((network.network_id, task.id))
                known = records.networks.get(network.network_id)
                # One whose last container there has ended is about to forget the network.
                inside = any(
                    each.running and network.network_id in {one.network_id for one in each.task.networks}
                    for each in other.machine.containers.values()
                )
                avoided = endpoint is None or not endpoint.serving
                if avoided and known is not None and (inside or known.ingress):
                    self.violated(f"{task.name} counts as running, and {other.name} sends it no connections")

    def _check_claims(self, old: StoreObject | None, new: StoreObject | None) -> None:
        was = claims(old) if old is not None else frozenset()
        now = claims(new) if new is not None else frozenset()
        obj = new if new is not None else old
        assert obj is not None
        for claim in was - now:
            if self._holders.get(claim) == obj.id:
                del self._holders[claim]
            if isinstance(obj, Task) and claim[0] == ADDRESS:
                self._check_let_go(obj)
        for claim in sorted(now - was):
            holder = self._holders.get(claim)
            if holder is not None and holder != obj.id:
                self.violated(f"{claim} is allocated to {holder} and to {obj.kind} {obj.id}")
            self._holders[claim] = obj.id

    def _check_let_go(self, task: Task) -> None:
        """Nobody runs with an address that is free for others."""
        for node, container in self._running():
            if container.task.id == task.id and not self.world.disturbed(node):
                self.violated(f"the addresses of {task.name} are free, and it runs on {node.name}")

    # --- clients ------------------------------------------------------------------------------------------

    def acknowledged_write(self, who: str, op: str, method: str, answer: "Response") -> None:
        """A client was told that its write is done."""
        if method == "DELETE":
            return
        index = self.committed_ops.get(op)
        if index is None:
            self.violated(f"{who} was told that {op} is done, and it is in no entry of the log")
            return
        self.acknowledged = max(self.acknowledged, index)

    def refused_write(self, who: str, op: str) -> None:
        """A client was told that its write was certainly not done."""
        self._refused_ops.add(op)
        if op in self.committed_ops:
            self.violated(f"{who} was told that {op} was refused, and it is at {self.committed_ops[op]}")

    # --- managers -----------------------------------------------------------------------------------------

    def leadership(self, node: "SimNode", leads: bool, term: int) -> None:
        """A manager says whether it leads."""
        if not leads:
            return
        self.world.story.note(node.name, f"leads in term {term}")
        other = self.leaders.setdefault(term, node.node_id)
        if other != node.node_id:
            self.violated(f"{node.node_id} and {other} both lead in term {term}")

    def fail_stop(self, node: "SimNode", reason: str) -> None:
        """Raft gave up: right only after a fault of its disk."""
        if not self.world.excused(node):
            self.violated(f"{node.name}: fail-stop without a fault: {reason}")

    def manager_ended(self, node: "SimNode", error: Exception) -> None:
        """A manager process ended with an error that it foresaw."""
        self.world.manager_ended(node, error)

    def manager_gone(self, node: "SimNode") -> None:
        """A manager process is gone."""

    async def follow(self, node: "SimNode", process: Process, store: Store) -> None:
        """A watcher: what it is told must add up to the state."""
        while True:
            view, watch = store.watch()
            state: dict[tuple[str, str], StoreObject] = {
                (kind, obj.id): obj for kind, cls in KINDS.items() for obj in view.all(cls)
            }
            with watch:
                try:
                    async for events in watch:
                        for event in events:
                            key = (event.object.kind, event.object.id)
                            if event.old is not None and state.get(key) is not event.old:
                                self.violated(f"{node.name}: a watch was told of {key} without its past")
                            if event.new is None:
                                state.pop(key, None)
                            else:
                                state[key] = event.new
                        if not watch.waiting:
                            self._check_watched(node, state, store.view())
                except WatchLagged:
                    continue

    def _check_watched(self, node: "SimNode", state: dict[tuple[str, str], StoreObject], view: View) -> None:
        if len(state) != sum(view.count(cls) for cls in KINDS.values()):
            self.violated(f"{node.name}: a watch missed events: it has {len(state)} objects")

    # --- what agents are told ------------------------------------------------------------------------------

    def assigned(self, node_id: str, message: "Assignments") -> None:
        """A node is told of tasks and secrets: only of its own, and of those that they use."""
        needed = self._needs.get(node_id, set())
        for secret in message.secrets:
            if secret.id not in needed:
                self.violated(f"secret {secret.id} was sent to node {node_id}, no task of which uses it")
        for task in message.tasks:
            if task.node_id != node_id:
                self.violated(f"task {task.id} of node {task.node_id} was sent to node {node_id}")

    def _note_needs(self, task: Task) -> None:
        container = task.spec.container_spec
        if task.node_id and container is not None and container.secrets:
            needs = self._needs.setdefault(task.node_id, set())
            needs.update(reference.secret_id for reference in container.secrets)

    # --- containers ---------------------------------------------------------------------------------------

    def container_started(self, name: str, container: "Container") -> None:
        """A container runs."""
        task = container.task
        self.world.story.note(name, f"container {task.name} runs")
        view = self._newest()
        for node, other in self._running():
            if other is container or self.world.disturbed(node) or self.world.disturbed_name(name):
                continue
            if view is not None and view.get(Node, other.task.node_id) is None:
                continue  # removed by force: its tasks are replaced at once, while it learns of that
            if other.task.service_id == task.service_id:
                self._check_place(task, other.task)
            shared = _addresses(task) & _addresses(other.task)
            if shared:
                self.violated(f"containers of {task.name} and {other.task.name} both have {sorted(shared)}")
        self._check_surge(task)
        self._check_concurrency(task)

    def _check_concurrency(self, task: Task) -> None:
        """A replicated job has no more containers than it may; looked at when all is calm."""
        view = self._newest()
        service = view.get(Service, task.service_id) if view is not None else None
        if view is None or service is None or not is_replicated_job(service) or self.world.calm_for() < CALM:
            return
        running = sum(
            other.task.service_id == service.id
            for node, other in self._running()
            if not self.world.disturbed(node) and view.get(Node, other.task.node_id) is not None
        )
        before = replace(service, spec=service.previous_spec or service.spec)
        if running > max(max_concurrent(service), max_concurrent(before)):
            self.violated(f"{running} containers of job {service.spec.name} run at once")

    def _running(self) -> "Iterator[tuple[SimNode, Container]]":
        for node in self.world.nodes:
            for container in node.machine.containers.values():
                if container.running:
                    yield node, container

    def _newest(self) -> View | None:
        return self.views.get(self.last_index)

    def _check_place(self, task: Task, other: Task) -> None:
        """Two tasks of one slot run together only in an update that starts the new one first."""
        if (task.slot, "" if task.slot else task.node_id) != (
            other.slot,
            "" if other.slot else other.node_id,
        ):
            return
        view = self._newest()
        service = view.get(Service, task.service_id) if view is not None else None
        specs = [service.spec, service.previous_spec] if service is not None else []
        orders = [
            config.order
            for spec in specs
            if spec is not None
            for config in (spec.update_config, spec.rollback_config)
            if config is not None
        ]
        if service is not None and "start-first" not in orders:
            self.violated(f"{task.name} and {other.name} run at once")

    def _check_surge(self, task: Task) -> None:
        """Never more containers than replicas and the update's surge; looked at when all is calm."""
        count, service, surge = self._count(task)
        if service is not None and count > replicas(service) + surge:
            self.violated(f"{count} containers of {service.spec.name} run: {replicas(service)} + {surge} may")

    def _check_minimum(self, task: Task) -> None:
        """Never fewer than replicas without those that the update takes out at once."""
        count, service, surge = self._count(task)
        if service is None or service.update_status is None:
            return
        order = service.spec.update_config.order if service.spec.update_config is not None else ""
        out = 0 if order == "start-first" else surge
        if task.spec_version != service.spec_version and count < replicas(service) - out:
            self.violated(f"only {count} containers of {service.spec.name} run: {replicas(service)} - {out}")

    def _count(self, task: Task) -> "tuple[int, Service | None, int]":
        """Running containers of a task's service; the service if it is to be judged, and its parallelism."""
        view = self._newest()
        service = view.get(Service, task.service_id) if view is not None else None
        if view is None or service is None or not is_replicated(service) or self.world.calm_for() < CALM:
            return 0, None, 0
        # As docs/guarantees.md says: what Shoal wants counts, not what is on its way out.
        wanted = {t.id: t for t in view.tasks_of_service(service.id) if not t.desired_state.stops}
        specs = [spec.task_template for spec in (service.spec, service.previous_spec) if spec is not None]
        specs += [t.spec for t in wanted.values()]  # those of an older one may wait for restarts
        for spec in specs:
            container = spec.container_spec
            if container is None or container.image.partition(":")[0] != "steady":
                return 0, None, 0
        # Scaling, draining, and tasks that end by themselves.
        elsewise = (self._scaled.get(service.id, 0), self._ended.get(service.id, 0), self._drained)
        if max(elsewise) > self.world.loop.now - CALM:
            return 0, None, 0
        configs = (service.spec.update_config, service.spec.rollback_config)
        surge = max((c.parallelism or 1 << 30) if c is not None else 1 for c in configs)
        count = sum(other.task.id in wanted for _, other in self._running())
        return count, service, surge

    def container_stopping(self, name: str, container: "Container") -> None:
        """A container is told to stop: by then no balancer has it any more, or its time is over."""
        task = container.task
        view = self._newest()
        stored = view.get(Task, task.id) if view is not None else None
        since = self._unwanted_since.get(task.id)
        now = self.world.loop.now
        if stored is None or since is None or now - since >= WITHDRAWN_WITHIN or not task.networks:
            return
        if self.world.calm_for() < CALM:
            return
        if view is not None and view.get(Node, task.node_id) is None:
            return  # an operator removed the node: it leaves with all that it runs
        self._check_minimum(stored)
        for node in self.world.nodes:
            if node.machine.plane_slow or node.gone:
                continue
            for network in task.networks:
                endpoint = node.machine.records.endpoints.get((network.network_id, task.id))
                if endpoint is not None and endpoint.serving:
                    waited = (now - since) / SECOND
                    self.violated(
                        f"{task.name} on {name} is stopped {waited:.3f} s after that was decided, "
                        f"while {node.name} still sends it connections"
                    )

    def container_ended(self, name: str, container: "Container") -> None:
        """A container has ended."""
        self.world.story.note(name, f"container {container.task.name} ended ({container.exit_code})")
        if not container.stopping:
            self._ended[container.task.service_id] = self.world.loop.now


def _addresses(task: Task) -> set[tuple[str, str]]:
    return {(network.network_id, address) for network in task.networks for address in network.addresses}


def same(one: View, other: View) -> bool:
    """Whether two views hold equal objects."""
    for cls in KINDS.values():
        if one.count(cls) != other.count(cls):
            return False
        for obj in one.all(cls):
            if other.get(cls, obj.id) != obj:
                return False
    return True
