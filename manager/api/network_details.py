"""What GET /networks/{id} tells of a cluster network beside its settings: its nodes, and its services."""

from typing import Any

from cluster.dataplane import EndpointRecord, ServiceRecord
from cluster.objects import Network, Node
from manager.dispatcher.dataplane import NetworkRecords, records
from manager.store import View


def details(view: View, network: Network, *, verbose: bool) -> dict[str, Any]:
    """Peers, and with `verbose` the services with their tasks, as dockerd shows them."""
    known = records(view, network.id)
    found: dict[str, Any] = {}
    if peers := _peers(view, network, known):
        found["Peers"] = peers
    if verbose:
        found["Services"] = _services(view, known)
    return found


def _peers(view: View, network: Network, known: NetworkRecords) -> list[dict[str, str]]:
    """The nodes that have the network: every one has the ingress network."""
    there = {endpoint.node_id for endpoint in known.endpoints.values()}
    return [
        {"Name": node.id, "IP": _address(node)}
        for node in sorted(view.all(Node), key=lambda node: node.id)
        if (network.spec.ingress or node.id in there) and _address(node)
    ]


def _services(view: View, known: NetworkRecords) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for service in known.services.values():
        tasks = [each for each in known.endpoints.values() if each.service_id == service.service_id]
        found[service.name] = _service(view, service, tasks)
    alone = [each for each in known.endpoints.values() if not each.service_id]
    if alone:  # dockerd lists containers of no service under an empty name, too
        found[""] = _service(view, None, alone)
    return found


def _service(view: View, service: ServiceRecord | None, tasks: list[EndpointRecord]) -> dict[str, Any]:
    ports = service.ports if service is not None else ()
    return {
        "VIP": _bare(service.vip) if service is not None and service.vip else "<nil>",
        "Ports": [f"Target: {port.target}, Publish: {port.published}" for port in ports],
        "LocalLBIndex": 0,
        "Tasks": [
            {
                "Name": task.task_name,
                "EndpointID": task.task_id,
                "EndpointIP": _bare(task.address),
                "Info": {"Host IP": _address(view.get(Node, task.node_id))},
            }
            for task in sorted(tasks, key=lambda task: task.task_name)
        ],
    }


def _address(node: Node | None) -> str:
    return (node.data_path_address or node.status.address) if node is not None else ""


def _bare(address: str) -> str:
    return address.partition("/")[0]
