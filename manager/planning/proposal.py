"""What is to be planned, applied to a transaction by the rules of the API's own writes."""

import msgspec
from msgspec.structs import replace

from cluster.codec import carried
from cluster.defaults import stored_service
from cluster.errors import InvalidArgument
from cluster.ids import new_id
from cluster.objects import Config, Network, Node, Secret, Service
from cluster.seams import Random
from cluster.spec import ConfigReference, ConfigSpec, NetworkSpec, SecretReference, SecretSpec, ServiceSpec
from cluster.validate import (
    check_config,
    check_network,
    check_secret,
    check_service,
    check_service_update,
)
from cluster.validate_ipam import check_nodes_apart, check_subnets_free
from manager.allocator import check_conflicts
from manager.api.lookup import find_service
from manager.api.references import resolve
from manager.api.services import respecified, same_image, same_order, unchanged
from manager.orchestrator.job import executed
from manager.store import Transaction
from manager.versions.payloads import replaced


class Proposal(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A change: what is to exist as given (by name), and which services go (by name or id).

    References to secrets and configs may leave the id out and give the name.
    """

    networks: list[NetworkSpec] = []
    secrets: list[SecretSpec] = []
    configs: list[ConfigSpec] = []
    services: list[ServiceSpec] = []
    remove: list[str] = []


class Applied(msgspec.Struct):
    """What applying it came to: actions by kind and name, and the services that change, by id."""

    objects: list[tuple[str, str, str]] = []
    services: dict[str, str] = {}


def propose(tx: Transaction, proposal: Proposal, now: int, rng: Random) -> Applied:
    """Write it into the transaction. Raises what the API would raise; `now` in ns."""
    applied = Applied()
    for what in proposal.remove:
        gone = find_service(tx, what)
        applied.services[gone.id] = "remove"
        tx.delete(Service, gone.id)
    for network in proposal.networks:
        _network(tx, network, applied, rng)
    for secret in proposal.secrets:
        check_secret(secret)
        _payload(tx, Secret, secret, applied, now, rng)
    for config in proposal.configs:
        check_config(config)
        _payload(tx, Config, config, applied, now, rng)
    for spec in proposal.services:
        _service(tx, spec, applied, now, rng)
    return applied


def _network(tx: Transaction, spec: NetworkSpec, applied: Applied, rng: Random) -> None:
    if tx.by_name(Network, spec.name) is not None:
        return
    check_network(spec)
    check_subnets_free(spec, tx.all(Network))
    check_nodes_apart(spec, tx.all(Node))
    tx.create(Network(id=new_id(rng), spec=spec, driver=spec.driver or "overlay"))
    applied.objects.append(("network", spec.name, "create"))


def _payload(
    tx: Transaction,
    kind: type[Secret] | type[Config],
    spec: SecretSpec | ConfigSpec,
    applied: Applied,
    now: int,
    rng: Random,
) -> None:
    old: Secret | Config | None = tx.by_name(kind, spec.name)
    if old is None:
        tx.create(kind(id=new_id(rng), spec=replace(spec, labels=spec.labels or {})))  # type: ignore[arg-type]
        applied.objects.append((kind.kind, spec.name, "create"))
        return
    made = replaced(tx, old, spec, new_id(rng), now)
    if made.id != old.id:
        applied.objects.append((kind.kind, spec.name, f"version {made.number}"))
        for name in made.services:
            rolled = tx.by_name(Service, name)
            if rolled is not None:
                applied.services[rolled.id] = "update"


def _service(tx: Transaction, given: ServiceSpec, applied: Applied, now: int, rng: Random) -> None:
    old = tx.by_name(Service, given.name)
    spec = resolve(tx, stored_service(_with_ids(tx, given)))
    if old is None:
        check_service(given)
        check_conflicts(tx, spec.endpoint_spec)
        made = Service(id=new_id(rng), spec=spec)
        tx.create(executed(made, now))
        applied.services[made.id] = "create"
        return
    check_service_update(old, given)
    spec = carried(old.spec, same_order(old.spec, same_image(old.spec, spec)))
    if unchanged(old, spec):
        applied.services.setdefault(old.id, "keep")
        return
    check_conflicts(tx, spec.endpoint_spec, old.id)
    tx.update(respecified(old, spec, now))
    applied.services[old.id] = "update"


def _with_ids(tx: Transaction, spec: ServiceSpec) -> ServiceSpec:
    """The specification with the ids of secrets and configs that it gives by name only."""
    container = spec.task_template.container_spec
    if container is None or not (container.secrets or container.configs):
        return spec
    secrets = [_secret(tx, reference) for reference in container.secrets or ()]
    configs = [_config(tx, reference) for reference in container.configs or ()]
    container = replace(container, secrets=secrets or None, configs=configs or None)
    return replace(spec, task_template=replace(spec.task_template, container_spec=container))


def _secret(tx: Transaction, reference: SecretReference) -> SecretReference:
    if reference.secret_id:
        return reference
    found = tx.by_name(Secret, reference.secret_name)
    if found is None:
        raise InvalidArgument(f"secret {reference.secret_name} not found")
    return replace(reference, secret_id=found.id)


def _config(tx: Transaction, reference: ConfigReference) -> ConfigReference:
    if reference.config_id or reference.runtime is not None:
        return reference
    found = tx.by_name(Config, reference.config_name)
    if found is None:
        raise InvalidArgument(f"config {reference.config_name} not found")
    return replace(reference, config_id=found.id)
