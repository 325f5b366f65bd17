"""Service specs from the flags of `service create`, and changed by those of `service update`. Pure."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.errors import InvalidArgument
from shoal.cli import service_flags
from shoal.cli.client import Json
from shoal.cli.quantities import duration, nano_cpus, size

Flags = Mapping[str, Any]
"""A command's flags by click's names; a flag that was not given is None, False or empty."""

_C = ("TaskTemplate", "ContainerSpec")
_R = ("TaskTemplate", "Resources")
_RESTART = ("TaskTemplate", "RestartPolicy")
_HEALTH = (*_C, "HealthCheck")

SCALAR_FLAGS: dict[str, tuple[tuple[str, ...], Any, str]] = {
    "hostname": ((*_C, "Hostname"), str, "The containers' hostname"),
    "user": ((*_C, "User"), str, "The user to run as: name or id, with :group"),
    "workdir": ((*_C, "Dir"), str, "The directory to start in"),
    "read_only": ((*_C, "ReadOnly"), bool, "Mount the root file system read-only"),
    "tty": ((*_C, "TTY"), bool, "Give the containers a terminal"),
    "init": ((*_C, "Init"), bool, "Run a small init as process 1"),
    "stop_signal": ((*_C, "StopSignal"), str, "The signal that asks a container to end"),
    "stop_grace_period": (
        (*_C, "StopGracePeriod"),
        duration,
        "How long it may take before it is killed: 10s",
    ),
    "limit_cpu": ((*_R, "Limits", "NanoCPUs"), nano_cpus, "At most so many CPUs: 0.5"),
    "limit_memory": ((*_R, "Limits", "MemoryBytes"), size, "At most so much memory: 64m"),
    "limit_pids": ((*_R, "Limits", "Pids"), int, "At most so many processes"),
    "reserve_cpu": ((*_R, "Reservations", "NanoCPUs"), nano_cpus, "Only on nodes with so many CPUs left"),
    "reserve_memory": ((*_R, "Reservations", "MemoryBytes"), size, "Only on nodes with so much memory left"),
    "restart_condition": (
        (*_RESTART, "Condition"),
        str,
        "When to replace a task that ended: none, on-failure, any",
    ),
    "restart_delay": ((*_RESTART, "Delay"), duration, "How long to wait before that: 5s"),
    "restart_max_attempts": ((*_RESTART, "MaxAttempts"), int, "How often at most"),
    "restart_window": ((*_RESTART, "Window"), duration, "The time within which attempts count"),
    "replicas_max_per_node": (
        ("TaskTemplate", "Placement", "MaxReplicas"),
        int,
        "At most so many tasks on a node",
    ),
    "endpoint_mode": (("EndpointSpec", "Mode"), str, "vip (one address) or dnsrr (one for each task)"),
    "health_interval": ((*_HEALTH, "Interval"), duration, "Time between health checks"),
    "health_timeout": ((*_HEALTH, "Timeout"), duration, "How long one may take"),
    "health_retries": ((*_HEALTH, "Retries"), int, "Failures in a row that mean unhealthy"),
    "health_start_period": ((*_HEALTH, "StartPeriod"), duration, "Time in which failures don't count"),
}
for _prefix, _config, _noun in (
    ("update", "UpdateConfig", "an update"),
    ("rollback", "RollbackConfig", "a roll-back"),
):
    SCALAR_FLAGS |= {
        f"{_prefix}_parallelism": (
            (_config, "Parallelism"),
            int,
            f"In {_noun}: how many tasks at once, 0 for all",
        ),
        f"{_prefix}_delay": ((_config, "Delay"), duration, f"In {_noun}: time between them"),
        f"{_prefix}_monitor": (
            (_config, "Monitor"),
            duration,
            f"In {_noun}: how long each must run to count",
        ),
        f"{_prefix}_failure_action": (
            (_config, "FailureAction"),
            str,
            f"In {_noun}: what to do when tasks fail: pause, continue or rollback",
        ),
        f"{_prefix}_max_failure_ratio": (
            (_config, "MaxFailureRatio"),
            float,
            f"In {_noun}: the share of failures to bear",
        ),
        f"{_prefix}_order": ((_config, "Order"), str, f"In {_noun}: stop-first or start-first"),
    }
"""The flags with one value: where it goes in the spec, how it is read, and the flag's help."""


def _put(spec: Json, path: Sequence[str], value: object) -> None:
    place = spec
    for name in path[:-1]:
        if place.get(name) is None:
            place[name] = {}
        place = place[name]
    place[path[-1]] = value


def _take(spec: Json, path: Sequence[str]) -> Any:
    place: Any = spec
    for name in path:
        place = (place or {}).get(name)
    return place


def _apply_scalars(spec: Json, flags: Flags) -> None:
    for flag, (path, convert, _) in SCALAR_FLAGS.items():
        value = flags.get(flag)
        if value is not None:
            _put(spec, path, convert(value))
    if flags.get("health_cmd"):
        _put(spec, (*_HEALTH, "Test"), ["CMD-SHELL", flags["health_cmd"]])
    if flags.get("no_healthcheck"):
        _put(spec, _HEALTH, {"Test": ["NONE"]})


def _preference(text: str) -> Json:
    strategy, _, descriptor = text.partition("=")
    if strategy != "spread" or not descriptor:
        raise InvalidArgument(f"--placement-pref {text}: write spread=node.labels.NAME")
    return {"Spread": {"SpreadDescriptor": descriptor}}


def created(image: str, arguments: Sequence[str], flags: Flags) -> Json:
    """The spec that `service create` posts.

    Raises:
        InvalidArgument: a flag can't be meant as written, or two contradict each other.
    """
    container: Json = {"Image": image}
    if arguments:
        container["Args"] = list(arguments)
    if flags.get("entrypoint"):
        container["Command"] = flags["entrypoint"].split()
    lists = {
        "Env": list(flags.get("env") or ()),
        "Labels": service_flags.pairs(flags.get("container_label") or (), "--container-label"),
        "Mounts": [service_flags.mount(text) for text in flags.get("mount") or ()],
        "CapabilityAdd": list(flags.get("cap_add") or ()),
        "CapabilityDrop": list(flags.get("cap_drop") or ()),
        "Hosts": [" ".join(reversed(text.split(":", 1))) for text in flags.get("host") or ()],
    }
    container |= {name: value for name, value in lists.items() if value}
    if flags.get("dns"):
        container["DNSConfig"] = {"Nameservers": list(flags["dns"])}
    spec: Json = {
        "Name": flags.get("name") or "",
        "Labels": service_flags.pairs(flags.get("label") or (), "--label"),
        "TaskTemplate": {"ContainerSpec": container},
        "Mode": _mode(flags),
        "EndpointSpec": {"Mode": "vip"},
    }
    if flags.get("constraint"):
        _put(spec, ("TaskTemplate", "Placement", "Constraints"), list(flags["constraint"]))
    if flags.get("placement_pref"):
        preferences = [_preference(text) for text in flags["placement_pref"]]
        _put(spec, ("TaskTemplate", "Placement", "Preferences"), preferences)
    if flags.get("network"):
        _put(spec, ("TaskTemplate", "Networks"), [service_flags.network(text) for text in flags["network"]])
    if ports := [port for text in flags.get("publish") or () for port in service_flags.published_ports(text)]:
        spec["EndpointSpec"]["Ports"] = ports
    _apply_scalars(spec, flags)
    return spec


def _mode(flags: Flags) -> Json:
    mode = flags.get("mode") or "replicated"
    replicas, concurrent = flags.get("replicas"), flags.get("max_concurrent")
    if replicas is not None and mode in ("global", "global-job"):
        raise InvalidArgument(f"--replicas does not go with --mode {mode}, which runs one task on every node")
    if concurrent is not None and mode != "replicated-job":
        raise InvalidArgument("--max-concurrent goes with --mode replicated-job only")
    count = 1 if replicas is None else replicas
    match mode:
        case "global":
            return {"Global": {}}
        case "global-job":
            return {"GlobalJob": {}}
        case "replicated-job":
            at_once = count if concurrent is None else concurrent
            return {"ReplicatedJob": {"MaxConcurrent": at_once, "TotalCompletions": count}}
    return {"Replicated": {"Replicas": count}}


def with_replicas(spec: Json, replicas: int) -> Json:
    """The spec with another number of replicas, or of a job's completions.

    Raises:
        InvalidArgument: the service has one task on every node.
    """
    mode = spec.get("Mode", {})
    if "Global" in mode or "GlobalJob" in mode:
        raise InvalidArgument(
            f"service {spec.get('Name')} is global: it runs one task on every node and can't be scaled"
        )
    changed = copy.deepcopy(spec)
    if "ReplicatedJob" in mode:
        _put(changed, ("Mode", "ReplicatedJob", "TotalCompletions"), replicas)
        return changed
    _put(changed, ("Mode", "Replicated", "Replicas"), replicas)
    return changed


def _merge(spec: Json, path: Sequence[str], add: Mapping[str, str], remove: Sequence[str]) -> None:
    if add or remove:
        current = dict(_take(spec, path) or {}) | dict(add)
        _put(spec, path, {key: value for key, value in current.items() if key not in remove})


def updated(spec: Json, arguments: Sequence[str] | None, flags: Flags) -> Json:
    """The spec that `service update` posts: `spec` changed by the flags that were given.

    Raises:
        InvalidArgument: a flag can't be meant as written, or does not fit the service.
    """
    changed: Json = copy.deepcopy(spec)
    if flags.get("image"):
        _put(changed, (*_C, "Image"), flags["image"])
    if arguments is not None:
        _put(changed, (*_C, "Args"), list(arguments))
    if flags.get("replicas") is not None:
        changed = with_replicas(changed, flags["replicas"])
    if flags.get("force"):
        _put(
            changed,
            ("TaskTemplate", "ForceUpdate"),
            (_take(changed, ("TaskTemplate", "ForceUpdate")) or 0) + 1,
        )
    add, remove = (
        service_flags.pairs(flags.get("label_add") or (), "--label-add"),
        flags.get("label_rm") or (),
    )
    _merge(changed, ("Labels",), add, remove)
    add = service_flags.pairs(flags.get("container_label_add") or (), "--container-label-add")
    _merge(changed, (*_C, "Labels"), add, flags.get("container_label_rm") or ())
    _change_environment(changed, flags)
    _change_lists(changed, flags)
    _change_ports(changed, flags)
    _apply_scalars(changed, flags)
    return changed


def _change_environment(spec: Json, flags: Flags) -> None:
    added, removed = flags.get("env_add") or (), set(flags.get("env_rm") or ())
    if added or removed:
        replaced = removed | {item.partition("=")[0] for item in added}
        kept = [item for item in _take(spec, (*_C, "Env")) or [] if item.partition("=")[0] not in replaced]
        _put(spec, (*_C, "Env"), [*kept, *added])


def _change_lists(spec: Json, flags: Flags) -> None:
    constraints = ("TaskTemplate", "Placement", "Constraints")
    if flags.get("constraint_add") or flags.get("constraint_rm"):
        removed = set(flags.get("constraint_rm") or ())
        kept = [item for item in _take(spec, constraints) or [] if item not in removed]
        _put(
            spec, constraints, kept + [item for item in flags.get("constraint_add") or () if item not in kept]
        )
    networks = ("TaskTemplate", "Networks")
    if flags.get("network_add") or flags.get("network_rm"):
        removed = set(flags.get("network_rm") or ())
        kept = [item for item in _take(spec, networks) or [] if item["Target"] not in removed]
        _put(spec, networks, kept + [service_flags.network(text) for text in flags.get("network_add") or ()])
    mounts = (*_C, "Mounts")
    if flags.get("mount_add") or flags.get("mount_rm"):
        added = [service_flags.mount(text) for text in flags.get("mount_add") or ()]
        removed = set(flags.get("mount_rm") or ()) | {item["Target"] for item in added}
        _put(spec, mounts, [m for m in _take(spec, mounts) or [] if m["Target"] not in removed] + added)


def _same_entry(one: Json, other: Json) -> bool:
    """True when both would be reached at the same place, so that the new one replaces the old."""
    names = ("PublishedPort", "Protocol", "PublishMode")
    return bool(other.get("PublishedPort")) and all(one.get(name) == other.get(name) for name in names)


def _change_ports(spec: Json, flags: Flags) -> None:
    if not (flags.get("publish_add") or flags.get("publish_rm")):
        return
    ports: list[Json] = list(_take(spec, ("EndpointSpec", "Ports")) or [])
    for text in flags.get("publish_rm") or ():
        target, _, protocol = text.partition("/")
        if not target.isdigit():
            raise InvalidArgument(
                f"--publish-rm {text}: name the port inside the container, such as 80 or 53/udp"
            )
        gone = (int(target), protocol or "tcp")
        ports = [port for port in ports if (port["TargetPort"], port.get("Protocol", "tcp")) != gone]
    for text in flags.get("publish_add") or ():
        for port in service_flags.published_ports(text):
            ports = [kept for kept in ports if not _same_entry(kept, port)] + [port]
    _put(spec, ("EndpointSpec", "Ports"), ports)
