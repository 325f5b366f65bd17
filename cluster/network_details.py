"""What `docker network inspect --verbose` tells of a cluster network: its services, and their tasks."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from cluster.dataplane import EndpointRecord, ServiceRecord


def endpoint_id(container_id: str, network_id: str) -> str:
    """The id of a container's place in a network; the same wherever it is shown."""
    return hashlib.sha256(f"endpoint:{container_id}:{network_id}".encode()).hexdigest()


def services_json(
    services: Iterable[ServiceRecord],
    endpoints: Iterable[EndpointRecord],
    host_of: Callable[[str], str],
    container_of: Callable[[str], str],
) -> dict[str, Any]:
    """The services by name; containers of no service under an empty one, as dockerd lists them.

    Args: host_of: a node's address by its id; container_of: a task's container by the task's id, "" if it has
    none yet.
    """
    tasks: dict[str, list[EndpointRecord]] = {}
    for endpoint in endpoints:
        tasks.setdefault(endpoint.service_id, []).append(endpoint)

    def shown(service: ServiceRecord | None, found: Iterable[EndpointRecord]) -> dict[str, Any]:
        ports = service.ports if service is not None else ()
        return {
            "VIP": _bare(service.vip) if service is not None and service.vip else "<nil>",
            "Ports": [f"Target: {port.target}, Publish: {port.published}" for port in ports],
            # dockerd tells the firewall mark of the service's IPVS entry, which Shoal has not.
            "LocalLBIndex": 0,
            "Tasks": [
                {
                    "Name": task.task_name,
                    "EndpointID": endpoint_id(container_of(task.task_id) or task.task_id, task.network_id),
                    "EndpointIP": _bare(task.address),
                    "Info": {"Host IP": host_of(task.node_id)},
                }
                for task in sorted(found, key=lambda task: task.task_name)
            ],
        }

    told = {each.name: shown(each, tasks.get(each.service_id, ())) for each in services}
    if "" in tasks:
        told[""] = shown(None, tasks[""])
    return told


def _bare(address: str) -> str:
    return address.partition("/")[0]
