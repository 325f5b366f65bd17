"""The networks of this node alone: the predefined three, and bridges that users make."""

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.dataplane import mac_for
from cluster.ids import new_container_id
from cluster.seams import Clock, Random
from cluster.spec import NetworkSpec
from netplane import links
from netplane.errors import InvalidNetwork, NetworkInUse, NetworkNotFound, PredefinedNetwork
from netplane.model import LocalNetwork, Segment
from netplane.pool import AddressPool, free_subnet, parse_subnet
from netplane.storage import Storage

BRIDGE_PREFIX = "shb"
DEFAULT_DEVICE = "shoal0"
_MTU_OPTION = "com.docker.network.driver.mtu"
_NAME_OPTION = "com.docker.network.bridge.name"
_PREDEFINED = {"bridge": "bridge", "host": "host", "none": "null"}


@dataclass
class _Bridge:
    segment: Segment
    pool: AddressPool


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
        for name, driver in _PREDEFINED.items():
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
        """The addresses of a network."""
        return self._bridges[network_id].pool

    def create(self, spec: NetworkSpec) -> LocalNetwork:
        """Make a network and its bridge."""
        driver = spec.driver or "bridge"
        if driver != "bridge":
            raise InvalidNetwork(
                f"local networks with driver {driver!r} are not supported: use bridge, or overlay (swarm)"
            )
        if not spec.name:
            raise InvalidNetwork("a network needs a name")
        if self.find(spec.name) is not None:
            raise NetworkInUse(f"network with name {spec.name} already exists")
        network = self._plan(spec, driver, predefined=False)
        bridge = self._raise(network)
        self._networks[network.id] = network
        self._bridges[network.id] = bridge
        self._storage.save_networks(list(self._networks.values()))
        return network

    def remove(self, network_id: str) -> None:
        """Remove a network that no sandbox is in."""
        network = self._networks.get(network_id)
        if network is None:
            raise NetworkNotFound(network_id)
        if network.predefined:
            raise PredefinedNetwork(f"{network.name} is a pre-defined network and cannot be removed")
        del self._networks[network_id]
        self._bridges.pop(network_id)
        self._storage.save_networks(list(self._networks.values()))
        links.delete_links([network.bridge])

    def _plan(self, spec: NetworkSpec, driver: str, *, predefined: bool) -> LocalNetwork:
        identifier = new_container_id(self._rng)
        if driver != "bridge":
            return LocalNetwork(identifier, spec.name, driver, self._clock.now(), spec, predefined=predefined)
        options = spec.options or {}
        subnet, gateway = self._choose_subnet(spec, predefined=predefined)
        digest = hashlib.blake2b(identifier.encode(), digest_size=5).hexdigest()
        device = DEFAULT_DEVICE if predefined else options.get(_NAME_OPTION, BRIDGE_PREFIX + digest)
        try:
            mtu = int(options.get(_MTU_OPTION, "1500"))
        except ValueError as error:
            raise InvalidNetwork(f"{_MTU_OPTION} must be a number of bytes") from error
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
            bridge=device,
            mtu=mtu,
            predefined=predefined,
        )

    def _choose_subnet(self, spec: NetworkSpec, *, predefined: bool) -> tuple[ipaddress.IPv4Network, str]:
        own = [ipaddress.IPv4Network(each.subnet) for each in self._networks.values() if each.subnet]
        config = spec.ipam.config[0] if spec.ipam and spec.ipam.config else None
        if config is not None and config.subnet:
            subnet = parse_subnet(config.subnet)
            if any(subnet.overlaps(each) for each in own):
                raise NetworkInUse(f"subnet {subnet} overlaps with that of another network")
        elif predefined and self._default_subnet:
            subnet = ipaddress.IPv4Interface(self._default_subnet).network
        else:
            used = own + links.routed_subnets(ignore={DEFAULT_DEVICE} if predefined else set())
            subnet = free_subnet(used)
        gateway = config.gateway if config is not None and config.gateway else str(subnet[1])
        if ipaddress.IPv4Address(gateway) not in subnet:
            raise InvalidNetwork(f"gateway {gateway} is not in subnet {subnet}")
        return subnet, gateway

    def _raise(self, network: LocalNetwork) -> _Bridge:
        subnet = ipaddress.IPv4Network(network.subnet)
        index = links.ensure_bridge(
            network.bridge,
            mac=mac_for(network.gateway),
            mtu=network.mtu,
            address=f"{network.gateway}/{subnet.prefixlen}",
        )
        config = network.spec.ipam.config[0] if network.spec.ipam and network.spec.ipam.config else None
        reserved = [network.gateway]
        if config is not None:
            reserved += (config.auxiliary_addresses or {}).values()
        pool = AddressPool(subnet, config.ip_range if config else "", reserved)
        segment = Segment(
            network_id=network.id,
            bridge=network.bridge,
            index=index,
            mtu=network.mtu,
            subnet=subnet,
            gateway=network.gateway,
            internal=network.internal,
            resolves_names=not network.predefined,
        )
        return _Bridge(segment, pool)
