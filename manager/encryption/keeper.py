"""Carries out the rotation of keys. Leader only."""

from dataclasses import dataclass

from msgspec.structs import replace

from cluster.objects import Cluster, KeyEpochs, Network, Node
from manager.encryption.rotation import decide
from manager.orchestrator.controller import Controller
from manager.orchestrator.plan import Change, Plan
from manager.store import Event, Transaction, View

_KEYS = "keys"


@dataclass(frozen=True)
class SetEpochs(Change):
    """Other epochs are in force, unless somebody has changed them meanwhile."""

    before: KeyEpochs
    after: KeyEpochs

    def apply(self, tx: Transaction) -> None:
        """Write it."""
        cluster = tx.cluster()
        if cluster is not None and cluster.key_epochs == self.before:
            tx.update(replace(cluster, key_epochs=self.after))

    def __str__(self) -> str:
        return f"keys of the epochs {self.after.oldest} to {self.after.newest} are in force"


class EpochKeeper(Controller):
    """Looks when nodes say how far they are, when nodes come and go, and when keys have had their time."""

    name = "encryption"
    watches = (Cluster, Network, Node)

    def subjects(self, view: View) -> set[str]:
        """The keys of the cluster: one subject."""
        return {_KEYS}

    def touched(self, view: View, event: Event) -> set[str]:
        """What may change the decision."""
        match event.object:
            case Node() as node:
                if not node.description.encryption.keys and not (
                    isinstance(event.old, Node) and event.old.description.encryption.keys
                ):
                    return set()
                if isinstance(event.old, Node) and isinstance(event.new, Node):
                    same = event.old.description.encryption == event.new.description.encryption
                    if same and event.old.status.state == event.new.status.state:
                        return set()
        return {_KEYS}

    def decide(self, view: View, subject: str) -> Plan:
        """Begin an epoch, end one, or wait."""
        plan = Plan()
        decision = decide(view, self.now(subject))
        cluster = view.cluster()
        if decision.epochs is not None and cluster is not None:
            self.log.info(
                "keys of encrypted networks are rotated",
                extra={"newest": decision.epochs.newest, "oldest": decision.epochs.oldest},
            )
            if decision.left_behind:
                self.log.warning(
                    "nodes without the newest keys are cut off from encrypted networks until they have them",
                    extra={"nodes": list(decision.left_behind)},
                )
            plan.do(SetEpochs(cluster.key_epochs, decision.epochs))
        if decision.wake is not None:
            plan.wake(*decision.wake)
        if decision.note:
            plan.notes[_KEYS] = decision.note
        return plan
