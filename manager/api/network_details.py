"""What GET /networks/{id} tells of a cluster network beside its settings: its nodes, and its services."""

from typing import Any

from cluster.network_details import services_json
from cluster.objects import Network, Node, Task
from manager.api.network_encryption import encryption_details
from manager.dispatcher.dataplane import NetworkRecords, records
from manager.store import View


def details(view: View, network: Network, *, verbose: bool) -> dict[str, Any]:
    """Peers, and with `verbose` the services with their tasks, as dockerd shows them."""
    known = records(view, network.id)
    found: dict[str, Any] = {}
    if peers := _peers(view, network, known):
        found["Peers"] = peers
    if network.encrypted:
        found["Encryption"] = encryption_details(view)
    if verbose:
        found["Services"] = services_json(
            known.services.values(),
            known.endpoints.values(),
            lambda node_id: _address(view.get(Node, node_id)),
            lambda task_id: _container(view, task_id),
        )
    return found


def _peers(view: View, network: Network, known: NetworkRecords) -> list[dict[str, str]]:
    """The nodes that have the network: every one has the ingress network."""
    there = {endpoint.node_id for endpoint in known.endpoints.values()}
    return [
        {"Name": node.id, "IP": _address(node)}
        for node in sorted(view.all(Node), key=lambda node: node.id)
        if (network.spec.ingress or node.id in there) and _address(node)
    ]


def _container(view: View, task_id: str) -> str:
    task = view.get(Task, task_id)
    if task is None:  # a container of no service: its place is noted under its own id
        return task_id
    return task.status.container.container_id if task.status.container is not None else ""


def _address(node: Node | None) -> str:
    return (node.data_path_address or node.status.address) if node is not None else ""
