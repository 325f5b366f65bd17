"""Published ports of a Compose file."""

from ipaddress import ip_address

from cluster.publish_at import LABEL
from shoal.cli.client import Json
from shoal.cli.service_flags import published_ports
from shoal.stack import reading
from shoal.stack.node import ComposeError, Node

_FIELDS = ("target", "published", "protocol", "mode", "name", "app_protocol", "host_ip")


def ports(node: Node) -> tuple[list[Json], dict[str, str]]:
    """The endpoint's ports, in docker's order (by the published one), and labels for those that are to be
    open at one address only."""
    found: list[Json] = []
    labels: dict[str, str] = {}
    for item in reading.items(node):
        address, made = _long(item) if isinstance(item.value, dict) else _short(item)
        for port in made:
            if port not in found:
                found.append(port)
            if address and "PublishedPort" in port:
                labels[f"{LABEL}.{port['PublishedPort']}/{port['Protocol']}"] = address
    return sorted(found, key=lambda port: int(port.get("PublishedPort", 0))), labels


def _short(item: Node) -> tuple[str, list[Json]]:
    text = reading.word(item)
    if isinstance(item.value, bool) or "=" in text:
        raise ComposeError(item, f"{text!r} is no port: write '8080:80', or a mapping with target")
    address, bracket, rest = text[1:].partition("]:") if text.startswith("[") else text.partition(":")
    if bracket and ("." in address or ":" in address):
        return _address(item, address), reading.located(item.of(rest), published_ports)
    return "", reading.located(item, published_ports)


def _long(item: Node) -> tuple[str, list[Json]]:
    given = reading.fields(item, _FIELDS)
    if "target" not in given:
        raise ComposeError(item, "target is missing: the port inside the container")
    protocol = reading.choice(given["protocol"], ("tcp", "udp", "sctp")) if "protocol" in given else "tcp"
    mode = reading.choice(given["mode"], ("ingress", "host")) if "mode" in given else "ingress"
    port: Json = {"Protocol": protocol, "TargetPort": _number(given["target"]), "PublishMode": mode}
    if "published" in given:
        port["PublishedPort"] = _number(given["published"])
    address = _address(given["host_ip"], reading.text(given["host_ip"])) if "host_ip" in given else ""
    return address, [port]


def _address(node: Node, text: str) -> str:
    """An address to be open at; "" for all of them. `::` means all of IPv6."""
    try:
        address = ip_address(text)
    except ValueError as error:
        raise ComposeError(node, f"{text!r} is no IP address") from error
    if address.is_unspecified:
        return "" if address.version == 4 else "::/0"
    return str(address)


def _number(node: Node) -> int:
    number = reading.integer(node)
    if not 0 < number < 65536:
        raise ComposeError(node, f"{number} is no port; choose from 1 to 65535")
    return number
