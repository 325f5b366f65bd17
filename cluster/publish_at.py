"""Where published ports are to be open: on an address, on those of a subnet, or on an interface of each node.

Docker's specification has no place for this, and its clients drop fields that they do not know, so it is said
by service labels: `shoal.publish.8080/tcp`, `shoal.publish.8080`, or `shoal.publish` for all of a service's
ports; the first of these that is there counts. The value lists IPv4 addresses, subnets and interfaces' names.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv4Network

from cluster.errors import InvalidArgument

LABEL = "shoal.publish"

_KEY = re.compile(r"shoal\.publish(?:\.([1-9][0-9]{0,4})(?:/(?:tcp|udp|sctp))?)?")
_INTERFACE = re.compile(r"[a-zA-Z][a-zA-Z0-9_.\-]{0,14}")
_MOST = 32


def places(labels: Mapping[str, str] | None, protocol: str, port: int) -> tuple[str, ...]:
    """Where a port is to be open, in the order of the label; empty: on every address."""
    for key in (f"{LABEL}.{port}/{protocol}", f"{LABEL}.{port}", LABEL):
        if labels and labels.get(key, "").strip():
            return tuple(place for text in labels[key].split(",") if (place := text.strip()))
    return ()


def is_interface(place: str) -> bool:
    """Whether a place is an interface's name, and no address or subnet."""
    return _INTERFACE.fullmatch(place) is not None


def check_publish_labels(labels: Mapping[str, str] | None) -> None:
    """Refuse labels of this kind that mean nothing. Raises InvalidArgument."""
    for key, value in (labels or {}).items():
        if key != LABEL and not key.startswith(f"{LABEL}."):
            continue
        number = _KEY.fullmatch(key)
        if number is None or int(number[1] or 0) > 65535:
            raise InvalidArgument(f"label {key}: write {LABEL}, {LABEL}.PORT or {LABEL}.PORT/PROTOCOL")
        found = [text.strip() for text in value.split(",")]
        if len(found) > _MOST or not all(is_interface(place) or _is_subnet(place) for place in found):
            raise InvalidArgument(
                f"label {key}={value}: list at most {_MOST} IPv4 addresses, subnets or names of interfaces"
            )


def _is_subnet(place: str) -> bool:
    try:
        IPv4Network(place, strict=False)
    except ValueError:
        return False
    return "/" in place or place.count(".") == 3
