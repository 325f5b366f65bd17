"""A client that runs jobs: it makes a few, executes them anew, and removes them. Its choices are its own, so
that what the other clients choose is the same with and without it."""

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

from cluster.seams import SECOND
from tests.simulator.workload import Client

if TYPE_CHECKING:
    from tests.simulator.world import World

NUMBER = 190
MOST_JOBS = 2
SEEDS_WITH_JOBS = 0.4
IMAGES = ("work", "work", "flaky")


class JobClient(Client):
    """Works through the same API as everybody."""

    def __init__(self, world: "World") -> None:
        super().__init__(world, NUMBER)
        self.name = "jobs"
        self.rng = Random(f"{world.seed} jobs")
        self.works = self.rng.random() < SEEDS_WITH_JOBS
        self.jobs: list[str] = []

    async def work(self) -> None:
        """Random operations until cancelled; in some seeds only, so that many seeds stay cheap."""
        rng = self.rng
        while self.works:
            await asyncio.sleep(rng.expovariate(self.world.pace / 2))
            if len(self.jobs) < MOST_JOBS and rng.random() < 0.6:
                await self.create()
            elif self.jobs and rng.random() < 0.15:
                await self.remove_job(self.jobs.pop(rng.randrange(len(self.jobs))))
            elif self.jobs:
                await self.execute(rng.choice(self.jobs))

    async def create(self) -> None:
        """Make a job."""
        rng, op = self.rng, self.op()
        name = f"j-{op}"
        template: dict[str, Any] = {
            "ContainerSpec": {"Image": f"{rng.choice(IMAGES)}:1"},
            "RestartPolicy": {
                "Condition": rng.choice(("any", "on-failure")),
                "Delay": rng.choice((0, SECOND)),
            },
        }
        if rng.random() < 0.3:
            template["Networks"] = [{"Target": "net"}]
        mode: dict[str, Any] = {"GlobalJob": {}}
        if rng.random() < 0.8:
            mode = {"ReplicatedJob": self._counts()}
        spec = {"Name": name, "Labels": {"op": op}, "TaskTemplate": template, "Mode": mode}
        answer = await self.write("POST", "/services/create", spec, op)
        if answer is None:
            await asyncio.sleep(1)
            if await self.read(f"/services/{name}") is not None:
                self.jobs.append(name)
        elif answer.status < 300:
            self.jobs.append(name)

    def _counts(self) -> dict[str, int]:
        return {"MaxConcurrent": self.rng.randrange(1, 3), "TotalCompletions": self.rng.randrange(1, 5)}

    async def execute(self, name: str) -> None:
        """Execute a job anew, perhaps with other numbers."""
        service = await self.read(f"/services/{name}")
        if service is None:
            return
        op = self.op()
        spec = service["Spec"]
        spec["Labels"] = {**(spec.get("Labels") or {}), "op": op}
        if "ReplicatedJob" in spec["Mode"] and self.rng.random() < 0.5:
            spec["Mode"]["ReplicatedJob"] = self._counts()
        path = f"/services/{service['ID']}/update?version={service['Version']['Index']}"
        await self.write("POST", path, spec, op)

    async def remove_job(self, name: str) -> None:
        """Remove a job, whether it is done or not."""
        while await self.read(f"/services/{name}") is not None:
            await self.write("DELETE", f"/services/{name}", None, self.op())
            await asyncio.sleep(0.5)
