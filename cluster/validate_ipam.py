"""The subnets of a network as a user writes them, checked as dockerd does, in its words.

Source: moby api/types/network (ValidateIPAM) and libnetwork's drivers, read for their behaviour.
"""

import ipaddress
from collections.abc import Iterator

from cluster.errors import Forbidden, InvalidArgument, NotImplementedHere
from cluster.spec import IPAM, IPAMConfig

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def check_ipam(ipam: IPAM | None, *, ipv6: bool) -> None:
    """Raise InvalidArgument for subnets and addresses that don't fit together, Forbidden for overlaps.

    IPv6 subnets are not looked at unless the network has `ipv6`, as dockerd takes them and leaves them out.
    """
    if ipam is None:
        return
    if ipam.driver not in ("", "default"):
        raise NotImplementedHere(f"IPAM driver {ipam.driver!r} is not supported: use default")
    found: list[str] = []
    seen: list[IPNetwork] = []
    for config in ipam.config or ():
        if config == IPAMConfig():
            continue
        found += _complaints(config, seen, ipv6=ipv6)
    if found:
        raise InvalidArgument("invalid network config:\n" + "\n".join(found))


def _complaints(config: IPAMConfig, seen: list[IPNetwork], *, ipv6: bool) -> Iterator[str]:
    try:
        subnet = ipaddress.ip_network(config.subnet, strict=False)
    except ValueError:
        subnet = None
    if subnet is None or "/" not in config.subnet:
        yield f"invalid subnet {config.subnet}: invalid CIDR block notation"
        return
    if subnet.version == 6 and not ipv6:
        return
    if ipaddress.ip_interface(config.subnet).ip != subnet.network_address:
        yield f"invalid subnet {config.subnet}: it should be {subnet}"
    if subnet.prefixlen > subnet.max_prefixlen - 2:
        yield f"invalid subnet {config.subnet}: it has no address for a container"
    if subnet.prefixlen == 0 or subnet.is_loopback or subnet.is_multicast:
        yield f"invalid subnet {config.subnet}: containers can't have these addresses"
    if any(subnet.version == other.version and subnet.overlaps(other) for other in seen):
        raise Forbidden(f"Pool overlaps with other one on this address space: {config.subnet}")
    seen.append(subnet)
    if config.ip_range:
        yield from _range_complaints(config.ip_range, subnet)
    if config.gateway:
        yield from (f"invalid gateway {config.gateway}: {why}" for why in _misplaced(config.gateway, subnet))
    for name, address in (config.auxiliary_addresses or {}).items():
        yield from (f"invalid auxiliary address {name}: {why}" for why in _misplaced(address, subnet))


def _range_complaints(text: str, subnet: IPNetwork) -> Iterator[str]:
    try:
        part = ipaddress.ip_network(text, strict=False)
    except ValueError:
        part = None
    if part is None or "/" not in text:
        yield f"invalid ip-range {text}: invalid CIDR block notation"
    elif part.version != subnet.version:
        yield f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block"
    elif part.prefixlen < subnet.prefixlen:
        yield f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"
    elif ipaddress.ip_interface(text).ip != part.network_address:
        yield f"invalid ip-range {text}: it should be {part}"
    elif not part.overlaps(subnet):
        yield f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"


def _misplaced(text: str, subnet: IPNetwork) -> Iterator[str]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        yield "invalid address"
        return
    if address.version != subnet.version:
        yield f"parent subnet is an IPv{subnet.version} block"
    elif address not in subnet:
        yield f"parent subnet {subnet} doesn't contain this address"
