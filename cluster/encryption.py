"""Encrypted overlay networks: what the option means, and the address plan of the WireGuard tunnels beneath.

Keys belong to epochs, numbered by the managers for the whole cluster. Each node has one key pair and one
WireGuard device for every epoch in force: one, or two while keys are rotated.
"""

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache

from cluster.errors import InvalidArgument
from cluster.seams import SECOND

OPTION = "encrypted"
"""The driver option of `docker network create --opt encrypted`."""
ROTATION_LABEL = "shoal.encryption.rotation"
"""A network's label: how long its keys are in use, such as 6h or 30m. The shortest of all networks counts."""
DEFAULT_ROTATION = 12 * 3600 * SECOND
SHORTEST_ROTATION = 60 * SECOND

TUNNELS = ipaddress.IPv6Network("fd53:686f:616c::/64")
"""Where the nodes' ends of the tunnels are, within WireGuard: a unique local prefix ("Shoal")."""
OVERHEAD = 80
"""Bytes that WireGuard adds: outer IPv6 40 (20 for IPv4), UDP 8, its header 16 and its tag 16."""
VXLAN_OVERHEAD = 70
"""Bytes that VXLAN adds inside WireGuard: Ethernet 14, IPv6 40, UDP 8, VXLAN 8."""

_YES = frozenset({"", "1", "t", "true"})
_NO = frozenset({"0", "f", "false"})
_SPELT, _ALIKE = (OPTION, "encrypt", "encryption"), 0.8
"""How users might write the option, and how like one of them what they meant is, from 0 to 1."""
_DURATION = re.compile(r"([1-9][0-9]{0,5})(s|m|h|d)")
_UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 24 * 3600 * SECOND}


def is_encrypted(options: Mapping[str, str] | None) -> bool:
    """Whether a network's driver options ask for encryption. What is no clear "no" does."""
    value = (options or {}).get(OPTION)
    return value is not None and value.strip().lower() not in _NO


def rotation(labels: Mapping[str, str] | None) -> int:
    """How long keys are in use, in ns. Raises InvalidArgument for what is no duration, or is too short."""
    text = (labels or {}).get(ROTATION_LABEL, "")
    if not text:
        return DEFAULT_ROTATION
    match = _DURATION.fullmatch(text.strip())
    period = int(match[1]) * _UNITS[match[2]] if match else 0
    if period < SHORTEST_ROTATION:
        raise InvalidArgument(
            f"invalid label {ROTATION_LABEL}={text}: give a duration of at least 1m, such as 6h or 2d"
        )
    return period


def check_encryption(options: Mapping[str, str] | None, labels: Mapping[str, str] | None) -> None:
    """Refuse an option or a label of encryption that is none. Raises InvalidArgument."""
    value = (options or {}).get(OPTION, "")
    if value.strip().lower() not in _YES | _NO:
        raise InvalidArgument(f"invalid option {OPTION}={value}: give it alone, or true or false")
    for key in options or {}:
        if key != OPTION and _meant(key):
            raise InvalidArgument(
                f"unknown option {key}: for an encrypted network write --opt {OPTION}; it would be plain"
            )
    rotation(labels)


def _meant(key: str) -> bool:
    """Whether an option is that of encryption, misspelt: what is unknown is left alone otherwise."""
    return bool(get_close_matches(key.strip().lower().lstrip("-"), _SPELT, 1, _ALIKE))


@lru_cache(4096)
def tunnel_address(node_id: str) -> str:
    """A node's own end of its tunnels: it follows from the node's id, so nobody hands it out."""
    digest = hashlib.blake2b(node_id.encode(), digest_size=8).digest()
    return str(TUNNELS.network_address + int.from_bytes(digest, "big"))


def tunnel_port(data_path_port: int, epoch: int) -> int:
    """The UDP port of an epoch's WireGuard device: one of the two below VXLAN's, in turns."""
    return data_path_port - 2 + epoch % 2
