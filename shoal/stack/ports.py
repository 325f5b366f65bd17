"""Published ports of a Compose file."""

from shoal.cli.client import Json
from shoal.cli.service_flags import published_ports
from shoal.stack import reading
from shoal.stack.node import ComposeError, Node

_FIELDS = ("target", "published", "protocol", "mode", "name", "app_protocol", "host_ip")


def ports(node: Node) -> list[Json]:
    """The endpoint's ports, in docker's order: by the published one."""
    found: list[Json] = []
    for item in reading.items(node):
        for port in _long(item) if isinstance(item.value, dict) else _short(item):
            if port not in found:
                found.append(port)
    return sorted(found, key=lambda port: int(port.get("PublishedPort", 0)))


def _short(item: Node) -> list[Json]:
    text = reading.word(item)
    if isinstance(item.value, bool) or "=" in text:
        raise ComposeError(item, f"{text!r} is no port: write '8080:80', or a mapping with target")
    return reading.located(item, published_ports)


def _long(item: Node) -> list[Json]:
    given = reading.fields(item, _FIELDS)
    if "target" not in given:
        raise ComposeError(item, "target is missing: the port inside the container")
    if "host_ip" in given:
        raise ComposeError(given["host_ip"], "a service's port can't be bound to one address here")
    protocol = reading.choice(given["protocol"], ("tcp", "udp", "sctp")) if "protocol" in given else "tcp"
    mode = reading.choice(given["mode"], ("ingress", "host")) if "mode" in given else "ingress"
    port: Json = {"Protocol": protocol, "TargetPort": _number(given["target"]), "PublishMode": mode}
    if "published" in given:
        port["PublishedPort"] = _number(given["published"])
    return [port]


def _number(node: Node) -> int:
    number = reading.integer(node)
    if not 0 < number < 65536:
        raise ComposeError(node, f"{number} is no port; choose from 1 to 65535")
    return number
