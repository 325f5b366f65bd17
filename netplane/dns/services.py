"""Service records of one network (RFC 2782): behind which names and ports its services are. Pure."""

from collections.abc import Callable, Iterable, Mapping

from cluster.dataplane import EndpointRecord, PublishedPort, ServiceRecord

Ports = Mapping[str, tuple[PublishedPort, ...]]
"""The published ports of services, by service id."""


def build_services(
    network: str,
    services: Iterable[ServiceRecord],
    endpoints: Iterable[EndpointRecord],
    ports: Ports,
    takes: Callable[[EndpointRecord], bool],
) -> dict[bytes, tuple[tuple[int, str], ...]]:
    """Names (lower-case) with the ports and hosts that they mean. `takes`: a task takes new connections.

    `_80._tcp.web`, and `_http._tcp.web` for a port called http, → the service at its virtual address, or all
    serving tasks in dnsrr mode; `….tasks.web` → all serving tasks. Each also with `.network` appended. The
    port is the container's, because a virtual address and a task are reached at that.
    """
    tasks: dict[str, list[str]] = {}
    for endpoint in endpoints:
        if endpoint.service_id in ports and takes(endpoint):
            tasks.setdefault(endpoint.service_id, []).append(f"{endpoint.task_name}.{network}")
    found: dict[bytes, tuple[tuple[int, str], ...]] = {}
    for service in services:
        each_task = sorted(tasks.get(service.service_id, ()))
        hosts = [f"{service.name}.{network}"] if service.vip else each_task
        for port in ports.get(service.service_id, ()):
            for label in {str(port.target), port.name} - {""}:
                for name in {service.name, *service.aliases}:
                    for full, targets in ((name, hosts), (f"tasks.{name}", each_task)):
                        question = f"_{label}._{port.protocol}.{full}".lower()
                        records = tuple((port.target, target) for target in targets)
                        found[question.encode()] = records
                        found[f"{question}.{network.lower()}".encode()] = records
    return found
