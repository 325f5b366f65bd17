"""The subnets of a network as a user writes them, checked as dockerd does, in its words.

Source: moby api/types/network (ValidateIPAM) and libnetwork's drivers, read for their behaviour.
"""

import ipaddress
from collections.abc import Iterable, Iterator

from cluster.errors import Forbidden, InvalidArgument, NotImplementedHere
from cluster.objects import Network, Node
from cluster.spec import IPAM, IPAMConfig, NetworkSpec

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_PREFIX6 = 96
"""Of a cluster network's IPv6 subnet: an address's last 32 bits are its IPv4 address."""
MIN_MTU, MAX_MTU = 68, 65535  # what Linux takes for a bridge
MIN_MTU6 = 1280
"""What a link must carry to have IPv6 (RFC 8200, section 5)."""
MTU_OPTION = "com.docker.network.driver.mtu"


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
    subnet = _block(config.subnet)
    if subnet is None:
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


def _block(text: str) -> IPNetwork | None:
    """A subnet in CIDR notation: with a length, no mask, and without a zone, which may be any text."""
    address, _, length = text.partition("/")
    if "%" in address or not (length.isascii() and length.isdigit() and len(length) <= 3):
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _range_complaints(text: str, subnet: IPNetwork) -> Iterator[str]:
    part = _block(text)
    if part is None:
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
        if "%" in text:  # a zone
            raise ValueError(text)
        address = ipaddress.ip_address(text)
    except ValueError:
        yield "invalid address"
        return
    if address.version != subnet.version:
        yield f"parent subnet is an IPv{subnet.version} block"
    elif address not in subnet:
        yield f"parent subnet {subnet} doesn't contain this address"


# --- networks of the cluster ------------------------------------------------------------------------------


NODES_OWN_DRIVERS = ("bridge", "host", "ipvlan", "macvlan")
"""Drivers of swarm-scoped networks whose addresses and settings are each node's own matter."""


def check_nodes_own(spec: NetworkSpec) -> None:
    """Refuse what a swarm-scoped network of such a driver can't have. Raises InvalidArgument, Forbidden."""
    source = spec.config_from.network if spec.config_from is not None else ""
    subnets = [config for config in (spec.ipam or IPAM()).config or () if config.subnet]
    if source and (subnets or spec.options or spec.enable_ipv6):
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a "
            "configuration network"
        )
    if subnets:
        raise InvalidArgument(
            f"the addresses of swarm-scoped {spec.driver} networks are each node's own: create a network "
            "with --config-only and these subnets on each node, and name it with --config-from"
        )
    if spec.driver in ("ipvlan", "macvlan") and not source and not spec.config_only:
        raise InvalidArgument(
            f"a swarm-scoped {spec.driver} network has its settings from a network of each node's own: "
            "create one with --config-only, --subnet and -o parent= on each, and name it with --config-from"
        )
    if spec.enable_ipv6 or spec.enable_ipv4 is False:
        raise InvalidArgument(
            "address families are each node's own: set them in the network of --config-from"
        )
    if spec.ingress:
        raise InvalidArgument(f"the ingress network is of driver overlay, not {spec.driver}")
    if spec.config_only:
        raise Forbidden("configuration networks are each node's own: leave --scope swarm out")


def check_cluster_subnets(spec: NetworkSpec) -> None:
    """Refuse subnets that a network of the cluster can't have: InvalidArgument, Forbidden for overlaps."""
    check_ipam(spec.ipam, ipv6=spec.enable_ipv6)
    if spec.enable_ipv4 is False:
        raise NotImplementedHere("overlay networks without IPv4 are not supported: leave EnableIPv4 out")
    configs = [config for config in (spec.ipam or IPAM()).config or () if config.subnet]
    own = [config for config in configs if ipaddress.ip_network(config.subnet, strict=False).version == 6]
    if own and not spec.enable_ipv6:
        raise InvalidArgument(
            f"invalid network config: invalid subnet {own[0].subnet}: the network has no IPv6; "
            "create it with --ipv6"
        )
    if len(own) > 1:
        given = ", ".join(config.subnet for config in own)
        raise InvalidArgument(f"invalid network config: an overlay network has one IPv6 subnet, not {given}")
    for config in own:
        _check_subnet6(config)
    if spec.ingress and len(configs) - len(own) > 1:
        raise InvalidArgument("the ingress network takes one subnet")
    mtu = (spec.options or {}).get(MTU_OPTION, "")
    if mtu and mtu != "0" and not (mtu.isdecimal() and len(mtu) <= 5 and MIN_MTU <= int(mtu) <= MAX_MTU):
        raise InvalidArgument(
            f"invalid network config: {MTU_OPTION}={mtu}: write a number of bytes from {MIN_MTU} to "
            f"{MAX_MTU}, or leave it out to have what fits the nodes' links"
        )
    if spec.enable_ipv6 and mtu.isdecimal() and 0 < int(mtu) < MIN_MTU6:
        raise InvalidArgument(
            f"invalid network config: {MTU_OPTION}={mtu}: a network with IPv6 needs {MIN_MTU6} or more; "
            "raise it, or leave --ipv6 out"
        )


def _check_subnet6(config: IPAMConfig) -> None:
    subnet = ipaddress.IPv6Network(config.subnet)
    if subnet.prefixlen > LONGEST_PREFIX6:
        raise InvalidArgument(
            f"invalid network config: invalid subnet {subnet}: an overlay network's IPv6 subnet is a "
            f"/{LONGEST_PREFIX6} or larger, because its addresses end in the IPv4 addresses; give a /64"
        )
    if subnet.is_link_local:
        raise InvalidArgument(f"invalid network config: invalid subnet {subnet}: it is link-local")
    if config.ip_range:
        raise InvalidArgument(
            f"invalid network config: invalid ip-range {config.ip_range}: IPv6 addresses of an overlay "
            "network follow from the IPv4 ones; give a range of the IPv4 subnet"
        )


def check_subnets_free(spec: NetworkSpec, others: Iterable[Network]) -> None:
    """Refuse subnets that another network has (Forbidden, as dockerd's libnetwork answers)."""
    wanted = _configured(spec)
    if not wanted:
        return
    for other in others:
        allocated = {ipaddress.ip_network(each.subnet) for each in (*other.subnets, *other.subnets6)}
        for taken in sorted(allocated.union(_configured(other.spec)), key=str):
            if any(taken.version == subnet.version and taken.overlaps(subnet) for subnet in wanted):
                raise Forbidden(
                    f"Pool overlaps with other one on this address space: {taken} of {other.spec.name}"
                )


def check_nodes_apart(spec: NetworkSpec, nodes: Iterable[Node]) -> None:
    """Refuse a subnet that a node's own address is in (InvalidArgument): the node would be cut off."""
    wanted = _configured(spec)
    for node in nodes if wanted else ():
        for address in node.addresses:
            subnet = next((each for each in wanted if ipaddress.ip_address(address) in each), None)
            if subnet is not None:
                name = node.description.hostname or node.id
                raise InvalidArgument(
                    f"invalid network config: subnet {subnet} contains {address}, the address of node "
                    f"{name}, which would be cut off: give another --subnet, or none to have one chosen"
                )


def _configured(spec: NetworkSpec) -> list[IPNetwork]:
    configs = (spec.ipam or IPAM()).config or ()
    return [ipaddress.ip_network(config.subnet, strict=False) for config in configs if config.subnet]
