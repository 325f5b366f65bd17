"""/networks of swarm scope: create, list, inspect, delete. Node-local networks are the node daemon's."""

from aiohttp import web

from cluster.engine_json import network_json
from cluster.errors import Conflict, Forbidden, InvalidArgument
from cluster.ids import new_id
from cluster.objects import Network, Node, Service
from cluster.spec import NetworkSpec
from cluster.states import TaskState
from cluster.validate import check_network
from cluster.validate_ipam import check_nodes_apart, check_subnets_free
from manager.api.access import ACCESS
from manager.api.filters import Filters, parse_filters
from manager.api.lookup import find_network
from manager.api.network_details import details
from manager.api.network_encryption import prepare_encryption
from manager.api.reads import state
from manager.api.request import answer, body, flag
from manager.store import Transaction, View

_FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})


async def list_networks(request: web.Request) -> web.Response:
    """GET /networks: the swarm-scoped ones."""
    filters = parse_filters(request, _FILTERS)
    filters.words("type", ("custom", "builtin"))
    dangling = filters.boolean("dangling")
    view = await state(request)
    return answer([network_json(n) for n in view.all(Network) if _listed(view, n, filters, dangling)])


def _listed(view: View, network: Network, filters: Filters, dangling: bool | None) -> bool:
    return (
        not network.predefined
        and filters.exact("driver", network.driver)
        and filters.pattern("id", network.id)
        and filters.exact_labels(network.spec.labels)
        and filters.pattern("name", network.spec.name)
        and filters.exact("scope", "swarm")
        and filters.exact("type", "custom")
        and (dangling is None or dangling == (user_of(view, network) is None))
    )


async def inspect_network(request: web.Request) -> web.Response:
    """GET /networks/{id}."""
    verbose = flag(request, "verbose")
    view = await state(request)
    network = find_network(view, request.match_info["id"])
    return answer({**network_json(network), **details(view, network, verbose=verbose)})


async def create_network(request: web.Request) -> web.Response:
    """POST /networks/create with a swarm-scoped driver. Subnets are allocated by the allocator."""
    access = request.app[ACCESS]
    spec = await body(request, NetworkSpec)
    check_network(spec)
    id = new_id(access.rng)

    def create(tx: Transaction) -> None:
        if tx.by_name(Network, spec.name) is not None:
            raise Conflict(f"network with name {spec.name} already exists")
        if spec.ingress and (other := next((n for n in tx.all(Network) if n.spec.ingress), None)):
            raise Conflict(f"ingress network ({other.spec.name}) is already present")
        check_subnets_free(spec, tx.all(Network))
        check_nodes_apart(spec, tx.all(Node))
        network = Network(id=id, spec=spec, driver=spec.driver or "overlay")
        if network.encrypted:
            prepare_encryption(tx, access.clock.now())
        tx.create(network)

    await access.store.update_retrying(create)
    return answer({"Id": id, "Warning": ""}, status=201)


async def delete_network(request: web.Request) -> web.Response:
    """DELETE /networks/{id}; refused while a service or task uses it."""
    access = request.app[ACCESS]
    what = request.match_info["id"]

    def delete(tx: Transaction) -> None:
        network = find_network(tx, what)
        if network.predefined:
            raise Forbidden(f"{network.spec.name} is a pre-defined network and cannot be removed")
        if (user := user_of(tx, network)) is not None:
            raise InvalidArgument(f"network {network.spec.name} is in use by {user}: remove that first")
        tx.delete(Network, network.id)

    await access.store.update_retrying(delete)
    return web.Response(status=204)


def user_of(view: View, network: Network) -> str | None:
    """A service or running task that uses the network, in words; None when nothing does."""
    if network.spec.ingress:
        for service in view.all(Service):
            ports = (service.spec.endpoint_spec.ports if service.spec.endpoint_spec else None) or ()
            if any(port.publish_mode == "ingress" for port in ports):
                return f"service {service.spec.name}, which publishes ports"
        return None
    services = view.services_using(network.id) or view.services_using(network.spec.name)
    if services:
        return f"service {services[0].spec.name}"
    for task in view.tasks_using(network.id):
        if task.service_id and view.get(Service, task.service_id) is None:
            continue  # it is on its way out: a stack is removed and deployed again at once
        if not task.desired_state.stops and task.status.state <= TaskState.RUNNING:
            return f"task {task.id}"
    for node in view.all(Node):
        for container in node.containers:
            if container.network_id == network.id:
                return f"container {container.name} on node {node.description.hostname}"
    return None
