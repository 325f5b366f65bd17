"""A store with a running allocator, and short words for both."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.structs import replace

from cluster.objects import Cluster, Network, Node, Service, Task, TaskStatus
from cluster.spec import (
    IPAM,
    EndpointSpec,
    IPAMConfig,
    NetworkAttachmentConfig,
    NetworkSpec,
    PortConfig,
    ServiceSpec,
    TaskSpec,
)
from cluster.states import TaskState
from manager.allocator import Allocations, Allocator
from manager.store import Store
from tests.fakes.clock import ManualClock, settle
from tests.fakes.proposer import LocalProposer


def network(id: str, name: str = "", subnet: str = "", **spec: object) -> Network:
    """An overlay network as a user creates it."""
    ipam = IPAM(config=[IPAMConfig(subnet=subnet)]) if subnet else None
    return Network(id=id, spec=NetworkSpec(name=name or id, driver="overlay", ipam=ipam, **spec))


def service(
    id: str, name: str = "", *networks: str, ports: list[PortConfig] | None = None, mode: str = ""
) -> Service:
    """A service in these networks."""
    attachments = [NetworkAttachmentConfig(target=target, aliases=["alias"]) for target in networks]
    endpoint = EndpointSpec(mode=mode, ports=ports) if mode or ports else None
    return Service(
        id=id,
        spec=ServiceSpec(
            name=name or id, task_template=TaskSpec(networks=attachments or None), endpoint_spec=endpoint
        ),
    )


def task(id: str, of: Service, slot: int = 1) -> Task:
    """A new task of a service."""
    return Task(
        id=id,
        service_id=of.id,
        service_name=of.spec.name,
        slot=slot,
        spec=of.spec.task_template,
        spec_version=of.spec_version,
        desired_state=TaskState.RUNNING,
    )


def port(target: int, published: int = 0, mode: str = "ingress", protocol: str = "tcp") -> PortConfig:
    """A published port."""
    return PortConfig(target_port=target, published_port=published, publish_mode=mode, protocol=protocol)


class World:
    """The cluster as the allocator sees it."""

    def __init__(self, *, ipv6: bool = True) -> None:
        self.clock = ManualClock()
        self.store = Store(self.clock)
        self.proposer = LocalProposer(self.store)
        self.allocator = Allocator(self.store, self.clock, random.Random(1), ipv6=ipv6)

    async def create(self, *objects: object) -> None:
        await self.store.batch([lambda tx, obj=obj: tx.create(obj) for obj in objects])
        await settle()

    async def change(self, cls: type, id: str, **fields: object) -> None:
        await self.store.update(lambda tx: tx.update(replace(tx.get(cls, id), **fields)))
        await settle()

    async def delete(self, cls: type, id: str) -> None:
        await self.store.update(lambda tx: tx.delete(cls, id))
        await settle()

    async def end(self, id: str) -> None:
        await self.change(Task, id, status=TaskStatus(state=TaskState.COMPLETE))

    def network(self, name: str) -> Network:
        return self.store.view().by_name(Network, name)

    def service(self, id: str) -> Service:
        return self.store.view().get(Service, id)

    def task(self, id: str) -> Task:
        return self.store.view().get(Task, id)

    def node(self, id: str) -> Node:
        return self.store.view().get(Node, id)

    def addresses(self, task_id: str) -> dict[str, str]:
        """Network name → the task's address."""
        view = self.store.view()
        return {
            view.get(Network, one.network_id).spec.name: "".join(one.addresses)
            for one in self.task(task_id).networks
        }

    def vips(self, service_id: str) -> dict[str, str]:
        """Network name → the service's address."""
        view = self.store.view()
        return {
            view.get(Network, one.network_id).spec.name: one.address
            for one in self.service(service_id).endpoint.virtual_ips
        }

    def consistent(self) -> bool:
        """Whether what the allocator kept equals what the view says."""
        return self.allocator._state == Allocations.of(self.store.view())


@asynccontextmanager
async def running_world(cluster: Cluster | None = None, *, ipv6: bool = True) -> AsyncIterator[World]:
    """A world whose allocator runs; ends loudly when the allocator failed."""
    world = World(ipv6=ipv6)
    running = asyncio.ensure_future(world.allocator.run())
    try:
        await world.create(cluster or Cluster(id="cluster"))
        yield world
        await settle()
        assert not running.done(), running.exception()
        assert world.consistent()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
