"""Clients of the cluster: random work through the real API, retried as people and tools retry."""

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.consistency import READ, WRITE
from cluster.seams import SECOND
from manager.api.app import NOT_DONE
from tests.simulator.http import Caller, NotConnected, Request, Response
from tests.simulator.network import Certificate

if TYPE_CHECKING:
    from tests.simulator.node import SimNode
    from tests.simulator.world import World

NANO = SECOND
PATIENCE = 40.0
"""Seconds that a client waits for an answer."""


class Unknown(Exception):
    """No answer came: the request may or may not have been carried out."""


class Client:
    """One client. It talks to any manager, and takes another when one does not answer."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.name = f"client{number}"
        self.rng = Random(f"{world.seed} {self.name}")
        self.process = world.process(self.name)
        host = f"198.51.100.{number}"
        self.caller = Caller(world.network, self.process, host, Certificate("", "worker", ""), "api")
        self.operations = 0
        self.at: SimNode | None = None

    async def request(self, method: str, path: str, body: Any = None) -> Response:
        """One request to some manager. Raises Unknown."""
        checks = self.world.checks
        content = b"" if body is None else msgspec.json.encode(body)
        while True:
            managers = [node for node in self.world.nodes if node.manages and node.powered]
            if self.at not in managers or self.rng.random() < 0.1:
                self.at = self.rng.choice(managers) if managers else None
            if self.at is None:
                await asyncio.sleep(0.5)
                continue
            floor = checks.acknowledged
            try:
                answer = await self.caller.ask(self.at.address, Request(method, path, {}, content), PATIENCE)
            except NotConnected:
                self.at = None
                await asyncio.sleep(0.2 + self.rng.random() * 0.3)
                continue
            except OSError as error:
                self.at = None
                raise Unknown(str(error)) from error
            if READ in answer.headers:
                self._check_read(method, path, answer, floor)
            return answer

    def _check_read(self, method: str, path: str, answer: Response, floor: int) -> None:
        words = answer.headers[READ].split("; ")
        index = int(words[1].partition("=")[2])
        if words[0] == "confirmed" and index < floor:
            self.world.checks.violated(
                f"{self.name}: {method} {path} was confirmed at index {index}, "
                f"after a write at {floor} had been acknowledged"
            )

    async def read(self, path: str) -> Any:
        """A confirmed read, tried until it is answered; None for 404."""
        while True:
            try:
                answer = await self.request("GET", path)
            except Unknown:
                continue
            if answer.status == 404:
                return None
            if answer.status == 200:
                return answer.json()
            if answer.status == 403:
                self.at = None  # that manager was demoted
            elif answer.status < 500:
                raise AssertionError(f"GET {path}: {answer.status} {answer.message}")
            await asyncio.sleep(0.5)

    async def write(self, method: str, path: str, body: Any, op: str) -> Response | None:
        """A write, once. None: its outcome is unknown. What it says is checked against the log."""
        story, checks = self.world.story, self.world.checks
        story.note(self.name, f"{method} {path} {op} at {self.at}")
        try:
            answer = await self.request(method, path, body)
        except Unknown as error:
            story.note(self.name, f"{op}: no answer ({error})")
            return None
        said = answer.headers.get(WRITE, answer.message if answer.status >= 400 else "")
        story.note(self.name, f"{op}: {answer.status} {said}")
        if answer.status < 300:
            checks.acknowledged_write(self.name, op, method, answer)
        elif answer.status < 500 or NOT_DONE in answer.headers:
            checks.refused_write(self.name, op)
        else:
            return None
        return answer

    def op(self) -> str:
        """A name for the next write, which is stored with it."""
        self.operations += 1
        return f"{self.name}-{self.operations}"

    async def work(self) -> None:
        """Random operations until cancelled."""
        rng = self.rng
        while True:
            await asyncio.sleep(rng.expovariate(self.world.pace))
            kinds = (self.create, self.update, self.scale, self.remove, self.make_secret, self.node)
            weights = (4, 5, 3, 1, 1, 1)
            await rng.choices(kinds, weights)[0]()

    # --- services -----------------------------------------------------------------------------------------

    def _spec(self, name: str, op: str) -> dict[str, Any]:
        rng, world = self.rng, self.world
        image = f"{rng.choice(world.images)}:1"
        container: dict[str, Any] = {"Image": image}
        if world.secrets and rng.random() < 0.4:
            id_, secret = rng.choice(sorted(world.secrets.items()))
            target = {"Name": secret, "UID": "0", "GID": "0", "Mode": 292}
            container["Secrets"] = [{"SecretID": id_, "SecretName": secret, "File": target}]
        template: dict[str, Any] = {
            "ContainerSpec": container,
            "RestartPolicy": {
                "Condition": "on-failure" if image.startswith("ending") else "any",
                "Delay": rng.choice((0, NANO, 3 * NANO)),
            },
        }
        if rng.random() < 0.6:
            template["Networks"] = [{"Target": "net"}]
        mode = {"Global": {}} if rng.random() < 0.2 else {"Replicated": {"Replicas": rng.randrange(1, 5)}}
        spec = {
            "Name": name,
            "Labels": {"op": op},
            "TaskTemplate": template,
            "Mode": mode,
            "UpdateConfig": self._update_config(),
            "RollbackConfig": {**self._update_config(), "FailureAction": "pause"},
        }
        if rng.random() < 0.3:
            port = {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": rng.choice((0, 0, 8080, 8081))}
            spec["EndpointSpec"] = {"Ports": [port]}
        return spec

    def _update_config(self) -> dict[str, Any]:
        rng = self.rng
        return {
            "Parallelism": rng.choice((0, 1, 1, 2)),
            "Delay": rng.choice((0, NANO)),
            "FailureAction": rng.choice(("pause", "continue", "rollback")),
            "Monitor": 2 * NANO,
            "Order": rng.choice(("stop-first", "start-first")),
        }

    async def create(self) -> None:
        world = self.world
        if len(world.services) >= world.most_services:
            await self.update()
            return
        op = self.op()
        name = f"s-{op}"
        answer = await self.write("POST", "/services/create", self._spec(name, op), op)
        if answer is None:
            await asyncio.sleep(1)
            if await self.read(f"/services/{name}") is not None:
                world.services.append(name)
        elif answer.status < 300:
            world.services.append(name)

    async def _change(self, change: Any) -> None:
        world = self.world
        if not world.services:
            return
        name = self.rng.choice(world.services)
        service = await self.read(f"/services/{name}")
        if service is None:
            return
        op = self.op()
        spec = service["Spec"]
        spec["Labels"] = {**(spec.get("Labels") or {}), "op": op}
        change(spec)
        version = service["Version"]["Index"]
        path = f"/services/{service['ID']}/update?version={version}"
        await self.write("POST", path, spec, op)

    async def update(self) -> None:
        def change(spec: dict[str, Any]) -> None:
            container = spec["TaskTemplate"]["ContainerSpec"]
            name, _, tag = container["Image"].partition(":")
            if self.rng.random() < 0.15:
                name = self.rng.choice(self.world.images)
            container["Image"] = f"{name}:{int(tag) % 5 + 1}"

        await self._change(change)

    async def scale(self) -> None:
        def change(spec: dict[str, Any]) -> None:
            if "Replicated" in spec["Mode"]:
                spec["Mode"]["Replicated"]["Replicas"] = self.rng.randrange(0, 6)

        await self._change(change)

    async def remove(self) -> None:
        world = self.world
        if len(world.services) > 1:
            name = world.services.pop(self.rng.randrange(len(world.services)))
            await self.write("DELETE", f"/services/{name}", None, self.op())
            while await self.read(f"/services/{name}") is not None:
                await self.write("DELETE", f"/services/{name}", None, self.op())
                await asyncio.sleep(0.5)

    async def make_secret(self) -> None:
        op = self.op()
        name = f"secret-{op}"
        body = {"Name": name, "Data": "c2VjcmV0", "Labels": {"op": op}}
        answer = await self.write("POST", "/secrets/create", body, op)
        if answer is not None and answer.status < 300:
            self.world.secrets[answer.json()["ID"]] = name

    async def make_network(self, name: str) -> None:
        """The network that services join."""
        while await self.read(f"/networks/{name}") is None:
            op = self.op()
            # Small, so that addresses are used again.
            ipam = {"Driver": "default", "Config": [{"Subnet": "10.77.0.0/27"}]}
            body = {"Name": name, "Driver": "overlay", "Labels": {"op": op}, "IPAM": ipam}
            await self.write("POST", "/networks/create", body, op)
            await asyncio.sleep(0.5)

    # --- nodes --------------------------------------------------------------------------------------------

    async def change_node(self, node_id: str, change: Any, what: str) -> Response | None:
        """Read, change and write a node's spec. None: unknown, or there is no such node."""
        node = await self.read(f"/nodes/{node_id}")
        if node is None:
            return None
        op = self.op()
        spec = node["Spec"]
        spec["Labels"] = {**(spec.get("Labels") or {}), "op": op}
        change(spec)
        path = f"/nodes/{node_id}/update?version={node['Version']['Index']}"
        self.world.story.note(self.name, f"{op}: {what}")
        return await self.write("POST", path, spec, op)

    async def node(self) -> None:
        """Drain or activate a node."""
        nodes = [node for node in self.world.nodes if node.node_id and not node.gone]
        node = self.rng.choice(nodes)
        availability = self.rng.choice(("active", "active", "drain", "pause"))

        def change(spec: dict[str, Any]) -> None:
            spec["Availability"] = availability

        await self.change_node(node.node_id, change, f"{availability} {node.name}")

    async def activate(self) -> None:
        """Make every node active, for the end."""
        for node in self.world.nodes:
            if not node.node_id or node.gone:
                continue
            while True:
                seen = await self.read(f"/nodes/{node.node_id}")
                if seen is None or seen["Spec"]["Availability"] == "active":
                    break

                def change(spec: dict[str, Any]) -> None:
                    spec["Availability"] = "active"

                await self.change_node(node.node_id, change, f"activate {node.name}")
