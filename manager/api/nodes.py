"""/nodes: list, inspect, update (labels, availability, promote and demote), remove."""

from aiohttp import web
from msgspec.structs import replace

from cluster.codec import carried
from cluster.engine_json import node_json
from cluster.errors import InvalidArgument, OutOfSequence
from cluster.objects import Node
from cluster.spec import NodeSpec
from cluster.states import NodeState, Role
from cluster.validate import check_labels, check_values
from manager.api.access import ACCESS, Managers, cluster_of
from manager.api.filters import parse_filters
from manager.api.lookup import find_node
from manager.api.quorum import check_quorum_without
from manager.api.reads import read
from manager.api.request import answer, body, flag, version
from manager.store import Transaction, View

_FILTERS = frozenset({"id", "label", "membership", "name", "node.label", "role"})


async def list_nodes(request: web.Request) -> web.Response:
    """GET /nodes."""
    filters = parse_filters(request, _FILTERS)
    roles = filters.words("role", [role.value for role in Role])
    memberships = filters.words("membership", ("accepted", "pending"))
    found = await read(request)
    nodes = [
        node
        for node in found.view.all(Node)
        if filters.prefix("id", node.id)
        and filters.prefix("name", node.description.hostname, node.spec.name)
        and filters.labels(node.description.engine.labels)
        and filters.labels(node.spec.labels, "node.label")
        and (not roles or node.role.value in roles)
        and (not memberships or "accepted" in memberships)
    ]
    return answer([described(node, found.managers) for node in nodes])


async def inspect_node(request: web.Request) -> web.Response:
    """GET /nodes/{id}."""
    found = await read(request)
    return answer(described(find_node(found.view, request.match_info["id"]), found.managers))


def described(node: Node, managers: Managers) -> dict[str, object]:
    """The node with its leadership and reachability."""
    reachability = (
        "reachable" if node.id in managers.reachable else ("unreachable" if managers.known else "unknown")
    )
    return node_json(node, leader=node.id == managers.leader, reachability=reachability)


async def update_node(request: web.Request) -> web.Response:
    """POST /nodes/{id}/update. A changed role is carried out by the role manager."""
    access = request.app[ACCESS]
    index = version(request, "node")
    spec = await body(request, NodeSpec)
    check_values(spec)
    check_labels(spec.labels)
    what = request.match_info["id"]

    def check(view: View) -> tuple[Node, bool]:
        """The node as it is, and whether it is to be a manager no more."""
        node = find_node(view, what)
        if node.version != index:
            raise OutOfSequence()
        demoted = spec.role is Role.WORKER and node.spec.role is Role.MANAGER
        if demoted:
            check_not_the_last(view, node)
        return node, demoted

    async def managers() -> Managers:
        return (await access.confirmed_read()).managers

    present, demoted = check(await access.confirmed())
    if demoted:
        await check_quorum_without(present.id, managers, access.clock)

    def update(tx: Transaction) -> None:
        node, _ = check(tx)
        tx.update(replace(node, spec=carried(node.spec, replace(spec, labels=spec.labels or {}))))

    await access.store.update(update)
    return web.Response()


def check_not_the_last(view: View, node: Node) -> None:
    """Refuse to demote the last manager."""
    if not any(n.spec.role is Role.MANAGER and n.id != node.id for n in view.all(Node)):
        raise InvalidArgument(
            "attempting to demote the last manager of the swarm: promote another node first (docker node "
            "promote), or end the swarm (docker swarm leave --force)"
        )


async def delete_node(request: web.Request) -> web.Response:
    """DELETE /nodes/{id}: its certificate is no longer honoured."""
    access = request.app[ACCESS]
    what = request.match_info["id"]
    force = flag(request, "force")

    def delete(tx: Transaction) -> None:
        node = find_node(tx, what)
        if node.role is Role.MANAGER or node.spec.role is Role.MANAGER:
            raise InvalidArgument(
                f"node {node.id} is a cluster manager and is a member of the raft cluster. "
                "It must be demoted to worker before removal"
            )
        if not force and node.status.state is NodeState.READY:
            raise InvalidArgument(
                f"node {node.id} is not down and can't be removed: "
                "let it leave the swarm first, or force the removal"
            )
        cluster = cluster_of(tx)
        tx.update(replace(cluster, removed_nodes=(*cluster.removed_nodes, node.id)))
        tx.delete(Node, node.id)

    await access.store.update_retrying(delete)
    return web.Response()
