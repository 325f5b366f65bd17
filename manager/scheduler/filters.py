"""The conditions that a node must meet for a task, in SwarmKit's order, each with its words for the user."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from textwrap import shorten

from cluster.objects import Node, Task
from cluster.spec import Platform
from cluster.states import Availability, NodeState
from manager.scheduler import constraint
from manager.scheduler.nodes import HostPort, NodeInfo, generic_amounts, host_ports, reservations

READY, RESOURCES, PLUGINS, ENCRYPTION, CONSTRAINTS, PLATFORM, HOST_PORTS, MAX_REPLICAS = range(8)

_NAMES = (
    "ready",
    "resources",
    "plugins",
    "encryption",
    "constraints",
    "platform",
    "host-ports",
    "max-replicas",
)
_WORDS = {
    READY: ("1 node not available for new tasks", "{} nodes not available for new tasks"),
    RESOURCES: ("insufficient resources on 1 node", "insufficient resources on {} nodes"),
    PLUGINS: ("missing plugin on 1 node", "missing plugin on {} nodes"),
    ENCRYPTION: ("encrypted networks not possible on 1 node", "encrypted networks not possible on {} nodes"),
    CONSTRAINTS: (
        "scheduling constraints not satisfied on 1 node",
        "scheduling constraints not satisfied on {} nodes",
    ),
    PLATFORM: ("unsupported platform on 1 node", "unsupported platform on {} nodes"),
    HOST_PORTS: ("host-mode port already in use on 1 node", "host-mode port already in use on {} nodes"),
    MAX_REPLICAS: ("max replicas per node limit exceed", "max replicas per node limit exceed"),
}
_MOST_TROUBLES, _LONGEST_TROUBLE = 2, 160
"""How much of what nodes say is in a task's error, and how long each may be."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What every task of a group asks of a node."""

    service_id: str
    nano_cpus: int
    memory_bytes: int
    generic: Mapping[str, int]
    named: frozenset[tuple[str, str]]
    plugins: frozenset[tuple[str, str]]
    encryption: bool
    constraints: tuple[constraint.Constraint, ...]
    platforms: tuple[Platform, ...]
    ports: frozenset[HostPort]
    max_replicas: int

    @classmethod
    def of(cls, task: Task, drivers: Mapping[str, str], encrypted: Collection[str] = ()) -> "Requirements":
        """The requirements of a task; `drivers` says what driver each network has, `encrypted` names the
        networks whose nodes must be able to encrypt.

        Raises InvalidArgument when a constraint can't be read.
        """
        reserved = reservations(task)
        placement = task.spec.placement
        return cls(
            service_id=task.service_id,
            nano_cpus=reserved.nano_cpus,
            memory_bytes=reserved.memory_bytes,
            generic=generic_amounts(reserved.generic_resources or ()),
            named=frozenset(
                (named.kind, named.value)
                for resource in reserved.generic_resources or ()
                if (named := resource.named_resource_spec) is not None
            ),
            plugins=frozenset(_plugins(task, drivers)),
            encryption=any(attachment.network_id in encrypted for attachment in task.networks),
            constraints=constraint.parse(placement.constraints or ()) if placement else (),
            platforms=tuple(placement.platforms or ()) if placement else (),
            ports=host_ports(task),
            max_replicas=placement.max_replicas if placement else 0,
        )


def _plugins(task: Task, drivers: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    for attachment in task.networks:
        if attachment.network_id in drivers:
            yield "Network", drivers[attachment.network_id]
    container = task.spec.container_spec
    for mount in (container.mounts if container else None) or ():
        driver = mount.volume_options.driver_config if mount.volume_options else None
        if driver is not None and driver.name:
            yield "Volume", driver.name
    if task.spec.log_driver is not None and task.spec.log_driver.name not in ("", "none"):
        yield "Log", task.spec.log_driver.name


def names(refusals: Mapping[int, int]) -> dict[str, int]:
    """Refusals by the filter's name, for logs."""
    return {_NAMES[filter]: nodes for filter, nodes in refusals.items()}


def refusal(info: NodeInfo, needs: Requirements, already: int = 0) -> int | None:
    """The first filter that refuses one more task on the node, on which `already` tasks of the same group are
    being placed; None when the node is suitable."""
    node = info.node
    if node.status.state is not NodeState.READY or node.spec.availability is not Availability.ACTIVE:
        return READY
    if not _resources_suffice(info, needs, already):
        return RESOURCES
    if not _plugins_present(info, needs.plugins):
        return PLUGINS
    if needs.encryption and not node.description.encryption.works:
        return ENCRYPTION
    if not constraint.matches(needs.constraints, node):
        return CONSTRAINTS
    if needs.platforms and not any(_runs(node.description.platform, wanted) for wanted in needs.platforms):
        return PLATFORM
    if needs.ports and (already or any(info.ports[port] > 0 for port in needs.ports)):
        return HOST_PORTS
    if needs.max_replicas and info.active_by_service[needs.service_id] + already >= needs.max_replicas:
        return MAX_REPLICAS
    return None


def _resources_suffice(info: NodeInfo, needs: Requirements, already: int) -> bool:
    count = already + 1
    return (
        (not needs.nano_cpus or needs.nano_cpus * count <= info.free_cpus)
        and (not needs.memory_bytes or needs.memory_bytes * count <= info.free_memory)
        and all(amount * count <= info.free_generic(kind) for kind, amount in needs.generic.items())
        and (not needs.named or (not already and names_free(info, needs.named)))
    )


def names_free(info: NodeInfo, named: Iterable[tuple[str, str]]) -> bool:
    """Whether the node has these generic resources, (kind, name), and no task has them."""
    return all(name in info.free_names(kind) for kind, name in named)


def _plugins_present(info: NodeInfo, plugins: Iterable[tuple[str, str]]) -> bool:
    """A node that names no plugin of a kind has those built in."""
    offered = info.node.description.engine.plugins
    kinds = {kind for kind, _ in offered}
    return all(plugin in offered for plugin in plugins if plugin[0] in kinds)


def _runs(node: Platform, wanted: Platform) -> bool:
    return (not wanted.os or wanted.os.lower() == node.os.lower()) and (
        not wanted.architecture or _architecture(wanted) == _architecture(node)
    )


def _architecture(platform: Platform) -> str:
    return constraint.architecture(platform.architecture)


def unencrypted(node: Node) -> str:
    """Why the node can't encrypt networks."""
    return node.description.encryption.trouble or "its version of Shoal knows no encryption"


def explain(refusals: Mapping[int, int], troubles: Collection[str] = ()) -> str:
    """Why no node is suitable, in Swarm's words: the commonest reason first, then in filter order.

    `troubles`: what nodes that can't encrypt say of it.
    """
    reasons = sorted(Counter(refusals).items(), key=lambda item: (-item[1], item[0]))
    words = [
        _WORDS[filter][0 if nodes == 1 else 1].format(nodes)
        + (_why(troubles) if filter == ENCRYPTION else "")
        for filter, nodes in reasons
        if nodes
    ]
    return f"no suitable node ({'; '.join(words)})" if words else "no suitable node"


def _why(troubles: Collection[str]) -> str:
    said = [shorten(trouble, _LONGEST_TROUBLE, placeholder=" …") for trouble in sorted(troubles)]
    return f": {', and '.join(said[:_MOST_TROUBLES])}" if said else ""
