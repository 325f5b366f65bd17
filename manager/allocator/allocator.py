"""The allocator: numbers networks, gives nodes, services and tasks their addresses and ports."""

import asyncio
import logging
from collections.abc import Iterable

from cluster.objects import Cluster, Network, Node, Service, Task
from cluster.seams import Clock, Random, system_random
from manager.allocator import networks
from manager.allocator.claims import Allocations
from manager.allocator.plan import Key, Plan, to_allocate
from manager.store import Event, Store, Transaction, View, Watch, restarting

log = logging.getLogger("shoal.allocator")


class Allocator:
    """Runs on the leader. What can't be allocated waits, with the reason in its tasks' status, until
    something becomes free or a network or service changes.
    """

    def __init__(
        self, store: Store, clock: Clock, random: Random | None = None, *, ipv6: bool = True
    ) -> None:
        """Args: ipv6: whether the ingress network of a new cluster has IPv6 beside IPv4."""
        self._store = store
        self._clock = clock
        self._random = random or system_random()
        self._ipv6 = ipv6
        self._state = Allocations(clock)
        self._todo: dict[Key, None] = {}
        self._blocked: dict[Key, str] = {}
        self._released = 0

    async def run(self) -> None:
        """Allocate until cancelled."""
        await restarting("allocator", self._session, self._clock)

    async def _session(self) -> None:
        view, watch = self._store.watch(Cluster, Network, Node, Service, Task)
        with watch:
            self._state = Allocations.of(view, self._clock)
            self._released = self._state.released
            self._blocked = {}
            self._todo = {(cls, obj.id): None for cls in (Network, Node, Service) for obj in view.all(cls)}
            self._todo |= {(Task, task.id): None for task in view.all(Task) if to_allocate(task)}
            while True:
                await self._tick()
                await self._wait(watch)
                for events in watch.pending():
                    self._note(events)

    async def _wait(self, watch: Watch) -> None:
        """Until something happened, or something waits and an address has rested."""
        end = self._state.resting.next_end() if self._blocked else None
        if end is None or watch.waiting:
            await watch.ready()
            return
        async with asyncio.TaskGroup() as group:
            ready = group.create_task(watch.ready())
            rested = group.create_task(self._clock.sleep(end - self._clock.monotonic()))
            await asyncio.wait((ready, rested), return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            rested.cancel()
        if self._clock.monotonic() >= end:
            self._again(*self._blocked)

    # --- what happened --------------------------------------------------------------------------------

    def _note(self, events: Iterable[Event]) -> None:
        for event in events:
            obj, key = event.object, (type(event.object), event.object.id)
            if event.new is None:
                self._state.drop(obj)
                if key in self._blocked:
                    del self._blocked[key]
                if key in self._todo:
                    del self._todo[key]
            else:
                self._state.put(obj)
            match obj:
                case Network():
                    self._note_network(obj)
                case Service() if event.new is not None:
                    if not isinstance(event.old, Service) or event.old.spec != obj.spec:
                        self._again(key)
                case Task() if event.new is not None and to_allocate(obj) and key not in self._blocked:
                    self._todo[key] = None
                case Node() if event.new is not None and (event.old is None or _waits(obj)):
                    self._again(key)
        if self._state.released != self._released:
            self._released = self._state.released
            self._again(*self._blocked)

    def _note_network(self, network: Network) -> None:
        self._again((Network, network.id), *self._blocked)
        if network.spec.ingress:
            view = self._store.view()
            self._again(*((Node, node.id) for node in view.all(Node)))
            self._again(*((Service, service.id) for service in view.all(Service)))

    def _again(self, *keys: Key) -> None:
        for key in keys:
            self._blocked.pop(key, None)
            self._todo[key] = None
            if key[0] is Service:  # its tasks wait for the same reason
                for blocked in [other for other in self._blocked if other[0] is Task]:
                    del self._blocked[blocked]
                    self._todo[blocked] = None

    # --- what to do -----------------------------------------------------------------------------------

    async def _tick(self) -> None:
        view = self._store.view()
        if view.cluster() is None:
            return
        if await self._create_first_networks(view):
            return  # to go on from a view that has them
        todo, self._todo = self._todo, {}
        if not todo:
            return
        plan = Plan(view, self._state, self._blocked, self._clock.now())
        before = dict(self._blocked)
        plan.allocate_networks(_ids(todo, Network))
        plan.allocate_nodes(_ids(todo, Node))
        plan.allocate_services(_ids(todo, Service))
        plan.allocate_tasks(_ids(todo, Task))
        for (cls, id), reason in self._blocked.items():
            if before.get((cls, id)) != reason:
                log.warning("allocation waits", extra={"kind": cls.kind, "id": id, "reason": reason})
        await self._store.batch(plan.writes)

    async def _create_first_networks(self, view: View) -> bool:
        """Whether the networks of a new cluster had to be created. An ingress network that the user removed
        later stays removed."""
        if any(network.predefined for network in view.all(Network)):
            return False
        found = networks.first_networks(self._random, ipv6=self._ipv6)

        def create(transaction: Transaction) -> None:
            for network in found:
                if transaction.by_name(Network, network.spec.name) is None:
                    transaction.create(network)

        await self._store.update_retrying(create)
        return True


def _waits(node: Node) -> bool:
    """Whether containers of the node wait for their addresses."""
    return any(not each.address and not each.error for each in node.containers)


def _ids(keys: Iterable[Key], cls: type) -> list[str]:
    return [id for kind, id in keys if kind is cls]
