"""Why a node takes a task or refuses it, in a sentence: the filters again, with figures. Pure."""

from dataclasses import dataclass
from functools import cached_property

from cluster.errors import InvalidArgument
from cluster.objects import Network, Node, Task
from cluster.states import NodeState
from manager.scheduler import constraint, filters
from manager.scheduler.filters import Requirements, refusal
from manager.scheduler.nodes import NodeInfo, NodeTable
from manager.store import View

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class NodeVerdict:
    """What one node says to one task. `filter` names what refuses it, "" when it fits."""

    node_id: str
    hostname: str
    filter: str
    reason: str


class Nodes:
    """All nodes with what is on them, put together at the first question; for one view's questions."""

    def __init__(self, view: View) -> None:
        self._view = view

    @cached_property
    def _table(self) -> NodeTable:
        view = self._view
        return NodeTable(view.all(Node), view.all(Task), view.all(Network))

    def verdicts(self, task: Task) -> list[NodeVerdict]:
        """Every node's verdict on a waiting task, by hostname; of one made for a node, only that node's."""
        table = self._table
        wanted = [info for info in table if task.node_id in ("", info.node.id)]
        try:
            needs = Requirements.of(task, table.drivers, table.encrypted)
        except InvalidArgument as error:
            return [_verdict(info, "constraints", str(error)) for info in wanted]
        found = []
        for info in wanted:
            refused = refusal(info, needs)
            if refused is None:
                found.append(_verdict(info, "", "it fits"))
            else:
                name = next(iter(filters.names({refused: 1})))
                found.append(_verdict(info, name, _reason(info, needs, refused)))
        return sorted(found, key=lambda verdict: (verdict.hostname, verdict.node_id))


def _verdict(info: NodeInfo, filter: str, reason: str) -> NodeVerdict:
    return NodeVerdict(info.node.id, info.node.description.hostname or info.node.id, filter, reason)


def _reason(info: NodeInfo, needs: Requirements, refused: int) -> str:
    match refused:
        case filters.READY:
            return _unavailable(info.node)
        case filters.RESOURCES:
            return _short_of(info, needs)
        case filters.PLUGINS:
            have = info.node.description.engine.plugins
            missing = ", ".join(f"{kind.lower()} {name}" for kind, name in sorted(needs.plugins - set(have)))
            return f"it lacks the driver for {missing}"
        case filters.ENCRYPTION:
            return f"it can't encrypt networks: {filters.unencrypted(info.node)}"
        case filters.CONSTRAINTS:
            return "; ".join(
                _unmet(each, info.node) for each in needs.constraints if not each.matches(info.node)
            )
        case filters.PLATFORM:
            platform = info.node.description.platform
            wanted = ", ".join(f"{each.os or 'any'}/{each.architecture or 'any'}" for each in needs.platforms)
            return f"it is {platform.os}/{platform.architecture}; the image is for {wanted}"
        case filters.HOST_PORTS:
            taken = sorted(
                f"{port}/{protocol}" for protocol, port in needs.ports if info.ports[(protocol, port)]
            )
            return f"its port {', '.join(taken)} is in use by another task"
    running = info.active_by_service[needs.service_id]
    return (
        f"it has {running} of the service's tasks, and {needs.max_replicas} is the most that a node may have"
    )


def _unavailable(node: Node) -> str:
    if node.status.state is not NodeState.READY:
        return f"it is {node.status.state.value}" + (
            f" ({node.status.message})" if node.status.message else ""
        )
    return f"its availability is {node.spec.availability.value}"


def _short_of(info: NodeInfo, needs: Requirements) -> str:
    short = []
    if needs.nano_cpus > info.free_cpus:
        total = info.node.description.resources.nano_cpus
        short.append(
            f"{_cores(needs.nano_cpus)} processors are reserved by the task, "
            f"{_cores(max(0, info.free_cpus))} of its {_cores(total)} are free"
        )
    if needs.memory_bytes > info.free_memory:
        total = info.node.description.resources.memory_bytes
        short.append(
            f"{_mebibytes(needs.memory_bytes)} of memory are reserved by the task, "
            f"{_mebibytes(max(0, info.free_memory))} of its {_mebibytes(total)} are free"
        )
    for kind, amount in needs.generic.items():
        if amount > info.free_generic(kind):
            short.append(f"{amount} of {kind} are asked for, {max(0, info.free_generic(kind))} are free")
    if needs.named and not short:
        wanted = ", ".join(f"{kind}={name}" for kind, name in sorted(needs.named))
        short.append(f"{wanted} is asked for, and it has no such one that is free")
    return "; ".join(short)


def _cores(nano_cpus: int) -> str:
    return f"{nano_cpus / 10**9:g}"


def _mebibytes(count: int) -> str:
    return f"{count / _MIB:.0f} MiB"


def _unmet(condition: constraint.Constraint, node: Node) -> str:
    key = condition.key.lower()
    actual = node.status.address if key == "node.ip" else constraint.attribute(node, condition.key)
    if actual is None:
        return f"{condition}: there is no such key"
    return f"{condition} is asked for, and its {condition.key} is {actual or 'not set'}"


_ADVICE = {
    "ready": "Bring nodes back: `docker node ls` shows their state, and "
    "`docker node update --availability active NODE` lets one take tasks.",
    "resources": "Add a node, free some by scaling or removing services, or lower the service's reservations "
    "(`docker service update --reserve-cpu … --reserve-memory …`).",
    "plugins": "Use drivers that the nodes have.",
    "encryption": "Give nodes WireGuard (`modprobe wireguard`, or install wireguard-go): `shoal doctor`.",
    "constraints": "Label a node (`docker node update --label-add KEY=VALUE NODE`), or take the constraint "
    "away (`docker service update --constraint-rm CONSTRAINT SERVICE`).",
    "platform": "Use an image for the nodes' platform, or add a node that the image is for.",
    "host-ports": "Publish another port, use the routing mesh (`mode=ingress`), or run no more tasks than "
    "there are nodes.",
    "max-replicas": "Add a node, scale the service down, or raise `--replicas-max-per-node`.",
}


def advice(found: list[NodeVerdict]) -> list[str]:
    """What to do so that a task fits: a sentence for each filter that refuses nodes, the commonest first."""
    counts: dict[str, int] = {}
    for verdict in found:
        if verdict.filter:
            counts[verdict.filter] = counts.get(verdict.filter, 0) + 1
    if not found:
        return ["Join a node to the cluster (`docker swarm join-token worker`)."]
    return [_ADVICE[name] for name in sorted(counts, key=lambda name: (-counts[name], name))]
