"""Requests through the mesh from outside go on while daemons restart, nodes drain and the leader changes, and
a connection that says nothing for long lives."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from bench import idle_connections
from bench.cluster import host_processes
from shoal.demo import web_image
from shoal.demo.main import DEFAULT_CACHE
from shoal.playground.layout import CLIENT
from tests.support.cluster import Cluster, eventually
from tests.support.remains import end_daemon

pytestmark = pytest.mark.playground

PORT = 8086
HELD = 2


@pytest.fixture(scope="module")
def web(fragile: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Four web servers behind a published port, a cluster of three."""
    archive = tmp_path_factory.mktemp("web") / "web.tar"
    web_image.build(archive, "web:1", DEFAULT_CACHE)
    fragile.load(archive)
    # A daemon that takes long to start, on a busy machine, must not make its node count as dead.
    fragile.docker("swarm", "update", "--dispatcher-heartbeat", "10s")
    fragile.docker("network", "create", "--driver", "overlay", "shop")
    options = ("--publish", f"{PORT}:80", "--network", "shop", "--stop-grace-period", "5s")
    fragile.create("web", *options, "--replicas", "4", image="web:1")
    fragile.running("web", 4)
    for host in fragile.hosts:
        eventually(f"{host} answers", lambda host=host: answers(fragile, host))
    return fragile


def answers(cluster: Cluster, host: str) -> bool:
    """Whether the port answers through a host."""
    url = f"http://{cluster.address(host)}:{PORT}/"
    return cluster.from_client("curl", "-fsS", "-m", "2", url).returncode == 0


def under_load(cluster: Cluster, work: Callable[[], None]) -> tuple[list[object], list[object]]:
    """Do something while requests come through every host: those that failed on new connections, and what
    happened to connections that were kept open."""
    urls = [f"http://{cluster.address(host)}:{PORT}/" for host in cluster.hosts]
    commands = [
        [sys.executable, "-m", "shoal.demo.load", "--rate", "30", *urls],
        [sys.executable, "-m", "bench.held_connections", str(HELD), *urls],
    ]
    started = [
        cluster.playground.popen(CLIENT, each, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for each in commands
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
        work()
        new, held = (json.loads(process.communicate(timeout=30)[0]) for process in started)
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert all(new[url]["answers"] > 0 for url in urls)
    assert held["answers"] > 0
    return [failure for url in urls for failure in new[url]["failures"]], held["events"]


def test_restarts_of_daemons_disturb_no_request(web: Cluster) -> None:
    tasks = {task["ID"] for task in web.running("web", 4)}

    def restart() -> None:
        web.playground.restart_daemon("host2")
        web.wait_ready(3)
        end_daemon(web, "host3")
        web.playground.restart_daemon("host3")
        web.wait_ready(3)

    assert under_load(web, restart) == ([], [])
    assert {task["ID"] for task in web.running("web", 4)} == tasks


def test_a_change_of_the_leader_disturbs_no_request(web: Cluster) -> None:
    def change() -> None:
        (old,) = (name for name, node in web.nodes().items() if node["ManagerStatus"].get("Leader"))
        (manager,) = (
            line for line in host_processes(web.playground, old).items() if "-m manager " in f"{line[1]} "
        )
        subprocess.run(["kill", "-KILL", str(manager[0])], check=True)
        web.wait_ready(3)

    assert under_load(web, change) == ([], [])


def test_a_drain_fails_no_request(web: Cluster) -> None:
    node = web.nodes()["host3"]["ID"]

    def drain() -> None:
        web.docker("node", "update", "--availability", "drain", "host3")
        eventually("its containers have ended", lambda: not web.client("host3").api.containers(), seconds=60)
        web.docker("node", "update", "--availability", "active", "host3")
        web.running("web", 4)

    failures, _ = under_load(web, drain)
    assert failures == []
    assert all(task["NodeID"] != node for task in web.running("web", 4))


def test_connections_that_idle_for_two_hours_live(web: Cluster) -> None:
    found = idle_connections.measure(web.playground, seconds=4.0)
    assert {name for name, _ in found["timeouts"]} >= {"host1", "asker", "server"}
    assert min(seconds for _, seconds in found["timeouts"]) > 2 * 3600
    assert found["lives"] == {"mesh": True, "service's address": True}
