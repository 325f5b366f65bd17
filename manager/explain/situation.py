"""The situation of a service as its orchestrator would see it now, for decisions that are only told."""

from cluster.objects import Node, Service
from manager.orchestrator.situation import Situation, TaskFactory
from manager.store import View


class NoChance:
    """Decisions ask for randomness to spread delays and to name new tasks; sentences tell neither."""

    def random(self) -> float:
        """Always 0."""
        return 0.0

    def randrange(self, stop: int, /) -> int:
        """Always 0."""
        return 0

    def getrandbits(self, k: int, /) -> int:
        """Always 0."""
        return 0


def situation_of(view: View, service: Service, now: int) -> Situation:
    """The service, its tasks and the nodes; `now` by the wall clock, in ns."""
    return Situation(
        service=service,
        tasks=tuple(view.tasks_of_service(service.id)),
        nodes={node.id: node for node in view.all(Node)},
        version=view.index,
        now=now,
        factory=TaskFactory(NoChance()),
    )
