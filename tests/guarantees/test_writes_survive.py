"""An acknowledged write survives the loss of any minority of managers, and power loss of all of them."""

import asyncio
import logging
from pathlib import Path

import aiohttp
import pytest

from cluster.seams import SECOND
from tests.fakes.raft_world import World
from tests.host.manager.managers import ManagerProcess, Managers

# --- real managers, killed ------------------------------------------------------------------------------


class Writers:
    """Clients that create configs through every manager, and note what was acknowledged."""

    def __init__(self, managers: Managers) -> None:
        self.managers = managers
        self.acknowledged: set[str] = set()
        self.refused: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = False

    async def __aenter__(self) -> "Writers":
        self._tasks = [asyncio.create_task(self._write(n, m)) for n, m in enumerate(self.managers.all)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _write(self, number: int, manager: ManagerProcess) -> None:
        turn = 0
        while not self._stop:
            turn += 1
            name = f"c{number}-{turn}"
            try:
                status, _ = await manager.request("POST", "/configs/create", {"Name": name, "Data": "eA=="})
            except (aiohttp.ClientError, OSError):
                status = 0  # it died: nobody can say what became of the write
            if status == 201:
                self.acknowledged.add(name)
            elif status == 409:
                self.refused.add(name)
            else:
                await asyncio.sleep(0.02)

    async def more(self, count: int) -> None:
        """Wait for so many more acknowledgements."""
        enough = len(self.acknowledged) + count
        async with asyncio.timeout(30):
            while len(self.acknowledged) < enough:
                await asyncio.sleep(0.01)


async def names(manager: ManagerProcess) -> list[str]:
    return [config["Spec"]["Name"] for config in await manager.get("/configs")]


@pytest.mark.host
async def test_managers_killed_one_by_one_and_all_at_once_lose_nothing(tmp_path: Path) -> None:
    async with Managers(tmp_path, "127.0.81") as managers:
        await managers.found()
        await managers.add()
        await managers.add()
        async with Writers(managers) as writers:
            for victim in managers.all:  # one of them leads
                await writers.more(20)
                await victim.kill()
                await writers.more(20)
                await victim.start()
            await writers.more(20)
            for manager in managers.all:
                await manager.kill()
        await asyncio.gather(*(manager.start() for manager in managers.all))
        for manager in managers.all:
            found = await names(manager)
            assert writers.acknowledged <= set(found)
            assert len(found) == len(set(found))
        assert not writers.refused, "a name was taken: a write was carried out twice"
        await managers.all[0].kill()
        assert writers.acknowledged <= set(await names(managers.all[1]))


# --- power loss, to the byte ----------------------------------------------------------------------------


@pytest.mark.parametrize("victims", ["A", "B", "ABC"])
def test_an_entry_is_acknowledged_only_when_a_majority_would_have_it_after_power_loss(
    victims: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At the very step at which the proposer is told, power goes. Disks keep what was synced, and no more."""
    caplog.set_level(logging.CRITICAL)
    world = World("ABC", seed=len(victims))
    leader = world.elect("A")
    outcome: list[object] = leader.propose(b"acknowledged")
    for _ in range(200):
        world.clock.time += SECOND // 1000
        for node_id in "ABC":
            world.step(node_id)
            if outcome:
                break
            for target in "ABC":
                world.deliver(node_id, target, 1)
        if outcome:
            break
    assert isinstance(outcome[0], int)
    for node_id in victims:
        world.crash(node_id)
    for node_id in victims:
        world.restart(node_id)
    left = "BC" if victims == "A" else "AB"
    holders = [n for n in "ABC" if any(entry[0][1:] == b"acknowledged" for entry in world[n].journal[:])]
    assert len(holders) >= 2, "no majority had it on disk"
    winner = next(n for n in left if n in holders)
    world.elect(winner)
    world.rounds(10)
    assert all(b"acknowledged" in world[n].machine.entries for n in "ABC")
    assert world.violations == []
