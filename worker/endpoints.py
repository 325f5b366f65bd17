"""A container's place in a network, as the Engine API speaks of it: from `docker run --network` and
`docker network connect` to what the network plane is asked for.

The settings of a container's networks are kept with the container, because it may be stopped; here is how
they are read, and how a running container is put into a network or taken out.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from cluster.errors import InvalidArgument
from netplane.model import Attachment, LocalNetwork, Sandbox
from worker.engine import Engine
from worker.interface_options import interface_options
from worker.runtime.model import ContainerConfig, ContainerState


class EndpointIPAMConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """Addresses that a user asks for."""

    ipv4_address: str = msgspec.field(default="", name="IPv4Address")
    ipv6_address: str = msgspec.field(default="", name="IPv6Address")
    link_local_ips: tuple[str, ...] = msgspec.field(default=(), name="LinkLocalIPs")


class EndpointSettings(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """What a user asks of a container's place in one network (the Engine API's EndpointSettings)."""

    ipam_config: EndpointIPAMConfig | None = msgspec.field(default=None, name="IPAMConfig")
    links: tuple[str, ...] | None = None
    aliases: tuple[str, ...] | None = None
    mac_address: str | None = None
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0


class NetworkMembers(Protocol):
    """Who knows the containers that are in networks, running or not. Ids are whole ids."""

    def find(self, name: str) -> tuple[ContainerConfig, ContainerState]:
        """A container by id, name, or a unique prefix of its id. NotFound, InvalidArgument."""

    def members(self, network_id: str) -> Sequence[str]:
        """The containers that are configured to be in a network, running or not."""

    async def connect(self, container_id: str, network_id: str, settings: EndpointSettings) -> None:
        """Put a container into a network: at once if it runs, else when it starts. Conflict, Forbidden."""

    async def disconnect(self, container_id: str, network_id: str, *, force: bool) -> None:
        """Take a container out of a network."""


def attachment(network_id: str, settings: EndpointSettings, name: str) -> Attachment:
    """What the network plane is asked for. `name` is the container's."""
    wanted = settings.ipam_config or EndpointIPAMConfig()
    return Attachment(
        network_id,
        address=wanted.ipv4_address,
        address6=wanted.ipv6_address,
        link_local=wanted.link_local_ips,
        aliases=settings.aliases or (),
        names=(name,),
        mac=settings.mac_address or "",
        links=settings.links or (),
        priority=settings.gw_priority,
        **interface_options(settings.driver_opts or {}),
    )


async def connect_running(
    engine: Engine, container_id: str, network_id: str, settings: EndpointSettings
) -> Sandbox:
    """Put a running container into a network, with its files of names brought up to date."""
    config, _ = engine.runtime.get(container_id)
    sandbox = await engine.network.attach(container_id, attachment(network_id, settings, config.name))
    _write_files(engine, sandbox)
    return sandbox


async def disconnect_running(engine: Engine, container_id: str, network_id: str) -> Sandbox:
    """Take a running container out of a network."""
    sandbox = await engine.network.detach(container_id, network_id)
    _write_files(engine, sandbox)
    return sandbox


def _write_files(engine: Engine, sandbox: Sandbox) -> None:
    """In place: the container has these very files mounted."""
    files: Mapping[str, str] = {"resolv.conf": sandbox.resolv_conf, "hosts": sandbox.hosts}
    for name, text in files.items():
        path = engine.runtime.etc(sandbox.id) / name
        if path.exists() and path.read_text() != text:
            path.write_text(text)


def check_endpoint(network: LocalNetwork, settings: EndpointSettings) -> None:
    """Refuse what a local network can't give, in dockerd's words. Raises InvalidArgument."""
    interface_options(settings.driver_opts or {})
    wanted = settings.ipam_config or EndpointIPAMConfig()
    if network.predefined:
        if wanted.ipv4_address or wanted.ipv6_address:
            raise InvalidArgument("user specified IP address is supported on user defined networks only")
        if settings.aliases:
            raise InvalidArgument("network-scoped aliases are only supported for user-defined networks")
    subnets = [config.subnet for config in (network.spec.ipam.config if network.spec.ipam else None) or ()]
    for address, family in ((wanted.ipv4_address, "."), (wanted.ipv6_address, ":")):
        if not address:
            continue
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            raise InvalidArgument(f"invalid endpoint settings: invalid IP address {address}") from None
        asked = [ipaddress.ip_network(subnet) for subnet in subnets if subnet and family in subnet]
        if not asked:
            raise InvalidArgument(
                "user specified IP address is supported only when connecting to networks with user "
                "configured subnets"
            )
        if not any(parsed in subnet for subnet in asked):
            raise InvalidArgument(
                f"invalid endpoint settings:\nno configured subnet contains IP address {address}"
            )
