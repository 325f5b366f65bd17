"""Published ports: which are taken, and by whom. Pure."""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from cluster.errors import InvalidArgument, Unavailable
from cluster.objects import Service
from cluster.spec import EndpointSpec, PortConfig
from manager.store import View

DYNAMIC_PORTS = range(30000, 32768)

Port = tuple[str, int]  # (protocol, published port)


def normal(port: PortConfig) -> PortConfig:
    """The port with protocol and publish mode filled in."""
    return replace(port, protocol=port.protocol or "tcp", publish_mode=port.publish_mode or "ingress")


def ingress_ports(ports: Iterable[PortConfig]) -> list[PortConfig]:
    """Those that every node publishes."""
    return [port for port in map(normal, ports) if port.publish_mode == "ingress"]


def check_conflicts(view: View, spec: EndpointSpec | None, service_id: str = "") -> None:
    """Raise InvalidArgument when a port that the spec publishes is taken by another service than
    `service_id`. For the API, before a service is created or updated."""
    wanted = {
        (port.protocol, port.published_port): port.publish_mode
        for port in map(normal, (spec.ports if spec else None) or ())
        if port.published_port
    }
    if not wanted:
        return
    for service in view.all(Service):
        if service.id == service_id:
            continue
        for port in _ports_of(service):
            mode = wanted.get((port.protocol, port.published_port))
            if mode is not None and "ingress" in (mode, port.publish_mode):
                raise InvalidArgument(_in_use(port.published_port, service, port.publish_mode))


def _ports_of(service: Service) -> Iterable[PortConfig]:
    spec = service.spec.endpoint_spec
    yield from map(normal, (spec.ports if spec else None) or ())
    yield from service.endpoint.ports if service.endpoint else ()


def _in_use(number: int, service: Service, mode: str) -> str:
    how = "an ingress port" if mode == "ingress" else "a host-published port"
    return f"port '{number}' is already in use by service '{service.spec.name}' ({service.id}) as {how}"


def allocated(
    service: Service, spec: EndpointSpec, taken: Mapping[Port, str], view: View
) -> tuple[PortConfig, ...]:
    """The spec's ports with every ingress port numbered; numbers that the service already has are kept.

    Raises InvalidArgument when another service has a port, Unavailable when none is left to choose from.
    """
    before = list(service.endpoint.ports) if service.endpoint else []
    mine = {port for port, holder in taken.items() if holder == service.id}
    wanted = [normal(port) for port in spec.ports or ()]
    given = {
        (port.protocol, port.published_port)
        for port in wanted
        if port.publish_mode == "ingress" and port.published_port
    }
    for protocol, number in sorted(given):
        holder = taken.get((protocol, number), service.id)
        if holder != service.id:
            other = view.get(Service, holder) or Service(id=holder)
            raise InvalidArgument(_in_use(number, other, "ingress"))
    result = []
    for port in wanted:
        if port.publish_mode == "ingress" and not port.published_port:
            number = _kept(port, before, given) or _free(port.protocol, given, taken, mine)
            given.add((port.protocol, number))
            port = replace(port, published_port=number)
        result.append(port)
    return tuple(result)


def _kept(port: PortConfig, before: list[PortConfig], given: set[Port]) -> int:
    """The number that the same port was given earlier, or 0."""
    for old in before:
        if replace(old, published_port=0) == port and (port.protocol, old.published_port) not in given:
            before.remove(old)
            return old.published_port
    return 0


def _free(protocol: str, given: set[Port], taken: Mapping[Port, str], mine: set[Port]) -> int:
    for number in DYNAMIC_PORTS:
        port = (protocol, number)
        if port not in given and (port not in taken or port in mine):
            return number
    raise Unavailable(
        f"no {protocol} port is left in {DYNAMIC_PORTS[0]}-{DYNAMIC_PORTS[-1]} to publish the service on"
    )
