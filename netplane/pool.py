"""Addresses and subnets of this node's own networks; those of the cluster's are the managers' business."""

import ipaddress
from collections.abc import Iterable

from cluster.seams import Random
from netplane.errors import AddressUnavailable, InvalidNetwork, PoolsExhausted

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def default_pools() -> Iterable[ipaddress.IPv4Network]:
    """Docker's order of subnets for local networks: 172.17.0.0/16 to 172.31.0.0/16, then 192.168 in /20."""
    yield from (ipaddress.IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32))
    yield from ipaddress.IPv4Network("192.168.0.0/16").subnets(new_prefix=20)


def free_subnet(used: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The first default subnet that overlaps none of those in use (networks and the host's routes)."""
    taken = list(used)
    for candidate in default_pools():
        if not any(candidate.overlaps(each) for each in taken):
            return candidate
    raise PoolsExhausted(
        "all predefined address pools have been fully subnetted: remove networks "
        "(`docker network prune`), or give a subnet"
    )


def unique_local_subnet(rng: Random) -> ipaddress.IPv6Network:
    """A /64 of a random unique local prefix (RFC 4193): none other has it."""
    return ipaddress.IPv6Network((0xFD << 120 | rng.getrandbits(56) << 64, 64))


def parse_subnet(text: str) -> ipaddress.IPv4Network:
    """An IPv4 subnet in CIDR form."""
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise InvalidNetwork(f"invalid subnet {text}: {error}") from error


class AddressPool:
    """The addresses of one subnet. Hands them out in a circle, so that one just given back rests a while."""

    def __init__(
        self, subnet: Subnet, ip_range: str = "", reserved: Iterable[str] = (), most: int = 0
    ) -> None:
        """Args: most: how many may be given out at a time; 0: all."""
        self.subnet = subnet
        try:
            within = ipaddress.ip_network(ip_range) if ip_range else subnet
        except ValueError as error:
            raise InvalidNetwork(f"invalid IP range {ip_range}: {error}") from error
        if within.version != subnet.version or not within.subnet_of(subnet):  # type: ignore[arg-type]
            raise InvalidNetwork(f"IP range {ip_range} is not part of subnet {subnet}")
        self._first = int(within.network_address)
        self._count = within.num_addresses
        self._taken = {int(subnet.network_address)}
        if subnet.version == 4:
            self._taken.add(int(subnet.broadcast_address))
        self._taken.update(int(ipaddress.ip_address(address)) for address in reserved)
        self._next = 0
        self._most = len(self._taken) + most if most else 0

    def allocate(self, wanted: str = "") -> str:
        """An address, the `wanted` one if given (with or without prefix)."""
        if self._most and len(self._taken) >= self._most:
            raise AddressUnavailable(
                "the network takes no more containers: in its mode one has the whole device"
            )
        if wanted:
            try:
                address = ipaddress.ip_address(wanted.partition("/")[0])
            except ValueError as error:
                raise InvalidNetwork(f"invalid address {wanted}") from error
            if address not in self.subnet:
                raise InvalidNetwork(f"no configured subnet contains IP address {address} ({self.subnet})")
            if int(address) in self._taken:
                raise AddressUnavailable(f"Address already in use: {address}")
            self._taken.add(int(address))
            return str(address)
        for step in range(self._count):
            offset = (self._next + step) % self._count
            if self._first + offset not in self._taken:
                self._taken.add(self._first + offset)
                self._next = (offset + 1) % self._count
                return str(type(self.subnet.network_address)(self._first + offset))
        raise AddressUnavailable(f"no available IPv{self.subnet.version} addresses in subnet {self.subnet}")

    def release(self, address: str) -> None:
        """Give an address back."""
        self._taken.discard(int(ipaddress.ip_address(address.partition("/")[0])))
