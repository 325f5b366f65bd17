"""Arithmetic of subnets, addresses and VXLAN network identifiers. Pure."""

import ipaddress
from collections.abc import Collection, Container, Iterable, Iterator

from cluster.objects import Subnet

FIRST_VNI = 4096  # as in SwarmKit; below are the ids users may choose without a clash
LAST_VNI = (1 << 24) - 1


def lowest_free_subnet(pools: Iterable[str], size: int, taken: Iterable[str]) -> str | None:
    """The first subnet of prefix length `size` in the pools that overlaps none of `taken` (all in CIDR);
    None when there is none left. A pool smaller than `size` is itself the subnet."""
    spans = sorted(_span(cidr) for cidr in taken if ":" not in cidr)
    for pool in pools:
        network = ipaddress.IPv4Network(pool, strict=False)
        length = max(size, network.prefixlen)
        step = 1 << (32 - length)
        start, end = _span(str(network))
        for first, last in spans:
            if last < start or first > start + step - 1:
                continue
            start = (last // step + 1) * step  # just behind the one in the way
        if start + step - 1 <= end:
            return f"{ipaddress.IPv4Address(start)}/{length}"
    return None


def overlapping(cidr: str, taken: Iterable[str]) -> str | None:
    """The first of `taken` that shares an address with `cidr`."""
    subnet = ipaddress.ip_network(cidr, strict=False)
    for other in taken:
        another = ipaddress.ip_network(other, strict=False)
        if subnet.version == another.version and subnet.overlaps(another):
            return other
    return None


def lowest_free_vni(taken: Collection[int]) -> int | None:
    """The first VNI from 4096 up that is not taken; None when all are."""
    return next((vni for vni in range(FIRST_VNI, LAST_VNI + 1) if vni not in taken), None)


def first_address(cidr: str) -> str:
    """The first host address of a subnet: its gateway, unless the user says otherwise."""
    return str(ipaddress.ip_network(cidr, strict=False).network_address + 1)


def address_number(address: str) -> int:
    """The number of "a.b.c.d" or "a.b.c.d/prefix"."""
    return int(ipaddress.IPv4Address(address.partition("/")[0]))


def _span(cidr: str) -> tuple[int, int]:
    network = ipaddress.IPv4Network(cidr, strict=False)
    return int(network.network_address), int(network.broadcast_address)


def _behind(cidr6: str, address6: str) -> int:
    """The number of the IPv4 address that an IPv6 address of the subnet goes with, if there is one."""
    return int(ipaddress.IPv6Address(address6)) - int(ipaddress.IPv6Network(cidr6).network_address)


class AddressPool:
    """The host addresses of one network, handed out in turn: an address that was given back is not given to
    the next who asks, so that what others still remember of its old holder does no harm."""

    def __init__(self, subnets: Iterable[Subnet], subnets6: Iterable[Subnet] = ()) -> None:
        self._ranges: list[tuple[int, int, int]] = []  # first, last, prefix length
        self._reserved: set[int] = set()
        for subnet in subnets:
            network = ipaddress.IPv4Network(subnet.subnet, strict=False)
            first, last = _span(subnet.ip_range or subnet.subnet)
            if network.prefixlen < 31:
                self._reserved |= {int(network.network_address), int(network.broadcast_address)}
            reserved = [subnet.gateway, *subnet.reserved.values()]
            self._reserved.update(address_number(address) for address in reserved if address)
            self._ranges.append((first, last, network.prefixlen))
        for subnet in subnets6:  # an IPv4 address whose IPv6 address is spoken for is, too
            reserved = [subnet.gateway, *subnet.reserved.values()]
            self._reserved.update(_behind(subnet.subnet, address) for address in reserved if address)
        inside = sum(any(first <= one <= last for first, last, _ in self._ranges) for one in self._reserved)
        self.size = sum(last - first + 1 for first, last, _ in self._ranges) - inside  # addresses to hand out
        self._next = self._ranges[0][0] if self._ranges else 0

    def went_to(self, number: int) -> None:
        """The address handed out last, so that the next one comes after it."""
        self._next = number + 1

    def this_one(self, text: str) -> str | None:
        """An address that somebody wants, as "a.b.c.d/prefix"; None if it can't be handed out at all."""
        try:
            address = ipaddress.IPv4Address(text.partition("/")[0])
        except ValueError:
            return None
        for first, _, prefix in self._ranges:
            subnet = ipaddress.IPv4Network((first, prefix), strict=False)
            if address in subnet and int(address) not in self._reserved:
                return f"{address}/{prefix}"
        return None

    def with_prefix(self, number: int) -> str | None:
        """An address as "a.b.c.d/prefix"; None if it is none that is handed out in turn."""
        for first, last, prefix in self._ranges:
            if first <= number <= last and number not in self._reserved:
                return f"{ipaddress.IPv4Address(number)}/{prefix}"
        return None

    def next_free(self, used: Collection[int], *others: Container[int]) -> str | None:
        """The next address, as "a.b.c.d/prefix", that is neither used in the network, nor reserved, nor in
        one of the `others`; None when all are."""
        # What is used may be addresses that somebody wanted beside the range.
        if len(used) >= self.size and sum(self.with_prefix(each) is not None for each in used) >= self.size:
            return None
        avoid = (used, self._reserved, *others)
        for number, prefix in self._in_turn():
            if not any(number in each for each in avoid):
                self._next = number + 1
                return f"{ipaddress.IPv4Address(number)}/{prefix}"
        return None

    def _in_turn(self) -> Iterator[tuple[int, int]]:
        """All addresses once, from the one after the last that was handed out."""
        start = self._next
        for first, last, prefix in self._ranges:
            for number in range(max(first, start), last + 1):
                yield number, prefix
        for first, last, prefix in self._ranges:
            for number in range(first, min(last + 1, start)):
                yield number, prefix
