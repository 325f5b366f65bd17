"""Placement constraints: `node.labels.disk==ssd`, `node.role!=manager`, as SwarmKit reads them.

Key names compare without regard to case, except the label's own name; values compare without regard to
case. A node without the label has the value "". `node.ip` takes an address or a CIDR, `node.platform.arch`
both the kernel's words (x86_64) and images' (amd64).
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cluster.errors import InvalidArgument
from cluster.objects import Node

_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
NODE_LABELS = "node.labels."
ENGINE_LABELS = "engine.labels."
_OPERATORS = ("==", "!=")
_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+", re.IGNORECASE)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Constraint:
    """One condition on a node: the attribute `key` equals `value`, or does not."""

    key: str
    equal: bool
    value: str

    def __str__(self) -> str:
        return f"{self.key}{'==' if self.equal else '!='}{self.value}"

    def matches(self, node: Node) -> bool:
        """Whether the node satisfies it. An unknown key is satisfied by no node."""
        if self.key.lower() == "node.ip":
            return self._matches_address(node.status.address)
        actual = attribute(node, self.key)
        if actual is None:
            return False
        same = actual.casefold() == self.value.casefold()
        if not same and self.key.lower() == "node.platform.arch":
            same = architecture(actual) == architecture(self.value)
        return same is self.equal

    def _matches_address(self, address: str) -> bool:
        try:
            inside = ipaddress.ip_address(address) in ipaddress.ip_network(self.value, strict=False)
        except ValueError:
            return False
        return inside is self.equal


def architecture(name: str) -> str:
    """An architecture in Go's words (amd64), which images are named by; nodes use the kernel's (x86_64)."""
    return _GO_NAMES.get(name.lower(), name.lower())


def attribute(node: Node, key: str) -> str | None:
    """The node's value of a constraint key other than `node.ip`; None when there is no such key."""
    lowered = key.lower()
    if lowered.startswith(NODE_LABELS):
        return (node.spec.labels or {}).get(key[len(NODE_LABELS) :], "")
    if lowered.startswith(ENGINE_LABELS):
        return node.description.engine.labels.get(key[len(ENGINE_LABELS) :], "")
    match lowered:
        case "node.id":
            return node.id
        case "node.hostname":
            return node.description.hostname
        case "node.role":
            return node.role.value
        case "node.platform.os":
            return node.description.platform.os
        case "node.platform.arch":
            return node.description.platform.architecture
    return None


def parse(expressions: Iterable[str]) -> tuple[Constraint, ...]:
    """The constraints in the user's words. Raises InvalidArgument, naming the one that is wrong."""
    return tuple(_parse(expression) for expression in expressions)


def _parse(expression: str) -> Constraint:
    for operator in _OPERATORS:
        key, found, value = expression.partition(operator)
        if not found:
            continue
        key, value = key.strip(), value.strip()
        if not _KEY.fullmatch(key):
            raise InvalidArgument(f"invalid constraint {expression!r}: key '{key}' is invalid")
        if not _VALUE.fullmatch(value):
            raise InvalidArgument(f"invalid constraint {expression!r}: value '{value}' is invalid")
        return Constraint(key, operator == "==", value)
    raise InvalidArgument(f"invalid constraint {expression!r}: expected one operator from ==, !=")


def matches(constraints: Iterable[Constraint], node: Node) -> bool:
    """Whether the node satisfies all of them."""
    return all(constraint.matches(node) for constraint in constraints)
