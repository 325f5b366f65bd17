"""What SwarmKit fills in for what a spec leaves out. Durations in nanoseconds, sizes in bytes.

A spec is stored as the user gave it; controllers ask here for the value in force, and `insertDefaults` shows
a service with all of them (SwarmKit api/defaults/service.go, dockerd's own for the cluster).
"""

from typing import Any

import msgspec

from cluster.seams import SECOND
from cluster.spec import (
    CAConfig,
    ClusterSpec,
    ContainerSpec,
    DispatcherConfig,
    DNSConfig,
    EncryptionConfig,
    EndpointSpec,
    OrchestrationConfig,
    PortConfig,
    RaftConfig,
    ReplicatedMode,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskDefaults,
    TaskSpec,
    UpdateConfig,
)

STOP_GRACE_PERIOD = 10 * SECOND
RESTART_CONDITION = "any"
RESTART_DELAY = 5 * SECOND
UPDATE_PARALLELISM = 1
UPDATE_MONITOR = 5 * SECOND
UPDATE_FAILURE_ACTION = "pause"
UPDATE_ORDER = "stop-first"
TASK_HISTORY_LIMIT = 5
HEARTBEAT_PERIOD = 5 * SECOND
SNAPSHOT_INTERVAL = 10_000  # entries
LOG_ENTRIES_FOR_SLOW_FOLLOWERS = 500
ELECTION_TICK = 10
HEARTBEAT_TICK = 1
NODE_CERT_EXPIRY = 90 * 24 * 3600 * SECOND
MIN_NODE_CERT_EXPIRY = 3600 * SECOND
MAX_SECRET_SIZE = 500 * 1024
MAX_CONFIG_SIZE = 1000 * 1024

DEFAULT_UPDATE = UpdateConfig(
    parallelism=UPDATE_PARALLELISM,
    failure_action=UPDATE_FAILURE_ACTION,
    monitor=UPDATE_MONITOR,
    order=UPDATE_ORDER,
)


def restart_policy(policy: RestartPolicy | None) -> RestartPolicy:
    """The restart policy in force: every field set, `max_attempts` 0 for no bound, `window` 0 for ever."""
    policy = policy or RestartPolicy()
    return RestartPolicy(
        condition=policy.condition or RESTART_CONDITION,
        delay=RESTART_DELAY if policy.delay is None else policy.delay,
        max_attempts=policy.max_attempts or 0,
        window=policy.window or 0,
    )


def update_config(config: UpdateConfig | None) -> UpdateConfig:
    """The update (or rollback) settings in force: every field set."""
    if config is None:
        return DEFAULT_UPDATE
    return msgspec.structs.replace(
        config,
        failure_action=config.failure_action or UPDATE_FAILURE_ACTION,
        monitor=UPDATE_MONITOR if config.monitor is None else config.monitor,
        order=config.order or UPDATE_ORDER,
    )


def stop_grace_period(container: ContainerSpec | None) -> int:
    """Nanoseconds between the stop signal and SIGKILL."""
    if container is None or container.stop_grace_period is None:
        return STOP_GRACE_PERIOD
    return container.stop_grace_period


def task_history_limit(spec: ClusterSpec) -> int:
    """How many ended tasks a slot keeps."""
    config = spec.orchestration
    if config is None or config.task_history_retention_limit is None:
        return TASK_HISTORY_LIMIT
    return config.task_history_retention_limit


def raft_config(config: RaftConfig | None) -> RaftConfig:
    """The Raft settings in force: every field set. The ticks are shown only."""
    config = config or RaftConfig()
    return msgspec.structs.replace(
        config,
        snapshot_interval=config.snapshot_interval or SNAPSHOT_INTERVAL,
        keep_old_snapshots=config.keep_old_snapshots or 0,
        log_entries_for_slow_followers=config.log_entries_for_slow_followers
        or LOG_ENTRIES_FOR_SLOW_FOLLOWERS,
        election_tick=config.election_tick or ELECTION_TICK,
        heartbeat_tick=config.heartbeat_tick or HEARTBEAT_TICK,
    )


def node_cert_expiry(spec: ClusterSpec) -> int:
    """Lifetime of a node certificate in nanoseconds."""
    return (spec.ca_config.node_cert_expiry if spec.ca_config else 0) or NODE_CERT_EXPIRY


def stored_service(spec: ServiceSpec) -> ServiceSpec:
    """The spec as it is stored: the few values that readers rely on are made explicit.

    The docker CLI sends `Replicated: {}` and later dies on a service without Replicas, so 1 is written.
    """
    mode = spec.mode
    if not any((mode.global_, mode.replicated_job, mode.global_job)) and (
        mode.replicated is None or mode.replicated.replicas is None
    ):
        mode = ServiceMode(replicated=ReplicatedMode(replicas=1))
    elif (job := mode.replicated_job) is not None:
        concurrent = job.max_concurrent or 1
        total = concurrent if job.total_completions is None else job.total_completions
        mode = ServiceMode(
            replicated_job=msgspec.structs.replace(job, max_concurrent=concurrent, total_completions=total)
        )
    template = spec.task_template
    if template.networks is None and spec.networks is not None:
        template = msgspec.structs.replace(template, networks=spec.networks)  # the old place, API < 1.25
    endpoint = spec.endpoint_spec
    if endpoint is not None:
        ports = [_stored_port(port) for port in endpoint.ports or ()] or None
        endpoint = EndpointSpec(mode=endpoint.mode or "vip", ports=ports)
    return msgspec.structs.replace(
        spec,
        labels=spec.labels or {},
        mode=mode,
        task_template=_stored_template(template),
        networks=None,
        endpoint_spec=endpoint,
    )


def _stored_template(template: TaskSpec) -> TaskSpec:
    """The template in one form only: clients read a service and write it back with empty lists and objects
    where there was nothing, and that must not look like a change, which would replace every task.
    """
    plain: TaskSpec = _without_empty(template)
    container = plain.container_spec
    if container is not None and container.isolation == "default":
        container = msgspec.structs.replace(container, isolation="")
    policy = plain.restart_policy
    if policy is not None:  # shown with condition and attempts even if they were left out
        policy = msgspec.structs.replace(
            policy,
            condition=policy.condition or RESTART_CONDITION,
            max_attempts=policy.max_attempts or None,
        )
    return msgspec.structs.replace(
        plain, container_spec=container, restart_policy=policy, runtime=plain.runtime or "container"
    )


def _without_empty(value: Any) -> Any:
    """The struct with None for optional lists, mappings and objects that say nothing."""
    changes = {}
    for field in msgspec.structs.fields(value):
        held = getattr(value, field.name)
        if isinstance(held, msgspec.Struct):
            held = _without_empty(held)
            if field.default is None and held == type(held)():
                held = None
        elif isinstance(held, list) and field.default is None:
            held = [
                _without_empty(item) if isinstance(item, msgspec.Struct) else item for item in held
            ] or None
        elif isinstance(held, dict) and field.default is None:
            held = held or None
        else:
            continue
        changes[field.name] = held
    return msgspec.structs.replace(value, **changes)


def _stored_port(port: PortConfig) -> PortConfig:
    return msgspec.structs.replace(
        port, protocol=port.protocol or "tcp", publish_mode=port.publish_mode or "ingress"
    )


def with_defaults(spec: ServiceSpec) -> ServiceSpec:
    """The spec with every default in force shown, for `insertDefaults`."""
    spec = stored_service(spec)
    template = spec.task_template
    container = template.container_spec
    if container is not None:
        container = msgspec.structs.replace(
            container,
            stop_grace_period=stop_grace_period(container),
            dns_config=container.dns_config or DNSConfig(),
        )
    template = msgspec.structs.replace(
        template, container_spec=container, restart_policy=restart_policy(template.restart_policy)
    )
    job = spec.mode.replicated_job is not None or spec.mode.global_job is not None
    return msgspec.structs.replace(
        spec,
        task_template=template,
        update_config=spec.update_config if job else update_config(spec.update_config),
        rollback_config=spec.rollback_config if job else update_config(spec.rollback_config),
        endpoint_spec=spec.endpoint_spec or EndpointSpec(mode="vip"),
    )


def stored_cluster(spec: ClusterSpec) -> ClusterSpec:
    """The cluster's settings with every default made explicit, as GET /swarm shows them."""
    return msgspec.structs.replace(
        spec,
        name=spec.name or "default",
        labels=spec.labels or {},
        orchestration=OrchestrationConfig(task_history_retention_limit=task_history_limit(spec)),
        raft=raft_config(spec.raft),
        dispatcher=DispatcherConfig(
            heartbeat_period=(spec.dispatcher.heartbeat_period if spec.dispatcher else 0) or HEARTBEAT_PERIOD
        ),
        ca_config=msgspec.structs.replace(
            spec.ca_config or CAConfig(), node_cert_expiry=node_cert_expiry(spec)
        ),
        encryption_config=spec.encryption_config or EncryptionConfig(),
        task_defaults=spec.task_defaults or TaskDefaults(),
    )
