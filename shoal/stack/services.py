"""A service of a Compose file as the Engine API's specification, field for field as docker makes it."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import InvalidArgument
from shoal.cli.client import Json
from shoal.stack import deploy_section, environment, reading
from shoal.stack.mounts import Mounts
from shoal.stack.namespace import DEPENDS_ON, IMAGE, Namespace
from shoal.stack.networks import Networks
from shoal.stack.node import ComposeError, Node
from shoal.stack.order import CONDITIONS
from shoal.stack.payloads import Payloads
from shoal.stack.ports import ports

_TEXTS = {
    "hostname": "Hostname", "user": "User", "working_dir": "Dir", "stop_signal": "StopSignal",
    "isolation": "Isolation",
}  # fmt: skip
_TRUTHS = {"tty": "TTY", "stdin_open": "OpenStdin", "read_only": "ReadOnly"}
IGNORED = (
    "build", "cgroup_parent", "cgroupns_mode", "container_name", "devices", "domainname", "expose",
    "external_links", "ipc", "links", "mac_address", "network_mode", "pid", "platform", "privileged",
    "profiles", "pull_policy", "security_opt", "shm_size", "userns_mode",
)  # fmt: skip
"""What a cluster's services have not, as in docker's stacks: told with a warning."""
FIELDS = (
    *_TEXTS, *_TRUTHS, *IGNORED, "cap_add", "cap_drop", "command", "configs", "credential_spec", "depends_on",
    "deploy", "dns", "dns_search", "dns_opt", "entrypoint", "env_file", "environment", "extra_hosts",
    "healthcheck", "image", "init", "labels", "logging", "networks", "oom_score_adj", "ports", "restart",
    "secrets", "stop_grace_period", "sysctls", "tmpfs", "ulimits", "volumes", "group_add",
)  # fmt: skip
_HEALTH = ("test", "interval", "timeout", "retries", "start_period", "start_interval", "disable")


@dataclass(frozen=True)
class Service:
    """A service of a stack: its own name, what to post, and what it waits for (name → condition)."""

    name: str
    spec: Json
    depends_on: Mapping[str, str]
    node: Node

    @property
    def image(self) -> str:
        """The image as the file names it."""
        return str(self.spec["Labels"][IMAGE])


@dataclass(frozen=True)
class Surroundings:
    """What a service refers to outside of itself."""

    namespace: Namespace
    networks: Networks
    secrets: Payloads
    configs: Payloads
    mounts: Mounts
    folder: Path
    variables: Mapping[str, str]
    warnings: list[str]


def service(name: str, node: Node, around: Surroundings) -> Service:
    """Convert one service. Raises ComposeError."""
    if "extends" in node.items:
        raise ComposeError(node.items["extends"], "extends is not supported: name several files with -c")
    given = reading.fields(node, FIELDS)
    if "image" not in given:
        raise ComposeError(node, "image is missing: a cluster runs images from a registry, it builds none")
    if ignored := [key for key in IGNORED if key in given]:
        around.warnings.append(
            f"{node.file}:{node.line}: {node.path}: ignored in a cluster: {', '.join(ignored)}"
        )
    deploy = reading.fields(given["deploy"], deploy_section.FIELDS) if "deploy" in given else {}
    depends_on = _depends_on(given.get("depends_on"))
    labels = reading.labels(deploy["labels"]) if "labels" in deploy else {}
    labels = around.namespace.labels(labels) | {IMAGE: reading.text(given["image"])}
    if depends_on:
        labels[DEPENDS_ON] = ",".join(f"{other}:{how}" for other, how in sorted(depends_on.items()))
    endpoint_ports, places = ports(given["ports"]) if "ports" in given else ([], {})
    labels = places | labels
    template: Json = {
        "ContainerSpec": _container(given, around),
        "Resources": deploy_section.resources(deploy.get("resources")),
        "Placement": deploy_section.placement(deploy.get("placement")),
        "Networks": around.networks.attachments(given.get("networks"), name),
    }
    if (policy := deploy_section.restart(deploy.get("restart_policy"), given.get("restart"))) is not None:
        template["RestartPolicy"] = policy
    if "logging" in given:
        log = reading.fields(given["logging"], ("driver", "options"))
        template["LogDriver"] = {
            "Name": reading.text(log["driver"]) if "driver" in log else "",
            "Options": reading.labels(log["options"]) if "options" in log else {},
        }
    endpoint = reading.choice(deploy["endpoint_mode"], ("vip", "dnsrr")) if "endpoint_mode" in deploy else ""
    spec: Json = {
        "Name": around.namespace.scope(name),
        "Labels": labels,
        "TaskTemplate": template,
        "Mode": deploy_section.mode(deploy),
        "EndpointSpec": {"Mode": endpoint, "Ports": endpoint_ports},
    }
    updates = deploy_section.update(deploy.get("update_config"), ("continue", "pause", "rollback"))
    rollbacks = deploy_section.update(deploy.get("rollback_config"), ("continue", "pause"))
    spec |= {"UpdateConfig": updates} if updates is not None else {}
    spec |= {"RollbackConfig": rollbacks} if rollbacks is not None else {}
    return Service(name, spec, depends_on, node)


def _container(given: Mapping[str, Node], around: Surroundings) -> Json:
    labels = reading.labels(given["labels"]) if "labels" in given else {}
    container: Json = {
        "Image": reading.text(given["image"]),
        "Labels": around.namespace.labels(labels),
        "Env": _environment(given, around),
        "Mounts": around.mounts.mounts(given["volumes"]) if "volumes" in given else [],
        "Secrets": around.secrets.references(given.get("secrets")),
        "Configs": around.configs.references(given.get("configs")),
        "Privileges": {},
    }
    if "tmpfs" in given:
        container["Mounts"] += around.mounts.tmpfs(given["tmpfs"])
    container |= {name: reading.text(given[key]) for key, name in _TEXTS.items() if key in given}
    container |= {name: reading.truth(given[key]) for key, name in _TRUTHS.items() if key in given}
    for key, name in (("entrypoint", "Command"), ("command", "Args")):
        if key in given:
            container[name] = _words(given[key])
    if "extra_hosts" in given:
        container["Hosts"] = _hosts(given["extra_hosts"])
    dns = {"dns": "Nameservers", "dns_search": "Search", "dns_opt": "Options"}
    if any(key in given for key in dns):
        container["DNSConfig"] = {
            name: reading.one_or_more(given[key]) for key, name in dns.items() if key in given
        }
    if "healthcheck" in given:
        container["Healthcheck"] = _health(given["healthcheck"])
    if "stop_grace_period" in given:
        container["StopGracePeriod"] = reading.duration(given["stop_grace_period"])
    if "init" in given:
        container["Init"] = reading.truth(given["init"])
    if "sysctls" in given:
        container["Sysctls"] = reading.labels(given["sysctls"])
    if "ulimits" in given:
        container["Ulimits"] = _ulimits(given["ulimits"])
    if "oom_score_adj" in given:
        container["OomScoreAdj"] = reading.integer(given["oom_score_adj"], -1000)
    if "group_add" in given:
        container["Groups"] = reading.strings(given["group_add"])
    if "credential_spec" in given:
        spec = reading.fields(given["credential_spec"], ("config", "file", "registry"))
        named = {key.capitalize(): reading.text(item) for key, item in spec.items()}
        container["Privileges"] = {"CredentialSpec": named}
    _capabilities(container, given)
    return container


def _words(node: Node) -> list[str]:
    """A command: a list as it is, a text split as a shell would."""
    if isinstance(node.value, list):
        return reading.strings(node)
    try:
        return shlex.split(reading.text(node))
    except ValueError as error:
        raise ComposeError(node, f"the command can't be split into words: {error}") from error


def _environment(given: Mapping[str, Node], around: Surroundings) -> list[str]:
    """Variables, sorted; those of `env_file` first, so that `environment` wins. A name alone takes the value
    of the caller's environment."""
    found: dict[str, str | None] = {}
    for file in _env_files(given["env_file"]) if "env_file" in given else ():
        path = around.folder / os.path.expanduser(reading.text(file[0]))
        if not file[1] and not path.exists():
            continue
        try:
            found |= environment.read(path)
        except InvalidArgument as error:
            raise ComposeError(file[0], str(error)) from error
    if "environment" in given:
        found |= reading.pairs(given["environment"])
    env = []
    for name, value in found.items():
        known = around.variables.get(name) if value is None else value
        env.append(name if known is None else f"{name}={known}")
    return sorted(env)


def _env_files(node: Node) -> list[tuple[Node, bool]]:
    """The files, and whether each must exist."""
    found = []
    for item in node.value if isinstance(node.value, list) else [node]:
        if isinstance(item.value, dict):
            given = reading.fields(item, ("path", "required"))
            if "path" not in given:
                raise ComposeError(item, "path is missing")
            found.append((given["path"], "required" not in given or reading.truth(given["required"])))
        else:
            found.append((item, True))
    return found


def _hosts(node: Node) -> list[str]:
    """Lines of /etc/hosts as the API has them: `ADDRESS NAME`."""
    found = []
    if isinstance(node.value, list):
        for item in node.value:
            text = reading.text(item)
            name, separator, address = text.partition("=" if "=" in text else ":")
            if not separator or not name or not address:
                raise ComposeError(item, f"{text!r} is no host: write NAME:ADDRESS")
            found.append(f"{address.strip('[]')} {name}")
        return found
    for name, item in sorted(reading.entries(node).items()):
        found += [f"{address} {name}" for address in reading.one_or_more(item)]
    return found


def _health(node: Node) -> Json:
    given = reading.fields(node, _HEALTH)
    if "disable" in given and reading.truth(given["disable"]):
        if "test" in given:
            raise ComposeError(node, "test and disable can't be set both")
        return {"Test": ["NONE"]}
    health: Json = {}
    if "test" in given:
        test = given["test"]
        health["Test"] = (
            reading.strings(test) if isinstance(test.value, list) else ["CMD-SHELL", reading.text(test)]
        )
    times = {
        "interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod",
        "start_interval": "StartInterval",
    }  # fmt: skip
    health |= {name: reading.duration(given[key]) for key, name in times.items() if key in given}
    if "retries" in given:
        health["Retries"] = reading.integer(given["retries"])
    return health


def _ulimits(node: Node) -> list[Json]:
    found = []
    for name, item in sorted(reading.entries(node).items()):
        if isinstance(item.value, dict):
            given = reading.fields(item, ("soft", "hard"))
            if set(given) != {"soft", "hard"}:
                raise ComposeError(item, "a ulimit needs soft and hard, or one number for both")
            soft, hard = (reading.integer(given[key], -1) for key in ("soft", "hard"))
        else:
            soft = hard = reading.integer(item, -1)
        found.append({"Name": name, "Soft": soft, "Hard": hard})
    return found


def _capabilities(container: Json, given: Mapping[str, Node]) -> None:
    """Capabilities under their full names; what is added is not dropped."""
    added = _capability_names(given["cap_add"]) if "cap_add" in given else set()
    dropped = _capability_names(given["cap_drop"]) if "cap_drop" in given else set()
    if "ALL" in added:
        added = {"ALL"}
    if "ALL" in dropped:
        dropped = {"ALL"}
    if added:
        container["CapabilityAdd"] = sorted(added)
    if dropped - added:
        container["CapabilityDrop"] = sorted(dropped - added)


def _capability_names(node: Node) -> set[str]:
    names = {name.strip().upper() for name in reading.strings(node)}
    return {name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}" for name in names if name}


def _depends_on(node: Node | None) -> dict[str, str]:
    if node is None:
        return {}
    if isinstance(node.value, list):
        return {reading.text(item): CONDITIONS[0] for item in node.value}
    found = {}
    for name, item in reading.entries(node).items():
        given = reading.fields(item, ("condition", "restart", "required"))
        found[name] = (
            reading.choice(given["condition"], CONDITIONS) if "condition" in given else CONDITIONS[0]
        )
    return found
