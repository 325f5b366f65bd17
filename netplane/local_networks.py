"""The networks of this node alone: the predefined three, bridges that users make, and networks that only hold
settings for others (config-only)."""

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.dataplane import mac_for
from cluster.errors import Forbidden, NotImplementedHere, ShoalError
from cluster.ids import new_container_id
from cluster.seams import Clock, Random
from cluster.spec import IPAM, IPAMConfig, NetworkSpec
from cluster.validate_ipam import check_ipam
from netplane import links
from netplane.bridge_options import read_options
from netplane.config_networks import check_settings_only, completed
from netplane.errors import (
    InvalidNetwork,
    NetworkInUse,
    NetworkNotFound,
    PoolOverlap,
    PredefinedNetwork,
)
from netplane.model import LocalNetwork, Segment
from netplane.pool import AddressPool, free_subnet, unique_local_subnet
from netplane.storage import Storage

BRIDGE_PREFIX = "shb"
DEFAULT_DEVICE = "shoal0"
PREDEFINED = {"bridge": "bridge", "host": "host", "none": "null"}
_ELSEWHERE = ("macvlan", "ipvlan")
_OVERLAP = "invalid pool request: Pool overlaps with other one on this address space"


@dataclass
class _Bridge:
    segment: Segment
    pool: AddressPool
    pool6: AddressPool | None


class LocalNetworks:
    """Keeps the list on disk and its bridges in the kernel. Its methods block: run them in a thread."""

    def __init__(self, storage: Storage, clock: Clock, rng: Random, default_subnet: str = "") -> None:
        self._storage = storage
        self._clock = clock
        self._rng = rng
        self._default_subnet = default_subnet
        self._networks: dict[str, LocalNetwork] = {}
        self._bridges: dict[str, _Bridge] = {}

    def open(self) -> None:
        """Load the list, add the predefined networks where they are missing, and make every bridge."""
        self._networks = {network.id: network for network in self._storage.load_networks()}
        present = {network.name for network in self._networks.values()}
        for name, driver in PREDEFINED.items():
            if name not in present:
                spec = NetworkSpec(name=name, driver=driver, scope="local")
                network = self._plan(spec, driver, predefined=True)
                self._networks[network.id] = network
        self._storage.save_networks(list(self._networks.values()))
        for network in self._networks.values():
            if network.driver == "bridge":
                self._bridges[network.id] = self._raise(network)
        known = {bridge.segment.bridge for bridge in self._bridges.values()}
        stale = [name for name in links.list_links() if name.startswith(BRIDGE_PREFIX) and name not in known]
        if stale:
            links.delete_links(stale)

    def all(self) -> Mapping[str, LocalNetwork]:
        """Every local network by id."""
        return dict(self._networks)

    def find(self, name_or_id: str) -> LocalNetwork | None:
        """A network by id or name."""
        found = self._networks.get(name_or_id)
        return found or next((each for each in self._networks.values() if each.name == name_or_id), None)

    def segments(self) -> Iterable[Segment]:
        """The bridges."""
        return [bridge.segment for bridge in self._bridges.values()]

    def segment(self, network_id: str) -> Segment | None:
        """The bridge of a network."""
        bridge = self._bridges.get(network_id)
        return bridge.segment if bridge else None

    def pool(self, network_id: str) -> AddressPool:
        """The IPv4 addresses of a network."""
        return self._bridges[network_id].pool

    def pool6(self, network_id: str) -> AddressPool | None:
        """The IPv6 addresses of a network; None if it has none."""
        return self._bridges[network_id].pool6

    def create(self, spec: NetworkSpec) -> LocalNetwork:
        """Make a network, and its bridge if it is one."""
        if not spec.name.strip():
            raise InvalidNetwork("invalid name: name is empty")
        if len(spec.name) > 255 or not spec.name.isprintable():
            raise InvalidNetwork("invalid name: at most 255 characters that can be printed")
        if spec.name in PREDEFINED:
            raise PredefinedNetwork(f"operation is not permitted on predefined {spec.name} network")
        if self.find(spec.name) is not None:
            raise NetworkInUse(f"network with name {spec.name} already exists")
        if spec.config_only:
            check_settings_only(spec)
            network = self._plan(spec, "null", predefined=False)
        else:
            spec = completed(spec, self.find)
            network = self._plan(spec, _driver(spec), predefined=False)
            bridge = self._raise(network)
            self._bridges[network.id] = bridge
        self._networks[network.id] = network
        self._storage.save_networks(list(self._networks.values()))
        return network

    def remove(self, network_id: str) -> None:
        """Remove a network that no sandbox is in."""
        network = self._networks.get(network_id)
        if network is None:
            raise NetworkNotFound(network_id)
        if network.predefined:
            raise PredefinedNetwork(f"{network.name} is a pre-defined network and cannot be removed")
        for other in self._networks.values():
            if other.spec.config_from is not None and other.spec.config_from.network == network.name:
                raise Forbidden(f'configuration network "{network.name}" is in use')
        del self._networks[network_id]
        self._storage.save_networks(list(self._networks.values()))
        if self._bridges.pop(network_id, None) is not None:
            links.delete_links([network.bridge])

    def _plan(self, spec: NetworkSpec, driver: str, *, predefined: bool) -> LocalNetwork:
        check_ipam(spec.ipam, ipv6=spec.enable_ipv6)
        identifier = new_container_id(self._rng)
        if driver != "bridge":
            return LocalNetwork(identifier, spec.name, driver, self._clock.now(), spec, predefined=predefined)
        if spec.enable_ipv4 is False:
            raise NotImplementedHere("networks without IPv4 are not supported: leave EnableIPv4 out")
        options = read_options(spec.options or {}, internal=spec.internal)
        subnet, gateway = self._choose_subnet(spec, predefined=predefined)
        subnet6, gateway6 = self._choose_subnet6(spec)
        digest = hashlib.blake2b(identifier.encode(), digest_size=5).hexdigest()
        device = DEFAULT_DEVICE if predefined else options.device or BRIDGE_PREFIX + digest
        if not predefined and device in links.list_links():
            raise NetworkInUse(f"a link named {device} already exists on this host")
        return LocalNetwork(
            id=identifier,
            name=spec.name,
            driver=driver,
            created_at=self._clock.now(),
            spec=spec,
            subnet=str(subnet),
            gateway=gateway,
            subnet6=subnet6,
            gateway6=gateway6,
            bridge=device,
            mtu=options.mtu,
            predefined=predefined,
        )

    def _choose_subnet(self, spec: NetworkSpec, *, predefined: bool) -> tuple[ipaddress.IPv4Network, str]:
        own = [ipaddress.IPv4Network(each.subnet) for each in self._networks.values() if each.subnet]
        config = _config(spec.ipam, 4)
        if config is not None:
            subnet = ipaddress.IPv4Network(config.subnet)
            if any(subnet.overlaps(each) for each in own):
                raise PoolOverlap(_OVERLAP)
        elif predefined and self._default_subnet:
            subnet = ipaddress.IPv4Interface(self._default_subnet).network
        else:
            used = own + links.routed_subnets(ignore={DEFAULT_DEVICE} if predefined else set())
            subnet = free_subnet(used)
        return subnet, _gateway(config, subnet)

    def _choose_subnet6(self, spec: NetworkSpec) -> tuple[str, str]:
        if not spec.enable_ipv6:
            return "", ""
        own = [ipaddress.IPv6Network(each.subnet6) for each in self._networks.values() if each.subnet6]
        config = _config(spec.ipam, 6)
        if config is None:
            subnet = unique_local_subnet(self._rng)
        else:
            subnet = ipaddress.IPv6Network(config.subnet)
            if any(subnet.overlaps(each) for each in own):
                raise PoolOverlap(_OVERLAP)
        return str(subnet), _gateway(config, subnet)

    def _raise(self, network: LocalNetwork) -> _Bridge:
        options = read_options(network.spec.options or {}, internal=network.internal)
        subnet = ipaddress.IPv4Network(network.subnet)
        subnet6 = ipaddress.IPv6Network(network.subnet6) if network.subnet6 else None
        pool = _pool(network, subnet, network.gateway)
        pool6 = _pool(network, subnet6, network.gateway6) if subnet6 else None
        reachable = options.address_on_bridge
        index = links.ensure_bridge(
            network.bridge,
            mac=mac_for(network.gateway),
            mtu=network.mtu,
            address=f"{network.gateway}/{subnet.prefixlen}" if reachable else "",
            address6=f"{network.gateway6}/{subnet6.prefixlen}" if reachable and subnet6 else "",
        )
        segment = Segment(
            network_id=network.id,
            bridge=network.bridge,
            index=index,
            mtu=network.mtu,
            subnet=subnet,
            gateway=network.gateway if reachable else "",
            internal=network.internal,
            resolves_names=not network.predefined,
            subnet6=subnet6,
            gateway6=network.gateway6 if reachable else "",
            masquerade=options.masquerade,
            isolated=not options.containers_talk,
            host_address=options.host_address,
            interface_prefix=options.interface_prefix,
        )
        return _Bridge(segment, pool, pool6)


def _driver(spec: NetworkSpec) -> str:
    driver = spec.driver or "bridge"
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver in _ELSEWHERE:
        raise NotImplementedHere(f"networks with driver {driver!r} are not supported yet: use bridge")
    if driver != "bridge":
        raise PluginNotFound(driver)
    return driver


class PluginNotFound(ShoalError):
    """There is no such network driver (404)."""

    status = 404

    def __init__(self, driver: str) -> None:
        super().__init__(f'error looking up network plugin {driver}: plugin "{driver}" not found')


def _config(ipam: IPAM | None, version: int) -> IPAMConfig | None:
    found = [
        config
        for config in (ipam.config if ipam else None) or ()
        if config.subnet and ipaddress.ip_network(config.subnet).version == version
    ]
    if len(found) > 1:
        raise Forbidden("bridge driver doesn't support multiple subnets")
    return found[0] if found else None


def _gateway(config: IPAMConfig | None, subnet: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    """The one asked for, else the first address that is not taken for something else."""
    if config is not None and config.gateway:
        return str(ipaddress.ip_address(config.gateway))
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


def _pool(
    network: LocalNetwork, subnet: ipaddress.IPv4Network | ipaddress.IPv6Network, gateway: str
) -> AddressPool:
    config = _config(network.spec.ipam, subnet.version)
    reserved = [gateway, *((config.auxiliary_addresses or {}).values() if config is not None else ())]
    return AddressPool(subnet, config.ip_range if config is not None else "", reserved)
