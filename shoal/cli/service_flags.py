"""The compound flags of `service create` and `service update`, turned into the Engine API's objects."""

import csv
from collections.abc import Callable, Iterable

from cluster.errors import InvalidArgument
from shoal.cli.client import Json
from shoal.cli.quantities import size

_PROTOCOLS = ("tcp", "udp", "sctp")


def pairs(items: Iterable[str], what: str) -> dict[str, str]:
    """`KEY=VALUE` flags as a mapping; a key alone has an empty value.

    Raises:
        InvalidArgument: a key is empty.
    """
    found = {}
    for item in items:
        key, _, value = item.partition("=")
        if not key:
            raise InvalidArgument(f"{what} {item!r} has no name: write {what} NAME=VALUE")
        found[key] = value
    return found


def _fields(text: str, flag: str) -> list[tuple[str, str]]:
    """The comma-separated KEY=VALUE fields of a flag; values may be quoted as in CSV."""
    found = []
    for item in next(csv.reader([text]), []):
        key, equals, value = item.partition("=")
        found.append((key.strip().lower(), value if equals else "true"))
    if not found:
        raise InvalidArgument(f"{flag} is empty")
    return found


def _port(text: str, flag: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise InvalidArgument(f"{flag}: {text!r} is no port; choose from 1 to 65535")
    return int(text)


def _port_range(text: str, flag: str) -> list[int]:
    first, _, last = text.partition("-")
    ports = range(_port(first, flag), _port(last or first, flag) + 1)
    if not ports:
        raise InvalidArgument(f"{flag}: the range {text} runs backwards")
    return list(ports)


def published_ports(text: str) -> list[Json]:
    """The ports of one `--publish`.

    Forms: `8080:80/udp`, `80`, `8000-8002:80-82`, `published=8080,target=80,mode=host`.

    Raises:
        InvalidArgument: it means no port.
    """
    flag = f"--publish {text}"
    if "=" in text:
        known = dict(_fields(text, flag))
        unknown = known.keys() - {"published", "target", "protocol", "mode"}
        if unknown or "target" not in known:
            raise InvalidArgument(f"{flag}: write published=8080,target=80[,protocol=udp][,mode=host]")
        protocol, mode = known.get("protocol", "tcp").lower(), known.get("mode", "ingress").lower()
        targets = _port_range(known["target"], flag)
        published = _port_range(known["published"], flag) if known.get("published") else []
    else:
        ports, _, protocol = text.partition("/")
        protocol, mode = protocol.lower() or "tcp", "ingress"
        front, colon, back = ports.rpartition(":")
        if ":" in front:
            raise InvalidArgument(
                f"{flag}: write 8080:80, and say where with --label shoal.publish.8080=ADDRESS"
            )
        targets = _port_range(back, flag)
        published = _port_range(front, flag) if colon and front else []
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(f"{flag}: protocol {protocol!r} is not one of {', '.join(_PROTOCOLS)}")
    if mode not in ("ingress", "host"):
        raise InvalidArgument(f"{flag}: mode {mode!r} is neither ingress nor host")
    if published and len(published) != len(targets):
        raise InvalidArgument(f"{flag}: {len(published)} published ports for {len(targets)} targets")
    configs = []
    for number, target in enumerate(targets):
        config: Json = {"Protocol": protocol, "TargetPort": target, "PublishMode": mode}
        if published:
            config["PublishedPort"] = published[number]
        configs.append(config)
    return configs


def network(text: str) -> Json:
    """One `--network`: a name, or `name=front,alias=web,driver-opt=KEY=VALUE`.

    Raises:
        InvalidArgument: a field is not known.
    """
    if "=" not in text:
        return {"Target": text}
    attachment: Json = {}
    for key, value in _fields(text, f"--network {text}"):
        if key == "name":
            attachment["Target"] = value
        elif key == "alias":
            attachment.setdefault("Aliases", []).append(value)
        elif key == "driver-opt":
            name, _, option = value.partition("=")
            attachment.setdefault("DriverOpts", {})[name] = option
        else:
            raise InvalidArgument(f"--network {text}: {key!r} is not one of name, alias, driver-opt")
    if "Target" not in attachment:
        raise InvalidArgument(f"--network {text}: name the network with name=…")
    return attachment


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "1", "false", "0"):
        raise InvalidArgument(f"{text!r} is neither true nor false")
    return text.lower() in ("true", "1")


_MOUNT_FIELDS: dict[str, tuple[tuple[str, ...], Callable[[str], object]]] = {
    "type": (("Type",), str),
    "source": (("Source",), str),
    "src": (("Source",), str),
    "target": (("Target",), str),
    "dst": (("Target",), str),
    "destination": (("Target",), str),
    "readonly": (("ReadOnly",), _truth),
    "ro": (("ReadOnly",), _truth),
    "bind-propagation": (("BindOptions", "Propagation"), str),
    "volume-nocopy": (("VolumeOptions", "NoCopy"), _truth),
    "volume-driver": (("VolumeOptions", "DriverConfig", "Name"), str),
    "volume-subpath": (("VolumeOptions", "Subpath"), str),
    "tmpfs-size": (("TmpfsOptions", "SizeBytes"), size),
    "tmpfs-mode": (("TmpfsOptions", "Mode"), lambda text: int(text, 8)),
}


def mount(text: str) -> Json:
    """One `--mount`: `type=bind,source=/srv,target=/data,readonly`.

    Raises:
        InvalidArgument: a field is not known, or the mount lacks what its type needs.
    """
    flag = f"--mount {text}"
    made: Json = {"Type": "volume"}
    for key, value in _fields(text, flag):
        if key not in _MOUNT_FIELDS:
            raise InvalidArgument(f"{flag}: {key!r} is not one of {', '.join(_MOUNT_FIELDS)}")
        (*folders, last), convert = _MOUNT_FIELDS[key]
        place = made
        for folder in folders:
            place = place.setdefault(folder, {})
        try:
            place[last] = convert(value)
        except ValueError:
            raise InvalidArgument(f"{flag}: {key}={value} is not a number") from None
    if "Target" not in made:
        raise InvalidArgument(f"{flag}: say where with target=/path")
    if made["Type"] == "bind" and "Source" not in made:
        raise InvalidArgument(f"{flag}: a bind mount needs source=/path")
    return made
