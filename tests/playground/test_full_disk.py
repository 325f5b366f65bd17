"""Full disks on real hosts: nothing is acknowledged that is not kept, and it passes by itself."""

import base64
import os
from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster, CommandFailed, eventually, playground

pytestmark = pytest.mark.playground
SIZE = "160m"


@pytest.fixture(scope="module")
def small() -> Iterator[Cluster]:
    """Three managers, each with a small file system of its own for its data."""
    with playground(managers=0) as cluster:
        place = cluster.playground
        for host in place.hosts():
            place.stop_daemon(host.name)
            data = host.home / "data"
            place.run(host.name, ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=711", "tmpfs", str(data)])
            place.restart_daemon(host.name)
        cluster.docker("swarm", "init", "--advertise-addr", cluster.address("host1"))
        token = cluster.docker("swarm", "join-token", "-q", "manager")
        for host in ("host2", "host3"):
            cluster.docker("swarm", "join", "--token", token, f"{cluster.address('host1')}:2377", host=host)
        cluster.wait_ready(3)
        yield cluster


def fill(cluster: Cluster, host: str) -> None:
    path = cluster.playground.host(host).home / "data" / "fill"
    done = cluster.playground.run(host, ["dd", "if=/dev/zero", f"of={path}", "bs=64k"])
    assert done.returncode


def empty(cluster: Cluster, host: str) -> None:
    cluster.playground.run(host, ["rm", str(cluster.playground.host(host).home / "data" / "fill")])


def write(cluster: Cluster, name: str, host: str = "host1", size: int = 30_000) -> str:
    """Something that takes room in the log."""
    content = base64.b64encode(os.urandom(size)).decode()
    return cluster.docker("config", "create", name, "-", host=host, stdin=content)


def names(cluster: Cluster, host: str) -> set[str]:
    return set(cluster.docker("config", "ls", "--format", "{{.Name}}", host=host).split())


def trouble(cluster: Cluster, host: str) -> str:
    return cluster.docker("info", "--format", "{{.Swarm.Error}}", host=host)


def test_a_leader_without_room_steps_aside_and_comes_back(small: Cluster) -> None:
    (leader,) = [n for n, node in small.nodes().items() if node.get("ManagerStatus", {}).get("Leader")]
    fill(small, leader)
    acknowledged = set()
    for number in range(12):
        write(small, f"kept{number}", leader)
        acknowledged.add(f"kept{number}")
    eventually("the full leader says so", lambda: "is full" in trouble(small, leader))
    nodes = small.nodes(next(host for host in small.hosts if host != leader))
    assert not nodes[leader]["ManagerStatus"].get("Leader")
    assert names(small, leader) == acknowledged
    small.playground.restart_daemon(leader)
    eventually("it says so after a restart too", lambda: "is full" in trouble(small, leader))
    assert names(small, leader) == acknowledged
    empty(small, leader)
    eventually("it has room again", lambda: trouble(small, leader) == "")
    assert names(small, leader) == acknowledged


def test_without_a_majority_that_has_room_writes_are_refused_reads_are_not(small: Cluster) -> None:
    before = names(small, "host1")
    for host in small.hosts:
        fill(small, host)
    acknowledged = set()
    refusal = ""
    for number in range(40):
        try:
            write(small, f"late{number}")
            acknowledged.add(f"late{number}")
        except CommandFailed as error:
            refusal = str(error)
            if "full" in refusal:
                break
    assert "full" in refusal
    for host in small.hosts:
        assert names(small, host) >= before | acknowledged
        assert len(small.nodes(host)) == 3
    for host in small.hosts:
        empty(small, host)
    eventually("writes are taken again", lambda: _written(small, "after"))
    for host in small.hosts:
        assert names(small, host) >= before | acknowledged | {"after"}
        assert "fail-stop" not in small.playground.host(host).log.read_text()


def _written(cluster: Cluster, name: str) -> bool:
    try:
        return name in names(cluster, "host1") or bool(write(cluster, name, size=10))
    except CommandFailed:
        return False
