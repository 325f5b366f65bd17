"""A secret or config with new content.

The data of a secret never changes; what changes is which secret bears the name. The newest version has the
plain name, so that every client finds it there; the one before becomes `NAME.1`, `NAME.2` and so on and
keeps its id, so that tasks and specifications that refer to it stay as they are. Labels tell which is which.
"""

from collections.abc import Collection
from dataclasses import dataclass

from msgspec.structs import replace

from cluster.errors import Conflict, InvalidArgument
from cluster.objects import Config, Secret, Service
from cluster.spec import (
    ConfigReference,
    ConfigSpec,
    ContainerSpec,
    Labels,
    SecretReference,
    SecretSpec,
    ServiceSpec,
)
from manager.api.services import respecified
from manager.store import Transaction, View

NUMBER = "shoal.version"
OF = "shoal.version.of"
_OURS = (NUMBER, OF)
MAX_NAME = 64


@dataclass(frozen=True)
class Outcome:
    """The newest version after an update, and the names of the services that roll to it."""

    id: str
    number: int
    services: tuple[str, ...] = ()


def number(payload: Secret | Config) -> int:
    """Which version it is, from 1."""
    text = (payload.spec.labels or {}).get(NUMBER, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1


def superseded(payload: Secret | Config) -> bool:
    """Whether it is kept only for those who refer to it."""
    return OF in (payload.spec.labels or {})


def kept_labels(old: Labels | None, new: Labels | None) -> Labels:
    """New labels with the old ones' version (None: a new object, which has none). Clients don't say which
    version something is: those such as `docker stack deploy` do not know, and what somebody copied would have
    his secret deleted as an old version."""
    theirs = {key: value for key, value in (new or {}).items() if key not in _OURS}
    mine = {key: value for key, value in (old or {}).items() if key in _OURS}
    return {**theirs, **mine}


def replaced(
    tx: Transaction, old: Secret | Config, given: SecretSpec | ConfigSpec, new_id: str, now: int
) -> Outcome:
    """Give the name of `old` to a new object with the given data, and let the services that use it roll.

    Labels and templating that are not given stay as they are. The same content again changes at most the
    labels. Raises InvalidArgument for an old version, Conflict when the old one's new name is taken.
    """
    spec, before = old.spec, number(old)
    name: str = old.spec.name
    if superseded(old):
        newest = (spec.labels or {})[OF]
        raise InvalidArgument(f"{old.kind} {name} is an old version: update {newest}")
    labels = kept_labels(spec.labels, spec.labels if given.labels is None else given.labels)
    templating = given.templating or spec.templating
    if given.data == spec.data and templating == spec.templating:
        if labels != (spec.labels or {}):
            tx.update(replace(old, spec=replace(spec, labels=labels)))
        return Outcome(old.id, before)
    labels[NUMBER] = str(before + 1)
    new = _newer(old, new_id, data=given.data, labels=labels, templating=templating)
    versions = {old.id, *(p.id for p in tx.all(type(old)) if (p.spec.labels or {}).get(OF) == name)}
    users = {service.id: service for id in sorted(versions) for service in tx.services_using(id)}
    if referenced(tx, old):
        _retire(tx, old, f"{name}.{before}", before)
    else:
        tx.delete(type(old), old.id)
    tx.create(new)
    for service in users.values():
        tx.update(respecified(service, _pointed(service.spec, versions, new_id), now))
    return Outcome(new_id, before + 1, tuple(sorted(service.spec.name for service in users.values())))


def _newer(old: Secret | Config, id: str, **changes: object) -> Secret | Config:
    if isinstance(old, Secret):
        return Secret(id=id, spec=replace(old.spec, **changes))
    return Config(id=id, spec=replace(old.spec, **changes))


def _retire(tx: Transaction, old: Secret | Config, name: str, version: int) -> None:
    if len(name) > MAX_NAME:
        raise InvalidArgument(
            f"{old.kind} {old.spec.name}: its old version would be called {name}, which is longer than "
            f"{MAX_NAME} characters: choose a shorter name"
        )
    if tx.by_name(type(old), name) is not None:
        raise Conflict(
            f"{old.kind} {name} exists: that name is needed for the old version of {old.spec.name}"
        )
    labels = {**(old.spec.labels or {}), NUMBER: str(version), OF: old.spec.name}
    tx.update(replace(old, spec=replace(old.spec, name=name, labels=labels)))


def _pointed(spec: ServiceSpec, old: Collection[str], new: str) -> ServiceSpec:
    container = spec.task_template.container_spec or ContainerSpec()
    secrets, configs = container.secrets, container.configs
    if secrets is not None:
        secrets = [_secret(reference, old, new) for reference in secrets]
    if configs is not None:
        configs = [_config(reference, old, new) for reference in configs]
    container = replace(container, secrets=secrets, configs=configs)
    return replace(spec, task_template=replace(spec.task_template, container_spec=container))


def _secret(reference: SecretReference, old: Collection[str], new: str) -> SecretReference:
    return replace(reference, secret_id=new) if reference.secret_id in old else reference


def _config(reference: ConfigReference, old: Collection[str], new: str) -> ConfigReference:
    return replace(reference, config_id=new) if reference.config_id in old else reference


def referenced(view: View, payload: Secret | Config) -> bool:
    """Whether a service has it, or had it before its last update and may go back, or a task needs it yet."""
    if view.services_using(payload.id):
        return True
    if any(not task.status.state.terminal for task in view.tasks_using(payload.id)):
        return True
    return any(
        service.previous_spec is not None and payload.id in used_by(service.previous_spec)
        for service in view.all(Service)
    )


def used_by(spec: ServiceSpec) -> set[str]:
    """Ids of the secrets and configs that a specification refers to."""
    container = spec.task_template.container_spec
    if container is None:
        return set()
    secrets = {reference.secret_id for reference in container.secrets or ()}
    return secrets | {reference.config_id for reference in container.configs or ()}
