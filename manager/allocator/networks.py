"""Networks: which ones the cluster numbers, how names resolve, and what subnet and VNI a new one gets."""

import hashlib
import ipaddress
from collections.abc import Iterable

from msgspec.structs import replace

from cluster.errors import InvalidArgument, Unavailable
from cluster.ids import new_id
from cluster.objects import Cluster, Network, Node, Subnet
from cluster.seams import Random
from cluster.spec import IPAMConfig, NetworkSpec
from manager.allocator import addresses
from manager.allocator.claims import VNI, Allocations
from manager.store import View

OVERLAY = "overlay"
INGRESS_NAME = "ingress"
_PREDEFINED = {"bridge": "bridge", "host": "host", "none": "null"}  # name → driver
_VNI_OPTION = "com.docker.network.driver.overlay.vxlanid_list"


def has_addresses(network: Network) -> bool:
    """Whether the cluster hands out the network's addresses; those of other networks are the nodes' own."""
    return network.driver == OVERLAY and not network.predefined and not network.spec.config_only


def resolve(view: View, target: str) -> Network | None:
    """The network that a spec means by an id or a name."""
    return view.get(Network, target) or view.by_name(Network, target)


def ingress_network(view: View) -> Network | None:
    """The network of the routing mesh; None when the user removed it."""
    return next((network for network in view.all(Network) if network.spec.ingress), None)


def first_networks(random: Random, *, ipv6: bool) -> list[Network]:
    """What a new cluster has: the ingress network, with or without IPv6, and the node-local networks that
    services may name."""
    ingress = NetworkSpec(name=INGRESS_NAME, driver=OVERLAY, scope="swarm", ingress=True, enable_ipv6=ipv6)
    return [
        Network(id=new_id(random), spec=ingress, driver=OVERLAY),
        *(
            Network(
                id=new_id(random),
                spec=NetworkSpec(name=name, driver=driver, scope="local"),
                driver=driver,
                predefined=True,
            )
            for name, driver in _PREDEFINED.items()
        ),
    ]


def allocated(network: Network, cluster: Cluster, nodes: Iterable[Node], state: Allocations) -> Network:
    """The network with subnets and VNI. Raises InvalidArgument or Unavailable with the reason why not.

    Args: nodes: whose own addresses no chosen subnet contains.
    """
    given4, given6 = _configs(network.spec)
    taken = state.subnets
    subnets: list[Subnet] = []
    for config in given4:
        subnets.append(_given(config, taken))
        taken.append(subnets[-1].subnet)
    if not subnets:
        held = [address for node in nodes for address in node.addresses]
        subnets.append(_chosen(cluster, [*taken, *held], state.resting.subnets))
    vni = _vni(network, state)
    subnets6: tuple[Subnet, ...] = ()
    if network.spec.enable_ipv6:
        subnets6 = (_given(given6[0], taken) if given6 else _chosen6(cluster, vni, taken),)
    return replace(network, subnets=tuple(subnets), subnets6=subnets6, vni=vni)


def _chosen(cluster: Cluster, taken: list[str], resting: list[str]) -> Subnet:
    """The next free subnet of the cluster's pool, rather one that no removed network had just now."""
    pools, size = cluster.default_address_pool, cluster.subnet_size
    cidr = addresses.lowest_free_subnet(pools, size, [*taken, *resting])
    cidr = cidr or addresses.lowest_free_subnet(pools, size, taken)
    if cidr is None:
        raise Unavailable(
            f"no subnet of size /{size} is left in the address pool "
            f"{', '.join(pools)}; remove a network or give a subnet"
        )
    return Subnet(subnet=cidr, gateway=addresses.first_address(cidr))


def _chosen6(cluster: Cluster, vni: int, taken: list[str]) -> Subnet:
    """A unique local subnet (RFC 4193): 40 bits follow from the cluster, 16 from the network's VNI."""
    prefix = hashlib.blake2b(cluster.id.encode(), digest_size=5).digest()
    for step in range(1 << 16):
        number = (vni + step & 0xFFFF).to_bytes(2, "big")
        subnet = ipaddress.IPv6Network((b"\xfd" + prefix + number + bytes(8), 64))
        if addresses.overlapping(str(subnet), taken) is None:
            return Subnet(subnet=str(subnet), gateway=addresses.first_address(str(subnet)))
    raise Unavailable("no unique local IPv6 subnet is left; remove a network or give an IPv6 subnet")


def _vni(network: Network, state: Allocations) -> int:
    wanted = (network.spec.options or {}).get(_VNI_OPTION, "").partition(",")[0].strip()
    if not wanted:
        vni = addresses.lowest_free_vni(state.vnis)
        if vni is None:
            raise Unavailable("no VXLAN network identifier is left")
        return vni
    if not wanted.isdecimal() or len(wanted) > 8 or not 0 < int(wanted) <= addresses.LAST_VNI:
        raise InvalidArgument(f"{_VNI_OPTION}={wanted} is no VXLAN network identifier")
    if state.holder((VNI, "", int(wanted))) not in (None, network.id):
        raise InvalidArgument(f"VXLAN network identifier {wanted} is in use")
    return int(wanted)


def _configs(spec: NetworkSpec) -> tuple[list[IPAMConfig], list[IPAMConfig]]:
    """The subnets that the user gave: IPv4, IPv6."""
    configs = [config for config in (spec.ipam.config if spec.ipam else None) or () if config.subnet]
    six = [each for each in configs if ":" in each.subnet]
    return [each for each in configs if each not in six], six


def _given(config: IPAMConfig, taken: list[str]) -> Subnet:
    subnet = _subnet(config)
    other = addresses.overlapping(subnet.subnet, taken)
    if other is not None:
        raise InvalidArgument(f"its subnet {config.subnet} overlaps {other}")
    return subnet


def _subnet(config: IPAMConfig) -> Subnet:
    try:
        cidr = str(ipaddress.ip_network(config.subnet, strict=False))
        return Subnet(
            subnet=cidr,
            gateway=str(ipaddress.ip_address(config.gateway or addresses.first_address(cidr))),
            ip_range=str(ipaddress.ip_network(config.ip_range, strict=False)) if config.ip_range else "",
            reserved={
                name: str(ipaddress.ip_address(address))
                for name, address in (config.auxiliary_addresses or {}).items()
            },
        )
    except ValueError as error:
        raise InvalidArgument(f"invalid address in the settings of {config.subnet}: {error}") from error
