"""A read is confirmed by the leader, or says how old it may be; the age is never less than the truth."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from cluster.consistency import CONSISTENCY, READ, WRITE, parse
from cluster.seams import MILLISECOND, SECOND
from manager.api.access import Read
from manager.api.app import engine_app
from manager.raft import NotLeader
from manager.raft.freshness import ASK_EVERY, Freshness
from shoal.cli.main import main
from tests.fakes.engine_api import serve
from tests.fakes.raft_fuzz import Fuzz
from tests.fakes.raft_world import SimClock, SimNode, World
from tests.guarantees.hosts import manager_pid
from tests.host.manager.managers import ManagerProcess, Managers
from tests.support.cluster import Cluster, docker_cli
from tests.unit.api.manager import Api, LoneManager, service_body, start

STALE_READ = {CONSISTENCY: "stale"}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = await start()
    yield api
    await api.client.close()


def age(node: SimNode) -> int | None:
    assert node.node is not None
    return node.node.freshness.age(node.delivery.applied_index)


# --- the age of a manager's own state -------------------------------------------------------------------


class AgeFuzz(Fuzz):
    """Looks at every node after every turn: a node that lacks an acknowledged write must not claim to be
    younger than that acknowledgement."""

    def __init__(self, seed: int, ids: str) -> None:
        super().__init__(seed, ids, steps=2500)
        self.acknowledged: dict[bytes, int] = {}
        self.understated: list[str] = []

    def turn(self) -> None:
        super().turn()
        now = self.world.clock.time
        for entry, outcome in self.outcomes.items():
            if outcome and isinstance(outcome[0], int):
                self.acknowledged.setdefault(entry, now)
        for node_id, node in self.world.nodes.items():
            if node.node is None or (claimed := age(node)) is None:
                self.count["of unknown age"] += 1
                continue
            self.count["of known age"] += 1
            known = set(node.machine.entries)
            lacking = [at for entry, at in self.acknowledged.items() if entry not in known]
            if lacking:
                self.count["lacking something"] += 1
                if claimed < now - min(lacking):
                    self.understated.append(f"{node_id} claims {claimed}, is {now - min(lacking)} old")


@pytest.mark.parametrize("seed", range(4))
def test_an_age_is_never_understated(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    fuzz = AgeFuzz(seed, "ABCDE" if seed % 2 else "ABC")
    assert fuzz.run() == []
    assert fuzz.understated == []
    assert fuzz.count["lacking something"] > 20
    assert fuzz.count["of known age"] > fuzz.count["of unknown age"]


def test_a_healthy_manager_is_hardly_older_than_it_asks() -> None:
    world = World("ABC")
    world.elect("A")
    world.rounds(20)
    for _ in range(20):
        world.rounds(1)
        for node in world.nodes.values():
            assert (age(node) or 0) < ASK_EVERY + 300 * MILLISECOND  # a round here takes 60 ms


def test_cut_off_it_grows_old_also_beside_a_leader_that_lost_its_majority() -> None:
    world = World("ABCDE")
    world.elect("A")
    world.rounds(30)
    for minority in "AB":
        for majority in "CDE":
            world.disconnect(minority, majority)
    parted = world.clock.time
    world.rounds(10, only="AB")  # A still leads, and B still hears it
    assert world["A"].leads
    assert world["B"].node is not None
    assert world["B"].node.leader_id() == "A"
    for node_id in "AB":
        assert (age(world[node_id]) or 0) >= world.clock.time - parted


def test_what_is_confirmed_counts_only_once_it_is_applied() -> None:
    clock = SimClock()
    freshness = Freshness(clock)
    assert freshness.age(100) is None
    begun = clock.time
    freshness.confirmed(5, begun)
    freshness.confirmed(9, begun + SECOND)
    clock.time += 3 * SECOND
    assert freshness.age(4) is None
    assert freshness.age(8) == 3 * SECOND
    assert freshness.age(9) == 2 * SECOND


def test_an_age_that_nobody_asked_for_in_hours_is_that_of_now() -> None:
    clock = SimClock()
    freshness = Freshness(clock)
    for index in range(10_000):
        clock.time += ASK_EVERY
        freshness.confirmed(index, clock.time)
    assert freshness.age(10_000) == 0


# --- the labels -----------------------------------------------------------------------------------------


async def labelled(api: Api, method: str, path: str, **headers: str) -> tuple[int, str | None]:
    async with api.client.request(method, path, headers=headers) as answer:
        await answer.read()
        return answer.status, answer.headers.get(READ)


@pytest.mark.parametrize("kind", ["swarm", "nodes", "services", "tasks", "networks", "secrets", "configs"])
async def test_every_read_is_labelled_also_a_refused_one(api: Api, kind: str) -> None:
    index = api.manager.store.view().index
    assert await labelled(api, "GET", f"/v1.50/{kind}") == (200, f"confirmed; index={index}; leader=founder")
    status, label = await labelled(api, "GET", f"/{kind}", **STALE_READ)
    assert (status, label) == (200, f"leader; index={index}; leader=founder; age=0.000s")
    if kind != "swarm":
        assert await labelled(api, "GET", f"/{kind}/nothing") == (
            404,
            f"confirmed; index={index}; leader=founder",
        )


async def test_an_age_is_rounded_up_and_may_be_unknown(api: Api) -> None:
    for nanoseconds, told in ((1, "0.001s"), (61_999_000_001, "62.000s"), (None, "unknown")):
        api.manager.age = nanoseconds
        _, label = await labelled(api, "GET", "/services", **STALE_READ)
        assert label is not None
        assert label.endswith(f"age={told}")


async def test_an_unknown_consistency_is_refused(api: Api) -> None:
    status, problem = await api("GET", "/services", **{CONSISTENCY: "eventual"})
    assert status == 400
    assert "write confirmed (the default) or stale" in problem["message"]


async def test_writes_say_that_they_are_committed_and_refusals_that_they_are_confirmed(api: Api) -> None:
    async with api.client.post("/services/create", json=service_body(), headers=STALE_READ) as answer:
        assert answer.status == 201
        label = answer.headers[WRITE]
    assert label == f"committed; index={api.manager.store.view().index}; leader=founder"
    status, told = await labelled(api, "DELETE", "/services/nothing", **STALE_READ)
    assert status == 404
    assert told is not None
    assert told.startswith("confirmed; ")


async def test_a_manager_that_knows_nothing_yet_says_so() -> None:
    async with (
        TestClient(TestServer(engine_app(LoneManager()))) as client,
        client.get("/swarm", headers=STALE_READ) as answer,
    ):
        assert (answer.status, READ in answer.headers) == (503, False)
        assert "has not learnt the cluster's state yet" in (await answer.json())["message"]


class Deposed(LoneManager):
    """Another leads already; this one learns of it when it asks for confirmation."""

    leads = True
    forwarded = 0

    def leading(self) -> bool:
        return self.leads

    async def confirmed_read(self) -> Read:
        self.leads = False
        raise NotLeader("other")

    async def forward(self, request: web.Request) -> web.StreamResponse:
        self.forwarded += 1
        return web.Response(headers={WRITE: "committed; index=9; leader=other"})


async def test_a_deposed_leader_refuses_nothing_by_what_it_last_knew() -> None:
    manager = Deposed()
    async with (
        TestClient(TestServer(engine_app(manager))) as client,
        client.delete("/services/made-by-the-new-leader") as answer,
    ):
        assert (answer.status, answer.headers[WRITE]) == (200, "committed; index=9; leader=other")
    assert manager.forwarded == 1


# --- real managers --------------------------------------------------------------------------------------


async def read(manager: ManagerProcess, **headers: str) -> tuple[int, str, dict[str, str], Any]:
    """Status, the label's word and fields, and the answer to GET /services."""
    await manager.get("/_ping", raw=True)
    assert manager.http is not None
    async with manager.http.get("http://m/services", headers=headers) as answer:
        word, fields = parse(answer.headers.get(READ, "none"))
        return answer.status, word, fields, await answer.json()


async def docker(manager: ManagerProcess, *words: str) -> tuple[int, str]:
    """Run the docker CLI against a manager itself: its status and its output."""
    host = f"unix://{manager.root / 'm.sock'}"
    process = await asyncio.create_subprocess_exec(
        *(docker_cli() or "docker", "--host", host, *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


@pytest.mark.host
@pytest.mark.skipif(docker_cli() is None, reason="needs the docker command")
async def test_followers_answer_by_themselves_when_asked_also_without_a_quorum(tmp_path: Path) -> None:
    async with Managers(tmp_path, "127.0.79") as managers:
        leader = await managers.found()
        follower, third = await managers.add(), await managers.add()
        assert (await leader.create_service("web"))[0] == 201
        status, word, fields, _ = await read(follower)
        assert (status, word, fields["leader"]) == (200, "confirmed", leader.node_id)
        await asyncio.sleep(1)  # in which every manager has asked at least once
        for manager in (leader, follower, third):
            status, word, fields, services = await read(manager, **STALE_READ)
            assert (status, word) == (200, "leader" if manager is leader else "follower")
            assert float(fields["age"].rstrip("s")) < 5
            assert len(services) == 1
        assert (await leader.create_service("last"))[0] == 201
        await leader.kill()
        killed = time.monotonic()
        await third.kill()
        status, word, _, problem = await read(follower)  # takes longer than an election
        assert (status, word) == (503, "none")
        assert "does not have a leader" in problem["message"]
        parted = time.monotonic() - killed
        status, word, fields, services = await read(follower, **STALE_READ)
        assert (status, word, fields["leader"]) == (200, "follower", "none")
        # It may not have learnt that "last" is committed; its age says that this is possible.
        assert {"web"} <= {service["Spec"]["Name"] for service in services} <= {"last", "web"}
        assert float(fields["age"].rstrip("s")) >= parted
        nodes = (await follower.request("GET", "/nodes", **STALE_READ))[1]
        standing = {node["ID"]: node["ManagerStatus"]["Reachability"] for node in nodes}
        assert standing[follower.node_id] == "reachable"
        assert standing[leader.node_id] == standing[third.node_id] == "unknown"
        config = tmp_path / "docker"
        config.mkdir()
        (config / "config.json").write_text(json.dumps({"HttpHeaders": STALE_READ}))
        assert await docker(follower, "service", "ls") == (1, "")
        status, listed = await docker(follower, "--config", str(config), "service", "ls")
        assert status == 0
        assert "web" in listed
        await follower.kill()
        await follower.start()
        status, word, fields, services = await read(follower, **STALE_READ)
        assert (status, word, fields["age"]) == (200, "follower", "unknown")
        assert "web" in [service["Spec"]["Name"] for service in services]
        await third.start()
        status, word, _, services = await read(follower)
        assert (status, word, len(services)) == (200, "confirmed", 2)


@pytest.mark.playground
def test_every_route_through_a_nodes_daemon_is_labelled(cluster: Cluster) -> None:
    engine = cluster.playground.engine("host1")
    for path in ("/swarm", "/nodes", "/services", "/tasks", "/networks", "/secrets", "/configs"):
        engine.labels.clear()
        engine.get(path)
        assert engine.labels[0].startswith("confirmed; "), path


# --- clients --------------------------------------------------------------------------------------------


def test_the_command_line_says_how_old_what_it_shows_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "e.sock"
    with serve(path) as engine:
        engine.on("GET", "/services", [])
        engine.headers[READ] = "follower; index=120; leader=none; age=3.250s"
        with pytest.raises(SystemExit) as ended:
            main(["--host", f"unix://{path}", "--stale", "service", "ls"])
        assert ended.value.code == 0
        assert engine.calls[-1].headers[CONSISTENCY] == "stale"
        told = (
            "not confirmed by the leader; age at most: 3.250 s; this manager knows of no leader at present\n"
        )
        assert capsys.readouterr().err == told
        engine.headers[READ] = "confirmed; index=121; leader=m1"
        with pytest.raises(SystemExit):
            main(["--host", f"unix://{path}", "service", "ls"])
        assert CONSISTENCY not in engine.calls[-1].headers
        assert capsys.readouterr().err == ""


@pytest.mark.playground
def test_docker_info_waits_for_no_manager(cluster: Cluster) -> None:
    """A manager process that stands still takes connections and answers nothing."""
    manager = manager_pid(cluster, "host1")
    cluster.playground.run("host1", ["kill", "-STOP", str(manager)])
    try:
        told = cluster.docker("info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.Error}}", timeout=20)
    finally:
        cluster.playground.run("host1", ["kill", "-CONT", str(manager)])
    assert told.startswith("active the manager of this node does not answer")
