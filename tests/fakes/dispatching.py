"""A leading manager's store and dispatcher, with agents in memory, on virtual time."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.structs import replace

from cluster.objects import (
    Endpoint,
    Network,
    NetworkAttachment,
    Node,
    Service,
    StoreObject,
    Subnet,
    Task,
    TaskStatus,
    VirtualIP,
)
from cluster.seams import MILLISECOND
from cluster.spec import NetworkSpec, NodeSpec, ServiceSpec
from cluster.states import Role, TaskState
from manager.dispatcher import Dispatcher
from manager.store import Store
from tests.fakes.agent import FakeAgent
from tests.fakes.clock import ManualClock, settle
from tests.fakes.proposer import LocalProposer


class Cluster:
    """A leading manager's store and dispatcher."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = Store(self.clock, random.Random(1))
        self.proposer = LocalProposer(self.store)
        self.dispatcher = Dispatcher(self.store, self.clock, random.Random(2), lambda: "10.0.0.1:2377")
        self.agents: list[FakeAgent] = []

    async def put(self, *objects: StoreObject) -> None:
        def change(tx):  # type: ignore[no-untyped-def]
            for obj in objects:
                stored = tx.get(type(obj), obj.id)
                if stored is None:
                    tx.create(obj)
                else:
                    tx.update(replace(obj, version=stored.version))

        await self.store.update(change)

    def get(self, cls, id):  # type: ignore[no-untyped-def]
        found = self.store.view().get(cls, id)
        assert found is not None
        return found

    async def delete(self, obj: StoreObject) -> None:
        await self.store.update(lambda tx: tx.delete(type(obj), obj.id))

    async def nodes(self, *ids: str) -> None:
        await self.put(*(Node(id=id, spec=NodeSpec()) for id in ids))

    async def agent(self, node_id: str, role: Role = Role.WORKER) -> FakeAgent:
        agent = FakeAgent(self.dispatcher, node_id, role)
        self.agents.append(agent)
        await settle()
        agent.listen()
        return agent

    async def talk(self, nanoseconds: int = 20 * MILLISECOND) -> None:
        """Let time pass with all agents listening."""
        for _ in range(4):
            await self.clock.advance(nanoseconds // 4)
            for agent in self.agents:
                agent.listen()
            await settle()

    async def web(self, network: bool = True) -> None:
        """A service in an overlay network, with one running task on each of n1 and n2."""
        await self.put(
            Network(
                id="net",
                spec=NetworkSpec(name="net"),
                subnets=(Subnet(subnet="10.9.0.0/24"),),
                vni=4097,
            ),
            Service(
                id="web",
                spec=ServiceSpec(name="web"),
                endpoint=Endpoint(virtual_ips=(VirtualIP(network_id="net", address="10.9.0.2/24"),)),
            ),
            *(
                Task(
                    id=f"t{number}",
                    service_id="web",
                    service_name="web",
                    slot=number,
                    node_id=f"n{number}",
                    status=TaskStatus(state=TaskState.RUNNING),
                    desired_state=TaskState.RUNNING,
                    networks=(
                        (NetworkAttachment(network_id="net", addresses=(f"10.9.0.{number + 2}/24",)),)
                        if network
                        else ()
                    ),
                )
                for number in (1, 2)
            ),
        )


@asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[None]:
    leading = asyncio.create_task(cluster.dispatcher.run())
    await settle()
    try:
        yield
    finally:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await settle()
        for agent in cluster.agents:
            agent.serving.cancel()
        results = await asyncio.gather(*(agent.serving for agent in cluster.agents), return_exceptions=True)
        assert not [error for error in results if isinstance(error, Exception)]
