"""The networks of standalone containers: which are asked for, and the sandbox for one start."""

from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec.structs import replace

from cluster.dataplane import Protocol
from cluster.errors import Conflict, InvalidArgument, NotFound, ShoalError
from cluster.joining import is_ip
from netplane.errors import PortUnavailable
from netplane.model import DNS, HostPort, Mode, Sandbox, SandboxSpec
from worker.containers import links
from worker.containers.attachable import Attachable
from worker.containers.record import Record, record_of
from worker.containers.request import CreateRequest, HostConfig, PortBinding, Settings
from worker.containers.settings import with_network
from worker.endpoints import EndpointSettings, attachment
from worker.engine import Engine
from worker.runtime.model import ContainerConfig, ContainerState

Find = Callable[[str], tuple[ContainerConfig, ContainerState]]
CONTAINER = "container:"
MOST_CANDIDATES = 100
"""Ports of a range that are tried."""


def asked_for(request: CreateRequest) -> dict[str, EndpointSettings]:
    """The networks that a user names, by the name or id given. Raises InvalidArgument."""
    mode, given = request.host_config.network_mode, dict(request.networking_config.endpoints_config)
    if "default" in given:
        given = {"bridge": given.pop("default"), **given}
    if mode in ("", "default"):
        mode = "bridge"
    if mode in ("none", "host") or mode.startswith(CONTAINER):
        _check_mode(request, mode)
        return {}
    if mode not in given:
        only = len(given) == 1 and mode == "bridge" and request.host_config.network_mode in ("", "default")
        given = given if only else {mode: EndpointSettings(), **given}
    first = {mode: given.pop(mode)} if mode in given else {}
    found = {**first, **given}
    for name, settings in found.items():
        wanted = settings.ipam_config
        if name == "bridge" and wanted is not None and (wanted.ipv4_address or wanted.ipv6_address):
            raise InvalidArgument("user specified IP address is supported on user defined networks only")
        if name == "bridge" and settings.aliases:
            found[name] = replace(settings, aliases=None)
    if request.mac_address and found:
        name = next(iter(found))
        if not found[name].mac_address:
            found[name] = replace(found[name], mac_address=request.mac_address)
    return found


def _check_mode(request: CreateRequest, mode: str) -> None:
    host = request.host_config
    if mode.startswith(CONTAINER):
        if not mode.removeprefix(CONTAINER):
            raise InvalidArgument("Invalid network mode: no container is named")
        if request.hostname:
            raise InvalidArgument("conflicting options: hostname and the network mode")
        if host.port_bindings or host.publish_all_ports:
            raise InvalidArgument("conflicting options: port publishing and the container type network mode")
        if request.exposed_ports:
            raise InvalidArgument("conflicting options: port exposing and the container type network mode")
        if host.dns or host.extra_hosts:
            raise InvalidArgument("conflicting options: dns, hosts and the network mode")
    if host.links:
        raise InvalidArgument("conflicting options: host type networking can't be used with links")


def host_ports(settings: Settings, host: HostConfig) -> list[tuple[HostPort, int]]:
    """The ports to publish, each with how many ports of the host may be taken in turn."""
    found: list[tuple[HostPort, int]] = []
    for text, bindings in host.port_bindings.items():
        protocol, target = _port(text)
        for binding in bindings or [PortBinding()]:
            first, last = _range(binding.host_port)
            if binding.host_ip and not is_ip(binding.host_ip):
                raise InvalidArgument(f"invalid IP address {binding.host_ip!r} for port {text}")
            found.append((HostPort(protocol, first, target, binding.host_ip), last - first + 1))
    if host.publish_all_ports:
        bound = {(port.protocol, port.target) for port, _ in found}
        for text in settings.exposed_ports or {}:
            protocol, target = _port(text)
            if (protocol, target) not in bound:
                found.append((HostPort(protocol, 0, target), 1))
    return found


def _port(text: str) -> tuple[Protocol, int]:
    number, _, protocol = text.partition("/")
    try:
        return Protocol(protocol.lower() or "tcp"), _number(number)
    except ValueError:
        raise InvalidArgument(f"invalid port specification: {text!r}: write PORT/PROTOCOL") from None


def _range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    try:
        start = _number(first) if first else 0
        end = _number(last) if dash else start
        if end < start or (dash and not first):
            raise ValueError(text)
    except ValueError:
        raise InvalidArgument(f"invalid port specification: {text!r}") from None
    return start, end


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ValueError(text)
    return int(text)


class Networks:
    """Makes and removes sandboxes. `find` looks up a container by name or id."""

    def __init__(self, engine: Engine, attachable: Attachable, find: Find) -> None:
        self._engine, self._attachable, self._find = engine, attachable, find

    async def resolve(self, name: str) -> str:
        """The id of a network that standalone containers may be in. NotFound, Forbidden."""
        try:
            return self._engine.network.network(name).id
        except NotFound:
            return await self._attachable.find(name)

    def members(self, network_id: str) -> list[str]:
        """The standalone containers that are configured to be in a network."""
        names = {network_id, self._engine.network_name(network_id)}
        return [
            config.id
            for config, _ in self._engine.runtime.list()
            if (record := record_of(config)) is not None and not names.isdisjoint(record.endpoints)
        ]

    async def open(self, config: ContainerConfig, record: Record) -> ContainerConfig:
        """Make the sandbox for a start; the config with it. ShoalError when a network can't be had."""
        host, settings = record.host, record.settings
        namespaces = self._namespaces(host)
        mode = host.network_mode
        if mode.startswith(CONTAINER):
            return self._share(config, mode.removeprefix(CONTAINER), namespaces)
        own_name = settings.hostname or config.id[:12]
        if mode == "host":
            own_name = settings.hostname or self._engine.machine.hostname
        spec = SandboxSpec(
            id=config.id,
            hostname=f"{own_name}.{settings.domainname}" if settings.domainname else own_name,
            mode={"host": Mode.HOST, "none": Mode.NONE}.get(mode, Mode.PRIVATE),
            dns=DNS(tuple(host.dns or ()), tuple(host.dns_search or ()), tuple(host.dns_options or ())),
            extra_hosts=tuple(host.extra_hosts or ()),
        )
        if settings.network_disabled:
            spec = replace(spec, mode=Mode.NONE)
        variables: tuple[str, ...] = ()
        if mode == "bridge" and host.links:
            sandboxes = self._engine.network.sandboxes()
            entries, variables = links.resolve(host.links, config.name, self._find, sandboxes.get)
            spec = replace(spec, extra_hosts=(*spec.extra_hosts, *entries))
        if spec.mode is Mode.PRIVATE:
            sandbox = await self._private(spec, config, record)
        else:
            sandbox = await self._engine.network.create_sandbox(spec)
        return with_network(
            config,
            netns=sandbox.netns,
            resolv_conf=sandbox.resolv_conf,
            hosts=sandbox.hosts,
            hostname=own_name,
            namespaces=namespaces,
            env=(*(text for text in settings.env or () if "=" in text), *variables),
        )

    async def _private(self, spec: SandboxSpec, config: ContainerConfig, record: Record) -> Sandbox:
        attachments = []
        for name, wanted in record.endpoints.items():
            network_id = await self.resolve(name)
            if self._attachable.knows(network_id):
                wanted = await self._attachable.attach(config.id, network_id, wanted)
            attachments.append(attachment(network_id, wanted, config.name))
        spec = replace(spec, attachments=tuple(attachments))
        ports = host_ports(record.settings, record.host) if attachments else []
        tried = [0] * len(ports)
        while True:
            chosen = tuple(
                replace(port, published=port.published + step)
                for (port, _), step in zip(ports, tried, strict=True)
            )
            try:
                return await self._engine.network.create_sandbox(replace(spec, host_ports=chosen))
            except PortUnavailable as error:
                if not _next_candidates(ports, tried):
                    raise ShoalError(
                        f"failed to set up container networking: driver failed programming external "
                        f"connectivity on endpoint {config.name}: port is already allocated: {error}"
                    ) from error

    def _share(self, config: ContainerConfig, name: str, namespaces: Mapping[str, str]) -> ContainerConfig:
        other, state = self._find(name)
        if not state.running:
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        return with_network(
            config,
            netns=other.netns,
            resolv_conf=other.resolv_conf,
            hosts=other.hosts,
            hostname=other.hostname,
            namespaces=namespaces,
            env=config.env,
        )

    def _namespaces(self, host: HostConfig) -> dict[str, str]:
        found: dict[str, str] = {}
        for kind, mode in (("pid", host.pid_mode), ("ipc", host.ipc_mode), ("uts", host.uts_mode)):
            if mode == "host":
                found[kind] = "host"
            elif mode.startswith(CONTAINER):
                other, state = self._find(mode.removeprefix(CONTAINER))
                if not state.running:
                    raise Conflict(
                        f"cannot join {kind.upper()} namespace of a non running container: {other.id}"
                    )
                found[kind] = str(Path("/proc") / str(state.pid) / "ns" / kind)
        if host.cgroupns_mode == "host":
            found["cgroup"] = "host"
        return found

    async def close(self, identifier: str) -> None:
        """Remove a container's sandbox, if it has one."""
        await self._engine.network.remove_sandbox(identifier)
        await self._attachable.detach(identifier)


def _next_candidates(ports: list[tuple[HostPort, int]], tried: list[int]) -> bool:
    """Go on to the next combination of ports; False when there is none, or too many were tried."""
    for index, (_, count) in enumerate(ports):
        if tried[index] + 1 < min(count, MOST_CANDIDATES):
            tried[index] += 1
            return True
        tried[index] = 0
    return False
