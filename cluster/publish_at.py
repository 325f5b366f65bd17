"""Where published ports are to be open, and whom of a service's tasks they lead to.

Docker's specification has no place for this, and its clients drop fields that they do not know, so it is said
by service labels: `shoal.publish.8080/tcp`, `shoal.publish.8080`, or `shoal.publish` for all of a service's
ports; the first of these that is there counts. The value lists addresses and subnets, of IPv4 or IPv6, and
names of interfaces. `shoal.publish.policy`, also with `.8080/tcp` or `.8080` at its end, says which tasks get
a connection that came to a node: what Kubernetes calls the external traffic policy. With the same ends,
`shoal.publish.proxy-protocol` has the container told of a TCP client by a header of that version (v1, v2).
"""

import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from ipaddress import ip_network

from cluster.errors import InvalidArgument

LABEL = "shoal.publish"
POLICY_LABEL = "shoal.publish.policy"
PROXY_LABEL = "shoal.publish.proxy-protocol"
PROXY_VERSIONS = ("v1", "v2")

_KEY = re.compile(
    r"shoal\.publish(?P<kind>\.policy|\.proxy-protocol)?(?:\.(?P<port>[1-9][0-9]{0,4})(?:/(?P<protocol>tcp|udp|sctp))?)?"
)
_INTERFACE = re.compile(r"[a-zA-Z][a-zA-Z0-9_.\-]{0,14}")
_MOST = 32


class Policy(StrEnum):
    """Which of a service's tasks a connection goes to, seen from the node that it came to."""

    ANY = ""  # each in turn, wherever it runs
    LOCAL_FIRST = "local-first"  # those of this node; the others if it has none
    LOCAL = "local"  # those of this node only


def places(labels: Mapping[str, str] | None, protocol: str, port: int) -> tuple[str, ...]:
    """Where a port is to be open, in the order of the label; empty: on every address."""
    return tuple(place for text in _said(labels, LABEL, protocol, port).split(",") if (place := text.strip()))


def policy(labels: Mapping[str, str] | None, protocol: str, port: int) -> Policy:
    """Whom a port leads to. One that nobody knows means any: it was checked before it was stored."""
    said = _said(labels, POLICY_LABEL, protocol, port)
    return Policy(said) if said in set(Policy) else Policy.ANY


def proxy_protocol(labels: Mapping[str, str] | None, protocol: str, port: int) -> str:
    """By which version of the PROXY protocol a TCP port's container is told of its clients; "" by none."""
    said = _said(labels, PROXY_LABEL, protocol, port) if protocol == "tcp" else ""
    return said if said in PROXY_VERSIONS else ""


def _said(labels: Mapping[str, str] | None, label: str, protocol: str, port: int) -> str:
    """What the most special label says that is there and not empty."""
    keys = (f"{label}.{port}/{protocol}", f"{label}.{port}", label)
    return next((text for key in keys if (text := (labels or {}).get(key, "").strip())), "")


def version(place: str) -> int:
    """Of an address or subnet: 4 or 6. Raises ValueError."""
    return ip_network(place, strict=False).version


def is_interface(place: str) -> bool:
    """Whether a place is an interface's name, and no address or subnet."""
    return _INTERFACE.fullmatch(place) is not None


def check_publish_labels(labels: Mapping[str, str] | None) -> None:
    """Refuse labels of this kind that mean nothing. Raises InvalidArgument."""
    for key, value in (labels or {}).items():
        if key != LABEL and not key.startswith(f"{LABEL}."):
            continue
        match = _KEY.fullmatch(key)
        if match is None or int(match["port"] or 0) > 65535:
            raise InvalidArgument(
                f"label {key}: write {LABEL}, {LABEL}.PORT or {LABEL}.PORT/PROTOCOL, "
                f"or the same with {POLICY_LABEL} or {PROXY_LABEL}"
            )
        if match["kind"] == ".policy":
            _check_policy(key, value)
        elif match["kind"]:
            _check_proxy(key, value)
        else:
            _check_places(key, value)


def check_ports_published(
    labels: Mapping[str, str] | None, known: Mapping[str, str] | None, published: Collection[tuple[str, int]]
) -> None:
    """Refuse new labels for a port that is none of those that the service publishes, (protocol, number).

    Those in `known` were there before: one may be left when its port goes. A number of 0 is chosen later, so
    it may be any. Raises InvalidArgument.
    """
    if any(number == 0 for _, number in published):
        return
    for key in sorted((labels or {}).keys() - (known or {}).keys()):
        match = _KEY.fullmatch(key)
        if match is None or match["port"] is None:
            continue
        port, protocol = int(match["port"]), match["protocol"]
        if not any(number == port and protocol in (None, each) for each, number in published):
            there = ", ".join(
                f"{number}/{each}" for each, number in sorted(published, key=lambda one: one[1])
            )
            raise InvalidArgument(
                f"label {key}: the service does not publish this port (it publishes {there or 'none'})"
            )


def _check_policy(key: str, value: str) -> None:
    if value.strip() not in set(Policy):
        raise InvalidArgument(f"label {key}={value}: write {Policy.LOCAL_FIRST} or {Policy.LOCAL}")


def _check_proxy(key: str, value: str) -> None:
    if value.strip() not in ("", *PROXY_VERSIONS):
        raise InvalidArgument(f"label {key}={value}: write {' or '.join(PROXY_VERSIONS)}")


def _check_places(key: str, value: str) -> None:
    found = [text.strip() for text in value.split(",")]
    if len(found) > _MOST or not all(is_interface(place) or _is_subnet(place) for place in found):
        raise InvalidArgument(
            f"label {key}={value}: list at most {_MOST} IP addresses, subnets or names of interfaces"
        )


def _is_subnet(place: str) -> bool:
    address, slash, length = place.partition("/")
    if slash and not (length.isascii() and length.isdigit()):
        return False  # a mask, which nft does not read
    try:
        version(place)
    except ValueError:
        return False
    # The zone of an address ("fe80::1%eth0") may be any text, and nodes write places into their rules.
    return "%" not in place and (bool(slash) or address.count(".") == 3 or ":" in address)
