"""Networks: which ones the cluster numbers, how names resolve, and what subnet and VNI a new one gets."""

import ipaddress

from msgspec.structs import replace

from cluster.errors import InvalidArgument, Unavailable
from cluster.ids import new_id
from cluster.objects import Cluster, Network, Subnet
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


def first_networks(random: Random) -> list[Network]:
    """What a new cluster has: the ingress network, and the node-local networks that services may name."""
    ingress = NetworkSpec(name=INGRESS_NAME, driver=OVERLAY, scope="swarm", ingress=True)
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


def allocated(network: Network, cluster: Cluster, state: Allocations) -> Network:
    """The network with subnets and VNI. Raises InvalidArgument or Unavailable with the reason why not."""
    taken = state.subnets
    subnets: list[Subnet] = []
    for config in _configs(network.spec):
        other = addresses.overlapping(_checked(config.subnet), taken)
        if other is not None:
            raise InvalidArgument(f"its subnet {config.subnet} overlaps {other}")
        subnets.append(_subnet(config))
        taken.append(config.subnet)
    if not subnets:
        cidr = addresses.lowest_free_subnet(cluster.default_address_pool, cluster.subnet_size, taken)
        if cidr is None:
            pools = ", ".join(cluster.default_address_pool)
            raise Unavailable(
                f"no subnet of size /{cluster.subnet_size} is left in the address pool "
                f"{pools}; remove a network or give a subnet"
            )
        subnets.append(Subnet(subnet=cidr, gateway=addresses.first_address(cidr)))
    return replace(network, subnets=tuple(subnets), vni=_vni(network, state))


def _vni(network: Network, state: Allocations) -> int:
    wanted = (network.spec.options or {}).get(_VNI_OPTION, "").partition(",")[0].strip()
    if not wanted:
        vni = addresses.lowest_free_vni(state.vnis)
        if vni is None:
            raise Unavailable("no VXLAN network identifier is left")
        return vni
    if not wanted.isdecimal() or not 0 < int(wanted) <= addresses.LAST_VNI:
        raise InvalidArgument(f"{_VNI_OPTION}={wanted} is no VXLAN network identifier")
    if state.holder((VNI, "", int(wanted))) not in (None, network.id):
        raise InvalidArgument(f"VXLAN network identifier {wanted} is in use")
    return int(wanted)


def _configs(spec: NetworkSpec) -> list[IPAMConfig]:
    configs = (spec.ipam.config if spec.ipam else None) or ()
    return [config for config in configs if config.subnet]


def _checked(subnet: str) -> str:
    try:
        return str(ipaddress.IPv4Network(subnet, strict=False))
    except ValueError as error:
        raise InvalidArgument(f"invalid subnet {subnet}: overlay networks take IPv4 subnets") from error


def _subnet(config: IPAMConfig) -> Subnet:
    cidr = _checked(config.subnet)
    try:
        return Subnet(
            subnet=cidr,
            gateway=str(ipaddress.IPv4Address(config.gateway or addresses.first_address(cidr))),
            ip_range=_checked(config.ip_range) if config.ip_range else "",
            reserved={
                name: str(ipaddress.IPv4Address(address))
                for name, address in (config.auxiliary_addresses or {}).items()
            },
        )
    except ValueError as error:
        raise InvalidArgument(f"invalid address in the settings of subnet {cidr}: {error}") from error
