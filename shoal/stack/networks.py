"""Networks of a Compose file, and how its services attach to them."""

from collections.abc import Mapping

from shoal.cli.client import Json
from shoal.stack import reading
from shoal.stack.mounts import external
from shoal.stack.namespace import Namespace
from shoal.stack.node import ComposeError, Node

_FIELDS = (
    "name", "driver", "driver_opts", "ipam", "external", "internal", "attachable", "labels", "enable_ipv6",
    "enable_ipv4",
)  # fmt: skip
_IPAM_CONFIG = ("subnet", "gateway", "ip_range", "aux_addresses")
PREDEFINED = frozenset({"bridge", "host", "none", "default"})


class Networks:
    """The file's networks; `default` is there without being written."""

    def __init__(self, namespace: Namespace, node: Node) -> None:
        self._namespace = namespace
        self._at = node
        self._given = reading.entries(node)
        self._used: dict[str, Node] = {}

    def attachments(self, node: Node | None, service: str) -> list[Json]:
        """The networks of a service: by name, with its own name as an alias."""
        found = []
        wanted = {"default": None} if node is None else _wanted(node)
        for key, options in wanted.items():
            at = options or node or self._at
            name = self._real_name(key, at)
            given = reading.fields(options, ("aliases", "driver_opts", "priority")) if options else {}
            attachment: Json = {"Target": name}
            if name not in PREDEFINED:
                aliases = reading.strings(given["aliases"]) if "aliases" in given else []
                attachment["Aliases"] = [*aliases, service]
            if "driver_opts" in given:
                attachment["DriverOpts"] = reading.labels(given["driver_opts"])
            found.append(attachment)
        return sorted(found, key=lambda attachment: str(attachment["Target"]))

    def _real_name(self, key: str, at: Node) -> str:
        if key not in self._given and key != "default":
            raise ComposeError(at, f"undefined network {key!r}: define it under networks at the top")
        node = self._given.get(key) or self._at.child(key, None)
        self._used[key] = node
        _, name = external(node, reading.fields(node, _FIELDS), key)
        return name or self._namespace.scope(key)

    def used(self) -> tuple[dict[str, Json], dict[str, Node]]:
        """After all services: specs of networks that the stack makes, and names of those that must exist."""
        made: dict[str, Json] = {}
        outside: dict[str, Node] = {}
        for key, node in self._used.items():
            given = reading.fields(node, _FIELDS)
            is_external, name = external(node, given, key)
            if is_external:
                outside[name] = node
            else:
                made[name or self._namespace.scope(key)] = self._spec(given)
        for key, node in self._given.items():
            external(node, reading.fields(node, _FIELDS), key)  # a mistake in an unused one is told too
        return made, outside

    def _spec(self, given: Mapping[str, Node]) -> Json:
        labels = reading.labels(given["labels"]) if "labels" in given else {}
        spec: Json = {
            "Driver": reading.text(given["driver"]) if "driver" in given else "overlay",
            "Options": reading.labels(given["driver_opts"]) if "driver_opts" in given else {},
            "Labels": self._namespace.labels(labels),
            "Internal": "internal" in given and reading.truth(given["internal"]),
            "Attachable": "attachable" in given and reading.truth(given["attachable"]),
            "Scope": "swarm",
        }
        if "enable_ipv6" in given:
            spec["EnableIPv6"] = reading.truth(given["enable_ipv6"])
        if "enable_ipv4" in given:
            spec["EnableIPv4"] = reading.truth(given["enable_ipv4"])
        if "ipam" in given:
            spec["IPAM"] = _ipam(given["ipam"])
        return spec


def _wanted(node: Node) -> dict[str, Node | None]:
    if isinstance(node.value, list):
        return {reading.text(item): None for item in node.value}
    return {key: item if item.value is not None else None for key, item in reading.entries(node).items()}


def _ipam(node: Node) -> Json:
    given = reading.fields(node, ("driver", "config", "options"))
    ipam: Json = {"Driver": reading.text(given["driver"]) if "driver" in given else "default"}
    if "options" in given:
        ipam["Options"] = reading.labels(given["options"])
    if "config" in given:
        ipam["Config"] = []
        for item in reading.items(given["config"]):
            config = reading.fields(item, _IPAM_CONFIG)
            names = {"subnet": "Subnet", "gateway": "Gateway", "ip_range": "IPRange"}
            made: Json = {names[key]: reading.text(config[key]) for key in names if key in config}
            if "aux_addresses" in config:
                made["AuxiliaryAddresses"] = reading.labels(config["aux_addresses"])
            ipam["Config"].append(made)
    return ipam
