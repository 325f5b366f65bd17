"""The networks of this node alone: the predefined three, those that users make, networks that only hold
settings for others (config-only), and its part of swarm-scoped networks whose addresses are the nodes'."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.dataplane import NetworkRecord
from cluster.errors import Forbidden, NotFound
from cluster.ids import new_container_id
from cluster.seams import Clock, Random
from cluster.spec import NetworkReference, NetworkSpec
from cluster.validate_ipam import check_ipam
from netplane.config_networks import check_settings_only, completed
from netplane.drivers import DRIVERS, chosen
from netplane.drivers.addressing import pools
from netplane.drivers.children import most
from netplane.drivers.driver import Draft
from netplane.errors import InvalidNetwork, NetworkError, NetworkInUse, NetworkNotFound, PredefinedNetwork
from netplane.model import Interface, LocalNetwork, Segment
from netplane.pool import AddressPool
from netplane.storage import Storage

log = logging.getLogger("shoal.netplane")

PREDEFINED = {"bridge": "bridge", "host": "host", "none": "null"}
SWARM = "swarm"


@dataclass
class _Open:
    """A network that sandboxes are plugged into. No segment: its device is gone."""

    segment: Segment | None
    pool: AddressPool | None
    pool6: AddressPool | None


class LocalNetworks:
    """Keeps the list on disk and its devices in the kernel. Its methods block: run them in a thread."""

    def __init__(self, storage: Storage, clock: Clock, rng: Random, default_subnet: str = "") -> None:
        self._storage = storage
        self._clock = clock
        self._rng = rng
        self._default_subnet = default_subnet
        self._networks: dict[str, LocalNetwork] = {}
        self._open: dict[str, _Open] = {}

    def open(self) -> None:
        """Load the list, add the predefined networks where they are missing, and open every network.

        One whose device is not there (any more) is told of, and tried again when it is next used.
        """
        self._networks = {network.id: network for network in self._storage.load_networks()}
        present = {network.name for network in self._networks.values()}
        for name, driver in PREDEFINED.items():
            if name not in present:
                spec = NetworkSpec(name=name, driver=driver, scope="local")
                network = self._plan(new_container_id(self._rng), spec, driver, predefined=True)
                self._networks[network.id] = network
        self._save()
        for network in self._networks.values():
            if network.subnet or network.subnet6:
                self._open[network.id] = _Open(None, *pools(network, most(network)))
            try:
                self._raise(network)
            except NetworkError as error:
                if network.driver == "bridge":
                    raise
                log.warning("network %s can't be used: %s", network.name, error)
        for each in DRIVERS.values():
            each.sweep(self._networks.values())

    def all(self) -> Mapping[str, LocalNetwork]:
        """Every local network by id."""
        return dict(self._networks)

    def find(self, name_or_id: str) -> LocalNetwork | None:
        """A network by id or name."""
        found = self._networks.get(name_or_id)
        return found or next((each for each in self._networks.values() if each.name == name_or_id), None)

    def segments(self) -> Iterable[Segment]:
        """The bridges: what the host's rules speak of."""
        found = [each.segment for each in list(self._open.values())]  # another thread may add some
        return [segment for segment in found if segment is not None and segment.child is None]

    def segment(self, network_id: str) -> Segment | None:
        """What sandboxes of a network are plugged into; None if it takes none."""
        found = self._open.get(network_id)
        return found.segment if found else None

    def renewed(self, network_id: str) -> Segment | None:
        """The segment, looked up in the kernel again where its device is not Shoal's alone. Raises
        NetworkError if that is gone."""
        network, segment = self._networks[network_id], self.segment(network_id)
        if segment is None or segment.child is not None:
            segment = self._raise(network)
        return segment

    def pool(self, network_id: str) -> AddressPool | None:
        """The IPv4 addresses of a network; None if it has none."""
        return self._open[network_id].pool

    def pool6(self, network_id: str) -> AddressPool | None:
        """The IPv6 addresses of a network; None if it has none."""
        return self._open[network_id].pool6

    def claim(self, interface: Interface) -> None:
        """Take over the addresses of an interface of an earlier run. Raises AddressUnavailable."""
        for pool, address in self._held(interface):
            pool.allocate(address)

    def release(self, interface: Interface) -> None:
        """Give the addresses of an interface back; those of other networks are none of this node's."""
        for pool, address in self._held(interface):
            pool.release(address)

    def _held(self, interface: Interface) -> list[tuple[AddressPool, str]]:
        found = self._open.get(interface.network_id)
        if found is None:
            return []
        pairs = ((found.pool, interface.address), (found.pool6, interface.address6))
        return [(pool, address) for pool, address in pairs if pool is not None and address]

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
        identifier = new_container_id(self._rng)
        if spec.config_only:
            check_settings_only(spec)
            return self._keep(self._plan(identifier, spec, "null"))
        spec = completed(spec, self.find)
        return self._make(identifier, spec, chosen(spec.driver))

    def take_part(self, record: NetworkRecord) -> LocalNetwork:
        """This node's part of a swarm-scoped network whose addresses are the nodes'; made once. Its settings
        are those of the node's own network that the record names. Raises what `create` does."""
        if (present := self._networks.get(record.id)) is not None:
            return present
        spec = NetworkSpec(
            name=record.name,
            driver=record.driver,
            scope=SWARM,
            internal=record.internal,
            attachable=record.attachable,
            labels=record.labels,
            config_from=NetworkReference(record.config_from) if record.config_from else None,
            options=None if record.config_from else record.options,
        )
        try:
            spec = completed(spec, self.find)
        except NotFound as error:
            raise NetworkError(
                f"{error} on this node: make it with `docker network create --config-only`, then network "
                f"{record.name} can be used here"
            ) from error
        return self._make(record.id, spec, record.driver)

    def unused_parts(self, in_use: Iterable[str]) -> list[LocalNetwork]:
        """The parts of swarm-scoped networks that no sandbox is in."""
        keep = set(in_use)
        return [each for each in self._networks.values() if each.spec.scope == SWARM and each.id not in keep]

    def remove(self, network_id: str) -> None:
        """Remove a network that no sandbox is in."""
        network = self._networks.get(network_id)
        if network is None:
            raise NetworkNotFound(network_id)
        if network.predefined:
            raise PredefinedNetwork(f"{network.name} is a pre-defined network and cannot be removed")
        for other in self._networks.values():
            named = other.spec.config_from.network if other.spec.config_from is not None else ""
            if network.spec.config_only and named == network.name:
                raise Forbidden(f'configuration network "{network.name}" is in use')
        del self._networks[network_id]
        self._save()
        self._open.pop(network_id, None)
        DRIVERS[network.driver].close(network, self._networks.values())

    def _plan(self, id: str, spec: NetworkSpec, driver: str, *, predefined: bool = False) -> LocalNetwork:
        check_ipam(spec.ipam, ipv6=spec.enable_ipv6)
        draft = Draft(
            id=id,
            spec=spec,
            driver=driver,
            created_at=self._clock.now(),
            rng=self._rng,
            others=self._networks.values(),
            predefined=predefined,
            subnet=self._default_subnet if predefined else "",
        )
        return DRIVERS[driver].plan(draft)

    def _make(self, id: str, spec: NetworkSpec, driver: str) -> LocalNetwork:
        """Plan, open and keep a network. What fails in the middle leaves nothing."""
        network = self._plan(id, spec, driver)
        try:
            segment = self._raise(network)
            if segment is not None:
                DRIVERS[driver].check(segment)
            return self._keep(network)
        except BaseException:
            self._networks.pop(network.id, None)
            self._open.pop(network.id, None)
            DRIVERS[driver].close(network, self._networks.values())
            raise

    def _keep(self, network: LocalNetwork) -> LocalNetwork:
        self._networks[network.id] = network
        self._save()
        return network

    def _save(self) -> None:
        self._storage.save_networks(list(self._networks.values()))

    def _raise(self, network: LocalNetwork) -> Segment | None:
        segment = DRIVERS[network.driver].open(network)
        if segment is None:
            return None
        if (present := self._open.get(network.id)) is not None:
            present.segment = segment
        else:
            self._open[network.id] = _Open(segment, *pools(network, most(network)))
        return segment
