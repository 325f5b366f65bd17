"""Deletes old versions of secrets and configs that nothing refers to any more. Leader only."""

from dataclasses import dataclass
from typing import cast

from cluster.objects import Config, Secret, Service, Task
from manager.orchestrator.controller import Controller
from manager.orchestrator.plan import Change, Plan
from manager.store import Event, Transaction, View
from manager.versions.payloads import referenced, superseded, used_by


@dataclass(frozen=True)
class Drop(Change):
    """Delete an old version, if it still is one and still unused."""

    kind: type[Secret] | type[Config]
    id: str

    def apply(self, tx: Transaction) -> None:
        """Write it."""
        found = _version(tx, self.id)
        if found is not None and not referenced(tx, found):
            tx.delete(self.kind, self.id)

    def __str__(self) -> str:
        return f"delete {self.kind.kind} {self.id}: an old version that nothing uses"


class VersionKeeper(Controller):
    """Looks again at an old version when a service or task that refers to it changed or went."""

    name = "versions"
    watches = (Service, Task, Secret, Config)

    def subjects(self, view: View) -> set[str]:
        """All old versions."""
        payloads: list[Secret | Config] = [*view.all(Secret), *view.all(Config)]
        return {payload.id for payload in payloads if superseded(payload)}

    def touched(self, view: View, event: Event) -> set[str]:
        """Those that the changed object referred to."""
        match event.object:
            case Service():
                services = [cast(Service, obj) for obj in (event.old, event.new) if obj is not None]
                specs = [spec for s in services for spec in (s.spec, s.previous_spec) if spec is not None]
                ids = {id for spec in specs for id in used_by(spec)}
            case Task() as task if event.new is None or task.status.state.terminal:
                container = task.spec.container_spec
                references = (
                    [] if container is None else [*(container.secrets or ()), *(container.configs or ())]
                )
                ids = {getattr(r, "secret_id", "") or getattr(r, "config_id", "") for r in references}
            case Secret() | Config() as payload:
                ids = {payload.id}
            case _:
                return set()
        return {id for id in ids if _version(view, id) is not None}

    def decide(self, view: View, subject: str) -> Plan:
        """Delete it, or leave it to whatever refers to it."""
        plan = Plan()
        found = _version(view, subject)
        if found is not None and not referenced(view, found):
            plan.do(Drop(type(found), subject))
        return plan


def _version(view: View, id: str) -> Secret | Config | None:
    """The old version with this id, if it is one."""
    found: Secret | Config | None = view.get(Secret, id) or view.get(Config, id)
    return found if found is not None and superseded(found) else None
