"""Is a spec meant as written? Checked before every write, with Docker's words, so that a 4xx changes nothing.

Only what can be known from the spec alone: whether a network exists or a port is taken is the store's matter.
Messages follow SwarmKit's controlapi; where it says nothing, they say what is wrong and what to do.
"""

import re
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from cluster.defaults import MAX_CONFIG_SIZE, MAX_SECRET_SIZE, MIN_NODE_CERT_EXPIRY
from cluster.encryption import check_encryption
from cluster.errors import Conflict, Forbidden, InvalidArgument, NotFound, NotImplementedHere
from cluster.log_options import check_log_options
from cluster.objects import Service
from cluster.payload import GO_TEMPLATE, is_template, payload_bytes
from cluster.publish_at import check_ports_published, check_publish_labels
from cluster.spec import (
    ClusterSpec,
    ConfigSpec,
    DriverConfig,
    EndpointSpec,
    Labels,
    Limits,
    NetworkSpec,
    PortConfig,
    ResourceRequirements,
    Resources,
    SecretSpec,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from cluster.template import check_payload
from cluster.validate_container import check_container
from cluster.validate_ipam import NODES_OWN_DRIVERS, check_cluster_subnets, check_nodes_own

MAX_REPLICAS = 100_000  # bounds what one request can make the managers hold
PREDEFINED_NETWORKS = frozenset({"bridge", "host", "none"})
_INT64 = 1 << 63
_MIN_CPUS = 1_000_000  # a thousandth of a core
_MIN_MEMORY = 4 << 20
_MAY_BE_NEGATIVE = {"swap_bytes", "memory_swappiness", "oom_score_adj", "soft", "hard", "pids"}
_SERVICE_NAME = re.compile(r"[a-zA-Z0-9](?:[-_a-zA-Z0-9]*[a-zA-Z0-9])?")
_RESOURCE_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?")
_NETWORK_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_CONSTRAINT_OPERATOR = re.compile(r"==|!=")
_CONSTRAINT_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+", re.IGNORECASE)
_CONSTRAINT_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE)


# --- services -------------------------------------------------------------------------------------------


def check_service(spec: ServiceSpec, known_labels: Mapping[str, str] | None = None) -> None:
    """A spec for POST /services/create; `known_labels` has it already. Raises InvalidArgument or
    NotImplementedHere."""
    check_values(spec)
    if not spec.name:
        raise InvalidArgument("meta: name must be provided")
    if len(spec.name) > 63:
        raise InvalidArgument("name must be 63 characters or fewer")
    if not _SERVICE_NAME.fullmatch(spec.name):
        raise InvalidArgument(f"name must be valid as a DNS name component: {spec.name!r} is not")
    _check_task(spec.task_template, spec.labels)
    _check_mode(spec)
    _check_update("update", spec.update_config)
    _check_update("rollback", spec.rollback_config)
    _check_endpoint(spec.endpoint_spec)
    check_publish_labels(spec.labels)
    ports = (spec.endpoint_spec.ports if spec.endpoint_spec else None) or ()
    published = {(port.protocol or "tcp", port.published_port) for port in ports}
    check_ports_published(spec.labels, known_labels, published)


def check_service_update(old: Service, spec: ServiceSpec) -> None:
    """A spec for POST /services/{id}/update: besides, what may not change."""
    check_service(spec, old.spec.labels)
    if spec.name != old.spec.name:
        raise NotImplementedHere("renaming services is not supported")
    if mode_word(spec) != mode_word(old.spec):
        raise NotImplementedHere("service mode change is not allowed")


def mode_word(spec: ServiceSpec) -> str:
    """The mode's name, as the `mode` filter spells it."""
    mode = spec.mode
    if mode.global_ is not None:
        return "global"
    if mode.replicated_job is not None:
        return "replicated-job"
    return "global-job" if mode.global_job is not None else "replicated"


def _check_mode(spec: ServiceSpec) -> None:
    mode = spec.mode
    given = [
        m for m in (mode.replicated, mode.global_, mode.replicated_job, mode.global_job) if m is not None
    ]
    if len(given) > 1:
        raise InvalidArgument("must specify only one service mode")
    if mode.replicated_job is not None or mode.global_job is not None:
        _check_job(spec)
    replicas = mode.replicated.replicas if mode.replicated else None
    if replicas is not None and replicas > MAX_REPLICAS:
        raise InvalidArgument(f"replicas must be at most {MAX_REPLICAS}")


def _check_job(spec: ServiceSpec) -> None:
    if spec.update_config is not None:
        raise InvalidArgument("Jobs may not have an update config")
    if spec.rollback_config is not None:
        raise InvalidArgument("Jobs may not have a rollback config")
    job = spec.mode.replicated_job
    for count in (job.max_concurrent, job.total_completions) if job else ():
        if count is not None and count > MAX_REPLICAS:
            raise InvalidArgument(f"max concurrent and total completions must be at most {MAX_REPLICAS}")


def _check_task(task: TaskSpec, labels: Labels | None) -> None:
    if task.runtime not in ("", "container"):
        raise NotImplementedHere(f"task runtime {task.runtime!r} is not supported: only container is")
    if task.container_spec is None:
        raise InvalidArgument("TaskSpec: missing runtime: ContainerSpec must be given")
    check_container(task.container_spec, labels)
    if task.resources is not None:
        _check_resources(task.resources)
    if task.log_driver is not None and task.log_driver.name:
        check_log_options(task.log_driver.name, task.log_driver.options or {})
    if (policy := task.restart_policy) is not None and policy.condition not in (
        "",
        "none",
        "on-failure",
        "any",
    ):
        raise InvalidArgument(f'invalid RestartCondition: "{policy.condition}" (none, on-failure, any)')
    if (placement := task.placement) is not None:
        check_constraints(placement.constraints or ())
    for network in task.networks or ():
        if not network.target:
            raise InvalidArgument("network attachment: a target network must be given")


def _check_resources(resources: ResourceRequirements) -> None:
    limits, reservations = resources.limits or Limits(), resources.reservations or Resources()
    _check_amount(limits)
    _check_amount(reservations)
    for resource in reservations.generic_resources or ():
        given = resource.discrete_resource_spec or resource.named_resource_spec
        if given is None or not given.kind:
            raise InvalidArgument("invalid generic resource: its kind must be given")
    if resources.swap_bytes is not None:
        if resources.swap_bytes < -1:
            raise InvalidArgument(f"invalid SwapBytes {resources.swap_bytes}: use -1 for unlimited swap")
        if resources.swap_bytes and not limits.memory_bytes:
            raise InvalidArgument(
                "You should always set the Memory limit when using Memoryswap limit, see usage"
            )
    if resources.memory_swappiness is not None and not -1 <= resources.memory_swappiness <= 100:
        raise InvalidArgument(
            f"invalid value: {resources.memory_swappiness}, valid memory swappiness range is 0-100"
        )


def _check_amount(amount: Limits | Resources) -> None:
    if 0 < amount.nano_cpus < _MIN_CPUS:
        raise InvalidArgument(f"invalid cpu value {amount.nano_cpus / 1e9:g}: Must be at least 0.001")
    if 0 < amount.memory_bytes < _MIN_MEMORY:
        raise InvalidArgument(f"invalid memory value {amount.memory_bytes}: Must be at least 4MiB")


def check_constraints(constraints: Iterable[str]) -> None:
    """Placement constraints `key==value` or `key!=value` (SwarmKit manager/constraint)."""
    for text in constraints:
        operator = _CONSTRAINT_OPERATOR.search(text)
        if operator is None:
            raise InvalidArgument(f"constraint expected one operator from ==, !=: {text!r}")
        key, value = text[: operator.start()].strip(), text[operator.end() :].strip()
        if not _CONSTRAINT_KEY.fullmatch(key):
            raise InvalidArgument(f"key '{key}' is invalid")
        if not _CONSTRAINT_VALUE.fullmatch(value):
            raise InvalidArgument(f"value '{value}' is invalid")


def _check_update(which: str, config: UpdateConfig | None) -> None:
    if config is None:
        return
    actions = ("", "continue", "pause", "rollback") if which == "update" else ("", "continue", "pause")
    if config.failure_action not in actions:
        raise InvalidArgument(f"unrecognized {which} failure action {config.failure_action}")
    if config.order not in ("", "stop-first", "start-first"):
        raise InvalidArgument(f"unrecognized {which} order {config.order}")
    if not 0 <= config.max_failure_ratio <= 1:
        raise InvalidArgument(f"TaskSpec: {which}-maxfailureratio cannot be less than 0 or bigger than 1")


def _check_endpoint(endpoint: EndpointSpec | None) -> None:
    if endpoint is None:
        return
    if endpoint.mode not in ("", "vip", "dnsrr"):
        raise InvalidArgument(f'invalid resolution mode: "{endpoint.mode}" (vip, dnsrr)')
    published: set[tuple[str, int]] = set()
    for port in endpoint.ports or ():
        _check_port(port)
        if endpoint.mode == "dnsrr" and port.publish_mode != "host":
            raise InvalidArgument(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode"
            )
        if not port.published_port:
            continue
        key = (port.protocol or "tcp", port.published_port)
        if key in published:
            raise InvalidArgument(
                f"EndpointSpec: duplicate published ports provided: {key[1]}/{key[0]} is published twice"
            )
        published.add(key)


def _check_port(port: PortConfig) -> None:
    if port.protocol not in ("", "tcp", "udp", "sctp"):
        raise InvalidArgument(f'invalid protocol "{port.protocol}" (tcp, udp, sctp)')
    if port.publish_mode not in ("", "ingress", "host"):
        raise InvalidArgument(f'invalid publish mode "{port.publish_mode}" (ingress, host)')
    if not 1 <= port.target_port <= 65535 or not 0 <= port.published_port <= 65535:
        raise InvalidArgument(
            f"invalid port {port.published_port}:{port.target_port}: "
            "TargetPort must be 1-65535, PublishedPort 0 (any) to 65535"
        )


# --- networks -------------------------------------------------------------------------------------------


def check_network(spec: NetworkSpec) -> None:
    """A spec for POST /networks/create of a swarm-scoped network."""
    check_values(spec)
    check_labels(spec.labels)
    if spec.name in PREDEFINED_NETWORKS:
        raise Forbidden(f"operation is not permitted on predefined {spec.name} network")
    if not spec.name or len(spec.name) > 255 or not _NETWORK_NAME.fullmatch(spec.name):
        raise InvalidArgument(
            f"invalid network name {spec.name!r}: letters, digits, _ . - only, first a letter or digit"
        )
    if spec.driver in NODES_OWN_DRIVERS:
        check_nodes_own(spec)
        return
    if spec.driver not in ("", "overlay"):
        raise NotFound(
            f'error looking up network plugin {spec.driver}: plugin "{spec.driver}" not found; swarm-scoped '
            f"networks are of driver overlay, {', '.join(NODES_OWN_DRIVERS)}"
        )
    check_cluster_subnets(spec)
    check_encryption(spec.options, spec.labels)
    if spec.config_only or (spec.config_from is not None and spec.config_from.network):
        raise InvalidArgument(
            "overlay networks take no settings from a node's own network: leave --config-from out"
        )
    if spec.ingress and spec.attachable:
        raise InvalidArgument("ingress network cannot be attachable")
    if spec.ingress and spec.internal:
        raise InvalidArgument("ingress network cannot be internal")


# --- secrets, configs, cluster --------------------------------------------------------------------------


def check_secret(spec: SecretSpec) -> None:
    """A spec for POST /secrets/create."""
    check_values(spec)
    _check_resource_name(spec.name)
    check_labels(spec.labels)
    if spec.driver is not None:
        raise NotImplementedHere("secret drivers are not supported: give the data itself")
    _check_data("secret", spec.data, MAX_SECRET_SIZE, spec.templating)


def check_config(spec: ConfigSpec) -> None:
    """A spec for POST /configs/create."""
    check_values(spec)
    _check_resource_name(spec.name)
    check_labels(spec.labels)
    _check_data("config", spec.data, MAX_CONFIG_SIZE, spec.templating)


def _check_resource_name(name: str) -> None:
    if not name:
        raise InvalidArgument("name must be provided")
    if len(name) > 64 or not _RESOURCE_NAME.fullmatch(name):
        raise InvalidArgument(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, "
            "and the start and end character must be [a-zA-Z0-9]"
        )


def _check_data(what: str, data: str, limit: int, templating: DriverConfig | None) -> None:
    try:
        decoded = payload_bytes(data)
    except (Base64Error, ValueError) as error:
        raise InvalidArgument(f"{what} data must be base64: {error}") from error
    if not 0 < len(decoded) < limit:
        raise InvalidArgument(f"{what} data must be larger than 0 and less than {limit} bytes")
    if templating is not None and templating.name not in ("", GO_TEMPLATE):
        raise InvalidArgument(f"unrecognized templating driver {templating.name!r}: use {GO_TEMPLATE}")
    if is_template(templating):
        check_payload(decoded.decode(errors="surrogateescape"))


def check_cluster(spec: ClusterSpec) -> None:
    """A spec for POST /swarm/update."""
    check_values(spec, negative={"task_history_retention_limit"})
    if spec.name not in ("", "default"):
        raise InvalidArgument('swarm spec must be named "default"')
    check_labels(spec.labels)
    expiry = spec.ca_config.node_cert_expiry if spec.ca_config else 0
    if expiry and expiry < MIN_NODE_CERT_EXPIRY:
        raise InvalidArgument("minimum certificate expiry time is: 1h0m0s")


# --- all ------------------------------------------------------------------------------------------------


def check_labels(labels: Labels | None) -> None:
    """Labels have a key."""
    if labels and "" in labels:
        raise InvalidArgument("invalid label: the key must not be empty")


def check_values(value: Any, name: str = "", *, negative: set[str] = _MAY_BE_NEGATIVE) -> None:
    """Refuse what no Go client could send or no kernel could take: negative or huge numbers, NUL bytes."""
    if isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            check_values(getattr(value, field), field, negative=negative)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not -_INT64 <= value < _INT64 or (value < 0 and name not in negative):
            raise InvalidArgument(
                f"{name.replace('_', ' ')}: {value} is out of range, it must not be negative"
            )
    elif isinstance(value, str):
        if "\0" in value:
            raise InvalidArgument(f"{name.replace('_', ' ')} must not contain a NUL character")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_values(key, name)
            check_values(item, name, negative=negative)
    elif isinstance(value, list | tuple):
        for item in value:
            check_values(item, name, negative=negative)


def check_name_free(kind: str, name: str, taken: bool) -> None:
    """Conflict (409) when an object of this kind has the name."""
    if taken:
        raise Conflict(f"name conflicts with an existing object: {kind} {name} already exists")
