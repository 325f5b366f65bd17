"""The subnets and gateways of a node's own network, as asked for or chosen."""

import hashlib
import ipaddress
from dataclasses import dataclass

from cluster.errors import Forbidden
from cluster.spec import IPAM, IPAMConfig
from netplane import links
from netplane.drivers.driver import Draft
from netplane.errors import InvalidNetwork, PoolOverlap
from netplane.model import LocalNetwork
from netplane.pool import AddressPool, free_subnet, unique_local_subnet

OVERLAP = "invalid pool request: Pool overlaps with other one on this address space"
LEAST_MTU_IPV6 = 1280

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Addressing:
    """What LocalNetwork holds of it; "" for a family that the network has not."""

    subnet: str = ""
    gateway: str = ""
    subnet6: str = ""
    gateway6: str = ""


def choose(draft: Draft, *, gateways: bool = True, apart: bool = True, device: str = "") -> Addressing:
    """The subnets of a network, an explicit one or a free one for each of its families.

    Args:
        gateways: an address is set aside for a gateway that none names.
        apart: the network is not the host's own wire: refuse subnets that the host reaches otherwise.
        device: a link whose routes count as the network's own.
    """
    four, six = draft.spec.enable_ipv4 is not False, draft.spec.enable_ipv6
    if not four and not six:
        raise InvalidNetwork("IPv4 or IPv6 must be enabled")
    subnet, gateway = _ipv4(draft, gateways=gateways, apart=apart, device=device) if four else ("", "")
    subnet6, gateway6 = _ipv6(draft, gateways=gateways, apart=apart, device=device) if six else ("", "")
    return Addressing(subnet, gateway, subnet6, gateway6)


def _ipv4(draft: Draft, *, gateways: bool, apart: bool, device: str) -> tuple[str, str]:
    own = [ipaddress.IPv4Network(each.subnet) for each in draft.others if each.subnet]
    config = config_of(draft.spec.ipam, 4, draft.driver)
    if config is not None:
        subnet = ipaddress.IPv4Network(config.subnet)
        _check_free(subnet, draft, apart=apart, device=device)
    elif draft.subnet:
        subnet = ipaddress.IPv4Interface(draft.subnet).network
    else:
        subnet = free_subnet(own + links.routed_subnets(ignore={device}))
    return str(subnet), _gateway(config, subnet, chosen=gateways)


def _ipv6(draft: Draft, *, gateways: bool, apart: bool, device: str) -> tuple[str, str]:
    config = config_of(draft.spec.ipam, 6, draft.driver)
    if config is None:
        subnet = unique_local_subnet(draft.rng)
    else:
        subnet = ipaddress.IPv6Network(config.subnet)
        _check_free(subnet, draft, apart=apart, device=device)
    return str(subnet), _gateway(config, subnet, chosen=gateways)


def _check_free(subnet: IPNetwork, draft: Draft, *, apart: bool, device: str) -> None:
    for other in draft.others:
        taken = other.subnet if subnet.version == 4 else other.subnet6
        if taken and subnet.overlaps(ipaddress.ip_network(taken)):
            raise PoolOverlap(f"{OVERLAP}: {subnet} and {taken} of network {other.name}")
    if not apart:
        return
    for link, taken_here in links.connected_subnets(subnet.version):
        if link != device and subnet.overlaps(taken_here):
            raise PoolOverlap(f"{OVERLAP}: {subnet} and {taken_here}, which this host has on its link {link}")


def config_of(ipam: IPAM | None, version: int, driver: str = "bridge") -> IPAMConfig | None:
    """What a user asks of one family. Raises Forbidden for more than one subnet of it."""
    found = [
        config
        for config in (ipam.config if ipam else None) or ()
        if config.subnet and ipaddress.ip_network(config.subnet).version == version
    ]
    if len(found) > 1:
        raise Forbidden(f"{driver} driver doesn't support multiple subnets")
    return found[0] if found else None


def _gateway(config: IPAMConfig | None, subnet: IPNetwork, *, chosen: bool) -> str:
    """The one asked for, else the first address that is not taken for something else."""
    if config is not None and config.gateway:
        return str(ipaddress.ip_address(config.gateway))
    if not chosen:
        return ""
    taken = {
        ipaddress.ip_address(each)
        for each in ((config.auxiliary_addresses or {}) if config is not None else {}).values()
    }
    within = ipaddress.ip_network(config.ip_range) if config is not None and config.ip_range else subnet
    for number in range(within.num_addresses):
        address = within[number]
        if address != subnet.network_address and address not in taken:
            return str(address)
    raise InvalidNetwork(f"subnet {subnet} has no address for a gateway")


def pools(network: LocalNetwork, most: int = 0) -> tuple[AddressPool | None, AddressPool | None]:
    """The addresses of a network, by family. `most`: how many may be given out at a time; 0: all."""
    found: list[AddressPool | None] = []
    for subnet, gateway in ((network.subnet, network.gateway), (network.subnet6, network.gateway6)):
        if not subnet:
            found.append(None)
            continue
        parsed = ipaddress.ip_network(subnet)
        config = config_of(network.spec.ipam, parsed.version)
        others = (config.auxiliary_addresses or {}).values() if config is not None else ()
        reserved = [each for each in (gateway, *others) if each]
        found.append(AddressPool(parsed, config.ip_range if config is not None else "", reserved, most))
    return found[0], found[1]


def check_mtu(mtu: int, *, ipv6: bool) -> None:
    """Raises InvalidNetwork for what IPv6 can't use: the kernel takes it from such a link without a word."""
    if ipv6 and mtu < LEAST_MTU_IPV6:
        raise InvalidNetwork(f"an MTU of {mtu} is too small: IPv6 needs {LEAST_MTU_IPV6} at least")


def mac_of(address: str, address6: str) -> str:
    """The MAC that goes with a link's addresses: of the IPv4 one if it has one (cluster.dataplane.mac_for),
    so that it is the same on every run."""
    if address:
        octets = ipaddress.IPv4Address(address.partition("/")[0]).packed
    else:
        octets = hashlib.blake2b(ipaddress.IPv6Address(address6).packed, digest_size=4).digest()
    return "02:42:" + ":".join(f"{octet:02x}" for octet in octets)
