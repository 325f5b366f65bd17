"""Who holds what: addresses, subnets, VNIs and published ports, read off the cluster's objects.

An object's claims follow from the object alone, so the state after any number of changes equals the state
built anew from the view.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from cluster.errors import Conflict, InvalidArgument
from cluster.objects import Network, Node, Service, StoreObject, Task
from cluster.seams import Clock
from cluster.states import TaskState
from manager.allocator.addresses import AddressPool, address_number
from manager.allocator.ports import Port, ingress_ports
from manager.allocator.resting import Resting
from manager.store import View

Claim = tuple[str, str, int]  # (what, where, number), see `claims`

ADDRESS = "address"  # (ADDRESS, network id, the address)
PORT = "port"  # (PORT, protocol, the published port)
VNI = "vni"  # (VNI, "", the identifier)
_SCARCE = 4
"""A network is short of addresses when less than this part of them is left, with those that rest."""


def claims(obj: StoreObject) -> frozenset[Claim]:
    """What the object holds. A task that has ended holds nothing; an orphaned one, whose container may still
    run, has its addresses until the orphan keeper takes them away."""
    return frozenset(_claims(obj))


def _claims(obj: StoreObject) -> Iterable[Claim]:
    if isinstance(obj, Task) and (not obj.status.state.terminal or obj.status.state is TaskState.ORPHANED):
        for attachment in obj.networks:
            for address in attachment.addresses:
                yield ADDRESS, attachment.network_id, address_number(address)
    elif isinstance(obj, Service) and obj.endpoint is not None:
        for vip in obj.endpoint.virtual_ips:
            if vip.address:
                yield ADDRESS, vip.network_id, address_number(vip.address)
        for port in ingress_ports(obj.endpoint.ports):
            if port.published_port:
                yield PORT, port.protocol, port.published_port
    elif isinstance(obj, Node):
        for network_id, address in obj.attachments.items():
            yield ADDRESS, network_id, address_number(address)
        for container in obj.containers:
            if container.address:
                yield ADDRESS, container.network_id, address_number(container.address)
    elif isinstance(obj, Network) and obj.vni:
        yield VNI, "", obj.vni


class Allocations:
    """All claims, by object and by what is claimed."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Args: clock: the leader's; None: what is given back can be had again at once."""
        self.resting = Resting(clock)
        self._claims: dict[str, frozenset[Claim]] = {}
        self._holders: dict[str, dict[tuple[str, int], str]] = {ADDRESS: {}, PORT: {}, VNI: {}}
        self._used: dict[str, set[int]] = {}
        # How many hold an address, in whatever network: tasks may still have one of a network that was
        # removed when another has its subnet.
        self._numbers: Counter[int] = Counter()
        self._pools: dict[str, AddressPool] = {}
        self._subnets: dict[str, tuple[str, ...]] = {}
        self.released = 0  # rises whenever something becomes free

    @classmethod
    def of(cls, view: View, clock: Clock | None = None) -> "Allocations":
        """What the objects of a view hold."""
        state = cls(clock)
        for network in view.all(Network):
            state.put(network)
        for kind in (Node, Service, Task):
            for obj in view.all(kind):
                state.put(obj)
        for task in view.all(Task):  # created last, allocated last: the next address comes after theirs
            for attachment in task.networks:
                pool = state._pools.get(attachment.network_id)
                if pool is not None and attachment.addresses:
                    pool.went_to(address_number(attachment.addresses[0]))
        state.resting.take_up(task for task in view.all(Task) if not claims(task))
        return state

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Allocations) and (
            (self._claims, self._holders, self._subnets, self._numbers)
            == (other._claims, other._holders, other._subnets, other._numbers)
        )

    __hash__ = None  # type: ignore[assignment]

    def put(self, obj: StoreObject) -> None:
        """An object is new or changed."""
        if isinstance(obj, Network):
            subnets = tuple(subnet.subnet for subnet in (*obj.subnets, *obj.subnets6))
            if subnets and self._subnets.get(obj.id) != subnets:
                self._subnets[obj.id] = subnets
                self._pools[obj.id] = AddressPool(obj.subnets, obj.subnets6)
        self._replace(obj, claims(obj))

    def drop(self, obj: StoreObject) -> None:
        """An object was removed."""
        if isinstance(obj, Network) and obj.id in self._subnets:
            self.resting.note_subnets(self._subnets[obj.id])
            del self._subnets[obj.id], self._pools[obj.id]
            self.released += 1
        self._replace(obj, frozenset())

    def _replace(self, obj: StoreObject, new: frozenset[Claim]) -> None:
        id = obj.id
        old = self._claims.get(id, frozenset())
        if new == old:
            return
        for what, where, number in old - new:
            if what == ADDRESS:
                self._numbers[number] -= 1
                if not self._numbers[number]:
                    del self._numbers[number]
            if self._holders[what].get((where, number)) == id:
                del self._holders[what][(where, number)]
                self.released += 1
                if what == ADDRESS:
                    self._used[where].discard(number)
                    self.resting.note(number, obj.service_id if isinstance(obj, Task) else "")
        for what, where, number in new - old:
            self._holders[what][(where, number)] = id
            if what == ADDRESS:
                self._used.setdefault(where, set()).add(number)
                self._numbers[number] += 1
        if new:
            self._claims[id] = new
        else:
            self._claims.pop(id, None)

    # --- what is free ---------------------------------------------------------------------------------

    def holder(self, claim: Claim) -> str | None:
        """The id of the object that holds it."""
        what, where, number = claim
        return self._holders[what].get((where, number))

    def next_address(self, network_id: str, service_id: str = "") -> str | None:
        """A free address of the network; None when it has none left or no subnet yet. It is not held until
        an object with it is `put`. `service_id`: it is for a task of that service.

        When few are left, a task rather gets one that another of its service had, so that others get those.
        """
        pool = self._pools.get(network_id)
        if pool is None:
            return None
        used, resting = self._used.get(network_id, ()), self.resting.addresses
        if pool.size - len(used) - len(resting) < pool.size // _SCARCE:
            return self._inherited(pool, service_id) or pool.next_free(used, self._numbers, resting)
        return pool.next_free(used, self._numbers, resting) or self._inherited(pool, service_id)

    def _inherited(self, pool: AddressPool, service_id: str) -> str | None:
        """An address of the pool that rests after a task of this service had it."""
        for number in self.resting.of_service(service_id):
            if number not in self._numbers and (found := pool.with_prefix(number)) is not None:
                return found
        return None

    def wanted_address(self, network_id: str, text: str) -> str:
        """The address of the network that somebody wants. One that rests is free, too: who names it wants to
        be taken for its last holder. Raises Conflict when it is taken, InvalidArgument when it is none."""
        pool = self._pools.get(network_id)
        address = pool.this_one(text) if pool is not None else None
        if address is None:
            raise InvalidArgument(f"address {text} is not one that the network's subnets have to give")
        if address_number(address) in self._used.get(network_id, ()):
            raise Conflict(f"address {text} is taken: leave it out, or name a free one")
        return address

    def capacity(self, network_id: str) -> int:
        """How many addresses the network can hand out in all."""
        pool = self._pools.get(network_id)
        return pool.size if pool is not None else 0

    @property
    def subnets(self) -> list[str]:
        """All subnets in use."""
        return [subnet for subnets in self._subnets.values() for subnet in subnets]

    @property
    def vnis(self) -> set[int]:
        """All VNIs in use."""
        return {number for _, number in self._holders[VNI]}

    @property
    def ports(self) -> Mapping[Port, str]:
        """Published ports and the services that have them."""
        return self._holders[PORT]
