"""An operator: replaces managers that lost their disk, promotes, demotes, removes and adds nodes."""

import asyncio
from random import Random
from typing import TYPE_CHECKING

from cluster.seams import SECOND
from cluster.states import Role
from tests.simulator.workload import Client, Unknown

if TYPE_CHECKING:
    from tests.simulator.node import SimNode
    from tests.simulator.world import World

NUMBER = 90
LOCKING = 0.3
"""In how many runs there is autolock."""
ROTATING, ROTATION_PACE = 0.4, 0.08
"""In how many runs the root CA is replaced, and how often in a second."""
LOCK_PACE = 0.15
"""Changes of the lock in a second."""


class Operator:
    """Works through the same API as everybody."""

    def __init__(self, world: "World", *, changes: bool) -> None:
        self.world = world
        self.client = Client(world, NUMBER)
        self.client.name = "operator"
        self.rng = Random(f"{world.seed} operator")
        self.pace = 0.04 if changes else 0.0
        self.locking = self.rng.random() < LOCKING
        self.ca = Random(f"{world.seed} root CA")
        self.rotating = self.ca.random() < ROTATING
        self.resting = False

    async def work(self) -> None:
        """Mend what is broken, and now and then change who is a manager."""
        due = self._due()
        while True:
            await asyncio.sleep(1)
            for node in self.world.nodes:
                if node.refused and node.powered:
                    await self.replace(node)
            if not self.resting and self.pace and self.world.loop.now >= due:
                due = self._due()
                await self._change()
            if not self.resting and self.locking and self.rng.random() < LOCK_PACE:
                await self.lock()
            if not self.resting and self.rotating and self.ca.random() < ROTATION_PACE:
                await self.rotate_ca()

    def _due(self) -> int:
        return self.world.loop.now + int(self.rng.expovariate(self.pace or 1) * SECOND)

    async def _change(self) -> None:
        nodes = [node for node in self.world.nodes if node.node_id and not node.gone and not node.refused]
        managers = [node for node in nodes if node.role == "manager"]
        workers = [node for node in nodes if node.role == "worker"]
        choice = self.rng.random()
        if choice < 0.4 and len(managers) > 1:
            await self.set_role(self.rng.choice(managers), "worker")
        elif choice < 0.8 and workers:
            await self.set_role(self.rng.choice(workers), "manager")
        elif workers:
            node = self.rng.choice(workers)
            await self.remove(node)
            await self.join(node, "worker")

    async def rotate_ca(self) -> None:
        """`docker swarm ca --rotate`, perhaps while another one is under way."""
        try:
            answer = await self.client.request("GET", "/swarm")
        except Unknown:
            return
        if answer.status != 200:
            return
        found = answer.json()
        spec, op = found["Spec"], self.client.op()
        spec["Labels"] = {**(spec.get("Labels") or {}), "op": op}
        spec["CAConfig"]["ForceRotate"] = spec["CAConfig"].get("ForceRotate", 0) + 1
        self.world.story.note("operator", "replaces the root CA")
        await self.client.write("POST", f"/swarm/update?version={found['Version']['Index']}", spec, op)

    async def lock(self) -> None:
        """Turn autolock on or off, or rotate the unlock key."""
        try:
            answer = await self.client.request("GET", "/swarm")
        except Unknown:
            return
        if answer.status != 200:
            return
        found = answer.json()
        spec, op = found["Spec"], self.client.op()
        spec["Labels"] = {**(spec.get("Labels") or {}), "op": op}
        if self.rng.random() < 0.6:
            locked = spec["EncryptionConfig"]["AutoLockManagers"]
            spec["EncryptionConfig"] = {"AutoLockManagers": not locked}
        query = f"version={found['Version']['Index']}&rotateManagerUnlockKey=true"
        await self.client.write("POST", f"/swarm/update?{query}", spec, op)

    async def set_role(self, node: "SimNode", role: str) -> None:
        """Promote or demote, once; a refusal is a refusal."""

        def change(spec: dict[str, object]) -> None:
            spec["Role"] = role

        await self.client.change_node(node.node_id, change, f"{node.name} to be {role}")

    async def replace(self, node: "SimNode") -> None:
        """A manager without its disk: its id goes for good, and it joins anew."""
        self.world.story.note("operator", f"replaces {node.name}: {node.refused}")
        await self.remove(node)
        await self.join(node, "manager")

    async def remove(self, node: "SimNode") -> None:
        """Demote a node if need be, and remove it, until it is gone."""
        client, node_id = self.client, node.node_id
        while (seen := await client.read(f"/nodes/{node_id}")) is not None:
            if seen["Spec"]["Role"] == "manager":

                def change(spec: dict[str, object]) -> None:
                    spec["Role"] = "worker"

                await client.change_node(node_id, change, f"demote {node.name}")
            elif "ManagerStatus" not in seen:
                await client.write("DELETE", f"/nodes/{node_id}?force=1", None, client.op())
            await asyncio.sleep(1)
        while not node.gone:  # it learns it from the managers, or its operator makes it leave
            await asyncio.sleep(1)
            if node.powered and node.the_agent is not None and not node.gone:
                node.wish_to_leave()
        while node.agent is not None and node.agent.alive:
            await asyncio.sleep(0.5)

    async def join(self, node: "SimNode", role: str) -> None:
        """Join again, as another node."""
        while True:
            token = self.world.token(Role(role))
            managers = [other.address for other in self.world.nodes if other.manages and other is not node]
            self.rng.shuffle(managers)
            if node.powered:
                process = self.world.process(f"{node.name}.join")
                try:
                    await process.start(node.join(process, token, managers), "try to join")
                    return
                except ConnectionError:
                    pass
            await asyncio.sleep(2)
