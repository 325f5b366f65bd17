"""The filters of lists and prunes of networks, with dockerd's rules and words."""

from collections.abc import Mapping
from typing import Any

from cluster.errors import InvalidArgument
from cluster.pattern import compiled
from netplane.model import LocalNetwork
from shoal.daemon.networks_json import network_json
from worker.api.http import boolean_filter
from worker.api.prune_filters import labels_pass

FILTERS = {"dangling", "driver", "id", "label", "name", "scope", "type"}
PRUNE_FILTERS = {"label", "label!", "until"}
_TYPES = ("builtin", "custom")


def check_filters(wanted: Mapping[str, list[str]]) -> None:
    """Raise InvalidArgument for values that can't be meant."""
    for value in wanted.get("type", ()):
        if value not in _TYPES:
            raise InvalidArgument(f"invalid filter: 'type'='{value}'")
    boolean_filter(wanted, "dangling")
    for key in ("name", "id"):
        for value in wanted.get(key, ()):
            compiled(value)


def listed(network: LocalNetwork, wanted: Mapping[str, list[str]], *, in_use: bool) -> bool:
    """Whether a local network passes."""
    return kept(
        network_json(network), wanted, in_use=in_use or network.predefined, builtin=network.predefined
    )


def kept(
    network: Mapping[str, Any], wanted: Mapping[str, list[str]], *, in_use: bool, builtin: bool = False
) -> bool:
    """Whether a network, in the Engine API's JSON, passes. Predefined networks are never dangling."""
    dangling = boolean_filter(wanted, "dangling")
    return (
        _one_of(wanted, "driver", network["Driver"])
        and _one_of(wanted, "scope", network["Scope"])
        and _one_of(wanted, "type", "builtin" if builtin else "custom")
        and _found(wanted, "id", network["Id"])
        and _found(wanted, "name", network["Name"])
        and labels_pass(network["Labels"], wanted)
        and (dangling is None or dangling != in_use)
    )


def _one_of(wanted: Mapping[str, list[str]], key: str, value: str) -> bool:
    return not wanted.get(key) or value in wanted[key]


def _found(wanted: Mapping[str, list[str]], key: str, value: str) -> bool:
    values = wanted.get(key, [])
    return not values or any(each == value or compiled(each).search(value) for each in values)
