"""The `deploy` section of a service: mode, updates, restarts, placement, resources."""

from collections.abc import Mapping

from shoal.cli.client import Json
from shoal.stack import reading
from shoal.stack.node import ComposeError, Node

FIELDS = (
    "mode", "replicas", "labels", "update_config", "rollback_config", "restart_policy", "placement",
    "resources", "endpoint_mode",
)  # fmt: skip
_MODES = ("replicated", "global", "replicated-job", "global-job")
_UPDATE = ("parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order")
_CONDITIONS = ("none", "on-failure", "any")


def mode(given: Mapping[str, Node]) -> Json:
    """The service's mode."""
    word = reading.choice(given["mode"], _MODES) if "mode" in given else "replicated"
    replicas = reading.integer(given["replicas"]) if "replicas" in given else None
    if word.startswith("global"):
        if replicas is not None:
            raise ComposeError(
                given["replicas"], "replicas can only be used with replicated or replicated-job mode"
            )
        return {"Global": {}} if word == "global" else {"GlobalJob": {}}
    if word == "replicated":
        return {"Replicated": {} if replicas is None else {"Replicas": replicas}}
    job = {} if replicas is None else {"MaxConcurrent": replicas, "TotalCompletions": replicas}
    return {"ReplicatedJob": job}


def update(node: Node | None, actions: tuple[str, ...]) -> Json | None:
    """An update's or roll-back's settings."""
    if node is None:
        return None
    given = reading.fields(node, _UPDATE)
    config: Json = {"Parallelism": 1}
    if "parallelism" in given:
        config["Parallelism"] = reading.integer(given["parallelism"])
    if "delay" in given:
        config["Delay"] = reading.duration(given["delay"])
    if "failure_action" in given:
        config["FailureAction"] = reading.choice(given["failure_action"], actions)
    if "monitor" in given:
        config["Monitor"] = reading.duration(given["monitor"])
    if "max_failure_ratio" in given:
        config["MaxFailureRatio"] = reading.ratio(given["max_failure_ratio"])
    if "order" in given:
        config["Order"] = reading.choice(given["order"], ("stop-first", "start-first"))
    return config


def restart(node: Node | None, restart_key: Node | None) -> Json | None:
    """The restart policy: the section's, or what the service's own `restart` says."""
    if node is None:
        return _restart_word(restart_key) if restart_key is not None else None
    given = reading.fields(node, ("condition", "delay", "max_attempts", "window"))
    policy: Json = {}
    if "condition" in given:
        policy["Condition"] = reading.choice(given["condition"], _CONDITIONS)
    if "delay" in given:
        policy["Delay"] = reading.duration(given["delay"])
    if "max_attempts" in given:
        policy["MaxAttempts"] = reading.integer(given["max_attempts"])
    if "window" in given:
        policy["Window"] = reading.duration(given["window"])
    return policy


def _restart_word(node: Node) -> Json | None:
    word, _, attempts = reading.text(node).partition(":")
    if word == "no" and not attempts:
        return None
    if word in ("always", "unless-stopped") and not attempts:
        return {"Condition": "any"}
    if word == "on-failure" and (not attempts or (attempts.isascii() and attempts.isdigit())):
        return {"Condition": "on-failure", "MaxAttempts": int(attempts[:18] or 0)}
    raise ComposeError(node, "write no, always, unless-stopped, on-failure or on-failure:TIMES")


def placement(node: Node | None) -> Json:
    """Where tasks may run."""
    if node is None:
        return {}
    given = reading.fields(node, ("constraints", "preferences", "max_replicas_per_node"))
    found: Json = {}
    if "constraints" in given:
        found["Constraints"] = reading.strings(given["constraints"])
    if "preferences" in given:
        found["Preferences"] = [_preference(item) for item in reading.items(given["preferences"])]
    if "max_replicas_per_node" in given:
        found["MaxReplicas"] = reading.integer(given["max_replicas_per_node"])
    return found


def _preference(node: Node) -> Json:
    given = reading.fields(node, ("spread",))
    if "spread" not in given:
        raise ComposeError(node, "write spread: node.labels.NAME")
    return {"Spread": {"SpreadDescriptor": reading.text(given["spread"])}}


def resources(node: Node | None) -> Json:
    """Limits and reservations."""
    found: Json = {}
    if node is None:
        return found
    given = reading.fields(node, ("limits", "reservations"))
    if "limits" in given:
        limits = reading.fields(given["limits"], ("cpus", "memory", "pids"))
        found["Limits"] = _amounts(limits)
        if "pids" in limits:
            found["Limits"]["Pids"] = reading.integer(limits["pids"])
    if "reservations" in given:
        reserved = reading.fields(given["reservations"], ("cpus", "memory", "generic_resources"))
        found["Reservations"] = _amounts(reserved)
        if "generic_resources" in reserved:
            found["Reservations"]["GenericResources"] = [
                _generic(item) for item in reading.items(reserved["generic_resources"])
            ]
    return found


def _amounts(given: Mapping[str, Node]) -> Json:
    amounts: Json = {}
    if "cpus" in given:
        amounts["NanoCPUs"] = reading.nano_cpus(given["cpus"])
    if "memory" in given:
        amounts["MemoryBytes"] = reading.size(given["memory"])
    return amounts


def _generic(node: Node) -> Json:
    given = reading.fields(node, ("discrete_resource_spec",))
    if "discrete_resource_spec" not in given:
        raise ComposeError(node, "write discrete_resource_spec: {kind: NAME, value: COUNT}")
    resource = reading.fields(given["discrete_resource_spec"], ("kind", "value"))
    if set(resource) != {"kind", "value"}:
        raise ComposeError(node, "a generic resource needs kind and value")
    return {
        "DiscreteResourceSpec": {
            "Kind": reading.text(resource["kind"]),
            "Value": reading.integer(resource["value"]),
        }
    }
