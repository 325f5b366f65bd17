"""Deletes old versions of secrets and configs that nothing refers to any more. Leader only."""

from dataclasses import dataclass
from typing import cast

from cluster.objects import Config, Secret, Service, Task
from cluster.seams import SECOND, Clock
from manager.orchestrator.controller import Controller
from manager.orchestrator.plan import Change, Plan
from manager.store import Event, Store, Transaction, View
from manager.versions.payloads import OF, referenced, superseded, used_by

STACK_GRACE = 30 * SECOND
"""How long an unused version of a stack is left: `docker stack rm` lists what there is, removes the services,
and fails if a secret that it has listed is gone when its turn comes."""
_STACK = "com.docker.stack.namespace"


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

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock)
        self._unused_since: dict[str, int] = {}

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
        if found is None or referenced(view, found):
            self._unused_since.pop(subject, None)
            return plan
        if _STACK in (found.spec.labels or {}) and not _newest_used(view, found):
            now = self.now(subject)
            due = self._unused_since.setdefault(subject, now) + STACK_GRACE
            if due > now:
                plan.wake(due, STACK_GRACE)
                return plan
        plan.do(Drop(type(found), subject))
        return plan


def _newest_used(view: View, old: Secret | Config) -> bool:
    """Whether a service goes on with the newest version: the stack is not just being removed."""
    newest = view.by_name(type(old), (old.spec.labels or {})[OF])
    return newest is not None and bool(view.services_using(newest.id))


def _version(view: View, id: str) -> Secret | Config | None:
    """The old version with this id, if it is one."""
    found: Secret | Config | None = view.get(Secret, id) or view.get(Config, id)
    return found if found is not None and superseded(found) else None
