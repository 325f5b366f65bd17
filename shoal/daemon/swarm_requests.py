"""The bodies of `/swarm/init` and `/swarm/join`, and the addresses in them."""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace
from pyroute2 import IPRoute

from cluster.errors import InvalidArgument
from cluster.naming import engine_name
from cluster.spec import ClusterSpec, EncryptionConfig
from cluster.states import Availability
from cluster.validate import check_cluster
from netplane.overlay import BRIDGE_PREFIX

CLUSTER_PORT = 2377
MIN_DATA_PATH_PORT, MAX_DATA_PATH_PORT = 1024, 49151
DEFAULT_SUBNET_SIZE = 24
MAX_SUBNET_SIZE = 29
"""Docker's: a smaller subnet leaves no room for tasks."""


class InitRequest(msgspec.Struct, frozen=True, kw_only=True, rename=engine_name):
    """POST /swarm/init."""

    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    data_path_port: int = 0
    default_addr_pool: list[str] | None = None
    subnet_size: int = 0
    force_new_cluster: bool = False
    spec: ClusterSpec | None = None
    auto_lock_managers: bool = False
    availability: str = ""

    def check(self) -> None:
        """Raise InvalidArgument (or NotImplementedHere) for what no manager could found a cluster with."""
        check_cluster(self.spec or ClusterSpec())
        if self.availability not in ("", *Availability):
            raise InvalidArgument(f"invalid availability: {self.availability!r}")
        if self.data_path_port and not MIN_DATA_PATH_PORT <= self.data_path_port <= MAX_DATA_PATH_PORT:
            raise InvalidArgument(
                f"data path port must be in range {MIN_DATA_PATH_PORT}-{MAX_DATA_PATH_PORT}, "
                f"or 0 for the default port 4789: {self.data_path_port}"
            )
        self._check_pools()

    def _check_pools(self) -> None:
        pools: list[ipaddress.IPv4Network] = []
        for text in self.default_addr_pool or ():
            try:
                pool = ipaddress.IPv4Network(text)
            except ValueError as error:
                raise InvalidArgument(
                    f"invalid default address pool {text!r}: {error}; give an IPv4 network, as 10.20.0.0/16"
                ) from error
            for other in pools:
                if pool.overlaps(other):
                    raise InvalidArgument(f"the default address pools {other} and {pool} overlap")
            pools.append(pool)
        size = self.subnet_size or DEFAULT_SUBNET_SIZE
        if not 0 < size <= MAX_SUBNET_SIZE:
            raise InvalidArgument(f"the subnet size must be from 1 to {MAX_SUBNET_SIZE}: {size}")
        for pool in pools:
            if pool.prefixlen > size:
                raise InvalidArgument(
                    f"no subnet of size /{size} fits into the default address pool {pool}: "
                    "take a larger pool, or a larger --default-addr-pool-mask-length"
                )

    @property
    def autolock(self) -> bool:
        """Whether the managers are to be locked at rest."""
        given = self.spec.encryption_config if self.spec else None
        return self.auto_lock_managers or (given is not None and given.auto_lock_managers)

    def founding(self, data_path_address: str) -> str:
        """The manager's --init argument."""
        spec = self.spec or ClusterSpec()
        if self.autolock:
            spec = replace(spec, encryption_config=EncryptionConfig(auto_lock_managers=True))
        values: dict[str, Any] = {
            "Spec": msgspec.to_builtins(spec),
            "DefaultAddrPool": self.default_addr_pool or [],
            "SubnetSize": self.subnet_size,
            "DataPathPort": self.data_path_port,
            "DataPathAddr": data_path_address,
            "Availability": self.availability or Availability.ACTIVE,
        }
        return msgspec.json.encode(values).decode()


class UnlockRequest(msgspec.Struct, frozen=True, kw_only=True, rename=engine_name):
    """POST /swarm/unlock."""

    unlock_key: str = ""


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True, rename=engine_name):
    """POST /swarm/join."""

    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    remote_addrs: list[str] = []
    join_token: str = ""
    availability: str = ""

    @property
    def wanted_availability(self) -> Availability:
        """The node's; by default active. Raises InvalidArgument."""
        try:
            return Availability(self.availability or Availability.ACTIVE)
        except ValueError as error:
            raise InvalidArgument(
                f"invalid availability {self.availability!r}: use active, pause or drain"
            ) from error


class Addresses(NamedTuple):
    """This node's: two "ip:port", and the IP address of its overlay traffic. local: it is this machine's."""

    listen: str
    advertise: str
    data_path: str
    local: bool


async def addresses(request: InitRequest | JoinRequest) -> Addresses:
    """What the request says of this node's addresses, and what the kernel knows where it says nothing.

    Raises InvalidArgument. Looking up names and interfaces blocks, so it is done in a thread.
    """
    return await asyncio.to_thread(_addresses_of, request)


def _addresses_of(request: InitRequest | JoinRequest) -> Addresses:
    towards = request.remote_addrs if isinstance(request, JoinRequest) else []
    listen = listening(request.listen_addr)
    advertise = advertised(request.advertise_addr, listen, towards)
    data_path = advertised(request.data_path_addr, listen) if request.data_path_addr else advertise
    local = advertise.rpartition(":")[0] in own_addresses()
    return Addresses(listen, advertise, data_path.rpartition(":")[0], local)


def listening(text: str) -> str:
    """The "ip:port" to listen on; default 0.0.0.0:2377. An interface's name stands for its address."""
    host, port = split(text or "0.0.0.0")
    return f"{_resolve(host)}:{port or CLUSTER_PORT}"


def advertised(text: str, listen: str, towards: list[str] | None = None) -> str:
    """The address that other nodes use, as "ip:port".

    Without one: the listen address when it is a real one, else the address from which `towards` is reached,
    else this machine's only address; InvalidArgument when there is more than one to choose from.
    """
    listen_host, listen_port = split(listen)
    host, port = split(text)
    if not host:
        if not ipaddress.ip_address(listen_host).is_unspecified:
            host = listen_host
        else:
            host = source_towards(towards or []) or _only_address()
    return f"{_resolve(host)}:{port or listen_port or CLUSTER_PORT}"


def split(text: str) -> tuple[str, int]:
    """Host and port (0 when there is none)."""
    host, separator, port = text.rpartition(":")
    if not separator:
        return text, 0
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidArgument(f"invalid address {text!r}: the port must be a number from 1 to 65535")
    return host, int(port)


def _resolve(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    address = _interface_address(host)
    if address is None:
        raise InvalidArgument(
            f"invalid address {host!r}: use an IP address or the name of a network interface with one"
        )
    return address


def _interface_address(name: str) -> str | None:
    return next((address for device, address in _addresses() if device == name), None)


def _addresses() -> list[tuple[str, str]]:
    """Interfaces with their IPv4 addresses, loopback and Shoal's own bridges left out."""
    with IPRoute() as route:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in route.get_links()}
        found = [
            (names.get(entry["index"], ""), str(entry.get_attr("IFA_ADDRESS")))
            for entry in route.get_addr(family=socket.AF_INET)
        ]
    return [
        (name, address)
        for name, address in found
        if name
        and not ipaddress.ip_address(address).is_loopback
        and not name.startswith(("docker", "br-", BRIDGE_PREFIX))
    ]


def own_addresses() -> set[str]:
    """This machine's IPv4 addresses that others may reach it at."""
    return {address for _, address in _addresses()}


def source_towards(targets: Sequence[str]) -> str:
    """The local address from which the first reachable of these is reached."""
    for target in targets:
        host, port = split(target)
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect((host, port or CLUSTER_PORT))  # UDP: sends nothing, asks for the route
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return ""


def _only_address() -> str:
    found = _addresses()
    if len(found) == 1:
        return found[0][1]
    if not found:
        raise InvalidArgument("could not find the system's IP address: specify one with --advertise-addr")
    listed = ", ".join(f"{address} on interface {name}" for name, address in found)
    raise InvalidArgument(
        "could not choose an IP address to advertise since this system has multiple addresses "
        f"({listed}) - specify one with --advertise-addr"
    )
