"""The orchestrators as controllers: which services an event concerns, and what to decide about them."""

from cluster.objects import Node, Service, Task
from cluster.seams import Clock, Random
from manager.orchestrator import global_, global_job, replicated, replicated_job
from manager.orchestrator.controller import Controller
from manager.orchestrator.job import is_job
from manager.orchestrator.plan import Plan
from manager.orchestrator.situation import Situation, TaskFactory
from manager.store import Event, Store, View


class ServiceOrchestrator(Controller):
    """Keeps one kind of services as their specs ask."""

    watches = (Service, Task, Node)

    def __init__(self, store: Store, clock: Clock, rng: Random) -> None:
        super().__init__(store, clock)
        self._factory = TaskFactory(rng)

    def subjects(self, view: View) -> set[str]:
        """All services."""
        return {service.id for service in view.all(Service)}

    def touched(self, view: View, event: Event) -> set[str]:
        """The changed service; a changed task's; those with tasks on a changed node."""
        match event.object:
            case Service() as service:
                return {service.id}
            case Task() as task:
                return {task.service_id} if _matters(event) else set()
            case Node() as node if node_matters(event):
                return {task.service_id for task in view.tasks_on_node(node.id)} | self.on_node_change(view)
        return set()

    def on_node_change(self, view: View) -> set[str]:
        """Services that any node's change concerns."""
        return set()

    def wants(self, service: Service) -> bool:
        """Whether the service is of this orchestrator's kind."""
        raise NotImplementedError

    def reconcile(self, situation: Situation) -> Plan:
        """The pure decision."""
        raise NotImplementedError

    def decide(self, view: View, subject: str) -> Plan:
        """Reconcile one service; nothing when it is gone (the reaper's work) or of another kind."""
        service = view.get(Service, subject)
        if service is None or not self.wants(service):
            return Plan()
        situation = Situation(
            service=service,
            tasks=tuple(view.tasks_of_service(subject)),
            nodes={node.id: node for node in view.all(Node)},
            version=view.index,
            now=self.now(subject),
            factory=self._factory.of(view.cluster()),
        )
        return self.reconcile(situation)


class ReplicatedOrchestrator(ServiceOrchestrator):
    """Replicated services."""

    name = "replicated"

    def wants(self, service: Service) -> bool:
        """Only these."""
        return replicated.is_replicated(service)

    def reconcile(self, situation: Situation) -> Plan:
        """See the module of the same name."""
        return replicated.reconcile(situation)


class GlobalOrchestrator(ServiceOrchestrator):
    """Global services."""

    name = "global"

    def wants(self, service: Service) -> bool:
        """Only these."""
        return global_.is_global(service)

    def reconcile(self, situation: Situation) -> Plan:
        """See the module of the same name."""
        return global_.reconcile(situation)

    def on_node_change(self, view: View) -> set[str]:
        """All global services: a node may have become eligible for any."""
        return {service.id for service in view.all(Service) if global_.is_global(service)}


class JobOrchestrator(ServiceOrchestrator):
    """Jobs of both kinds."""

    name = "jobs"

    def wants(self, service: Service) -> bool:
        """Only these."""
        return is_job(service)

    def reconcile(self, situation: Situation) -> Plan:
        """See the modules `replicated_job` and `global_job`."""
        return reconcile(situation)

    def on_node_change(self, view: View) -> set[str]:
        """All global jobs."""
        return {service.id for service in view.all(Service) if global_job.is_global_job(service)}


def reconcile(situation: Situation) -> Plan:
    """The decision about a service of any kind."""
    service = situation.service
    if replicated_job.is_replicated_job(service):
        return replicated_job.reconcile(situation)
    if global_job.is_global_job(service):
        return global_job.reconcile(situation)
    if global_.is_global(service):
        return global_.reconcile(situation)
    return replicated.reconcile(situation)


def _matters(event: Event) -> bool:
    """False for a task's way from NEW to RUNNING, which needs no decision."""
    old, new = event.old, event.new
    if not isinstance(old, Task) or not isinstance(new, Task):
        return True
    return (
        old.desired_state != new.desired_state
        or old.node_id != new.node_id
        or (old.status.state != new.status.state and new.status.state >= new.status.state.RUNNING)
    )


def node_matters(event: Event) -> bool:
    """False for changes of a node that no placement depends on."""
    old, new = event.old, event.new
    if not isinstance(old, Node) or not isinstance(new, Node):
        return True
    return (
        old.status.state != new.status.state
        or old.status.address != new.status.address
        or old.spec != new.spec
        or old.role != new.role
        or old.description != new.description
    )
