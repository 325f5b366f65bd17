"""The operator's ways back, on three managers and a worker; each story leaves them as it found them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Json, eventually, playground

pytestmark = pytest.mark.playground

PASSPHRASE = "correct horse battery"
MANAGERS = ("host1", "host2", "host3")


@pytest.fixture(scope="module")
def hosts(archive: Path) -> Iterator[Cluster]:
    with playground(hosts=4, managers=3) as cluster:
        cluster.load(archive)
        yield cluster


def shoal(cluster: Cluster, host: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the shoal command against a host."""
    docker_host = cluster.playground.host(host).docker_host
    environment = {**os.environ, "SHOAL_BACKUP_PASSPHRASE": PASSPHRASE}
    command = [sys.executable, "-m", "shoal.cli.main", "--host", docker_host, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=environment)


def health(cluster: Cluster, host: str = "host1") -> Json:
    found: Json = cluster.playground.engine(host).get("/shoal/cluster/health")
    return found


def roles(cluster: Cluster, host: str = "host1") -> dict[str, str]:
    """What each manager does, by host."""
    return {manager["Hostname"]: manager["Role"] for manager in health(cluster, host)["Managers"]}


def whole(cluster: Cluster, host: str = "host1") -> bool:
    """All three managers take part."""
    found = roles(cluster, host)
    return sorted(found) == sorted(MANAGERS) and sorted(found.values()) == ["follower", "follower", "leader"]


def containers(cluster: Cluster, host: str) -> set[str]:
    """The containers that run on a host."""
    return {container["Id"] for container in cluster.client(host).api.containers()}


def test_health_names_the_silent_and_the_next_step(hosts: Cluster) -> None:
    for host in MANAGERS:  # each asks the others itself
        found = health(hosts, host)
        assert (found["Quorum"]["Answering"], found["Quorum"]["MayFail"]) == (3, 1)
        terms = {manager["Term"] for manager in found["Managers"]}
        assert len(terms) == 1
        assert all(manager["SyncP99"] >= manager["SyncP50"] > 0 for manager in found["Managers"])
        assert all(manager["FreeBytes"] and manager["JournalBytes"] for manager in found["Managers"])
    hosts.playground.kill("host3")
    try:
        told = shoal(hosts, "host2", "cluster", "health")
        assert told.returncode == 4
        assert f"host3 ({hosts.address('host3')}:2377) does not answer" in told.stdout
        assert "docker node demote host3" in told.stdout
        warned = eventually("docker info warns", lambda: hosts.client("host1").api.info()["Warnings"])
        assert "one more that fails" in warned[0]
    finally:
        hosts.playground.start("host3")
    eventually("host3 is back", lambda: whole(hosts))
    refusal = shoal(hosts, "host4", "cluster", "health")
    assert refusal.returncode == 1
    assert "not a swarm manager" in refusal.stderr


def test_a_dead_manager_is_replaced(hosts: Cluster) -> None:
    hosts.playground.kill("host3")
    eventually("host3 is missed", lambda: roles(hosts)["host3"] == "unreachable")
    # With host3 gone, host2 is needed: its removal would leave host1 and the dead one.
    refused = hosts.refused("node", "demote", "host2")
    assert "loss of quorum" in refused
    assert "bring one back" in refused
    assert "must be demoted" in hosts.refused("node", "rm", "--force", "host3")
    hosts.docker("node", "demote", "host3")
    eventually("host3 is no manager", lambda: "host3" not in roles(hosts))
    hosts.docker("node", "rm", "--force", "host3")
    assert health(hosts)["Quorum"] == {"Managers": 2, "Needed": 2, "Answering": 2, "MayFail": 0}
    # A new machine in its place.
    shutil.rmtree(hosts.playground.layout.directory / "host3" / "data" / "swarm")
    hosts.playground.start("host3")
    token = hosts.docker("swarm", "join-token", "-q", "manager")
    hosts.docker("swarm", "join", "--token", token, f"{hosts.address('host1')}:2377", host="host3")
    eventually("three managers again", lambda: whole(hosts))


def readdress(cluster: Cluster, host: str, old: str, new: str) -> None:
    """Give a host another address, and start its daemon again, as a new DHCP lease and a reboot do."""
    script = (
        f"ip addr del {old}/24 dev eth0; ip addr add {new}/24 dev eth0; "
        "ip route replace default via 192.0.2.1; exit 0"
    )
    assert cluster.playground.run(host, ["sh", "-c", script]).returncode == 0
    cluster.playground.restart_daemon(host)


def test_a_manager_comes_up_at_another_address(hosts: Cluster) -> None:
    old, new = hosts.address("host2"), "192.0.2.122"
    before = hosts.nodes()["host2"]
    hosts.run("web", "--mode", "global", replicas=4)
    for address, was in ((new, old), (old, new)):  # there and back
        readdress(hosts, "host2", was, address)

        def known(address: str = address) -> bool:
            managers = health(hosts)["Managers"]
            return {"host2": f"{address}:2377"}.items() <= {
                m["Hostname"]: m["Address"] for m in managers
            }.items()

        eventually(f"the managers know {address}", known)
        eventually("all take part", lambda: whole(hosts))

        def told(address: str = address) -> bool:  # the worker's agent knows where managers are
            remote = hosts.client("host4").api.info()["Swarm"]["RemoteManagers"]
            return f"{address}:2377" in {manager["Addr"] for manager in remote}

        eventually(f"the worker knows {address}", told)
        node = hosts.nodes()["host2"]
        assert node["ID"] == before["ID"]
        eventually(
            "the node's own address follows",
            lambda address=address: hosts.nodes()["host2"]["Status"]["Addr"] == address,
        )
        hosts.running("web", 4)
    hosts.clear()


def test_one_survivor_of_a_lost_majority_goes_on_and_the_others_come_back(hosts: Cluster) -> None:
    hosts.run("web", "--mode", "global", replicas=4)
    hosts.client().api.create_config("kept", b"x")
    before = {host: containers(hosts, host) for host in ("host1", "host4")}
    assert "no quorum is lost" in hosts.refused("swarm", "init", "--force-new-cluster")
    assert "needs the state" in hosts.refused("swarm", "init", "--force-new-cluster", host="host4")
    for host in ("host2", "host3"):
        hosts.playground.kill(host)
    status, answer = hosts.curl("host1", "GET", "/services")
    assert status == 503
    assert "The swarm does not have a leader" in answer["message"]
    assert f"host2 ({hosts.address('host2')}:2377)" in answer["message"]
    command = f"docker swarm init --force-new-cluster --advertise-addr {hosts.address('host1')}:2377"
    assert command in answer["message"]
    assert command in hosts.client().api.info()["Swarm"]["Error"]
    told = shoal(hosts, "host1", "cluster", "health")
    assert told.returncode == 4
    assert "writes have stopped" in told.stdout
    assert command in told.stdout

    hosts.docker(*command.split()[1:])
    assert roles(hosts) == {"host1": "leader"}
    assert hosts.client().api.configs()[0]["Spec"]["Name"] == "kept"
    hosts.client().api.create_config("new", b"x")
    assert {host: containers(hosts, host) for host in before} == before  # nothing was restarted

    for host in ("host2", "host3"):  # both are back: a majority of the old managers
        hosts.playground.start(host)
    for host in ("host2", "host3"):
        eventually(
            f"{host} is a worker",
            lambda host=host: not hosts.client(host).api.info()["Swarm"]["ControlAvailable"],
        )
    assert roles(hosts) == {"host1": "leader"}
    hosts.running("web", 4)
    hosts.docker("node", "promote", "host2", "host3")
    eventually("three managers again", lambda: whole(hosts))
    names = eventually("host3 answers", lambda: hosts.client("host3").api.configs())
    assert {config["Spec"]["Name"] for config in names} == {"kept", "new"}
    hosts.clear()


def test_a_cluster_is_restored_from_a_backup(hosts: Cluster, tmp_path: Path) -> None:
    hosts.docker("secret", "create", "password", "-", stdin="hidden treasure")
    hosts.run("web", "--secret", "password", "--constraint", "node.hostname==host4")
    running = containers(hosts, "host4")
    follower = next(host for host, role in roles(hosts).items() if role == "follower")
    file = tmp_path / "backup"
    taken = shoal(hosts, follower, "cluster", "backup", str(file))
    assert taken.returncode == 0, taken.stderr
    assert b"hidden treasure" not in file.read_bytes()
    cluster_id = hosts.client().api.info()["Swarm"]["Cluster"]["ID"]
    hosts.client().api.create_config("after-the-backup", b"x")

    refused = shoal(hosts, "host1", "cluster", "restore", str(file))
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    (tmp_path / "broken").write_bytes(file.read_bytes()[:-1])
    broken = shoal(hosts, "host1", "cluster", "restore", "--force", str(tmp_path / "broken"))
    assert broken.returncode == 1
    assert "damaged" in broken.stderr
    eventually("nothing has changed", lambda: whole(hosts))

    for host in ("host2", "host3"):
        hosts.playground.kill(host)
    restored = shoal(hosts, "host1", "cluster", "restore", "--force", str(file))
    assert restored.returncode == 0, restored.stderr
    info = hosts.client().api.info()["Swarm"]
    assert info["Cluster"]["ID"] == cluster_id
    assert roles(hosts) == {"host1": "leader"}
    assert hosts.client().api.configs() == []
    # The worker comes back by itself, with its task; the secret still is what it was.
    eventually("the worker is back", lambda: hosts.nodes()["host4"]["Status"]["State"] == "ready")
    (task,) = hosts.running("web", 1)
    assert hosts.enter(task, "cat /run/secrets/password") == "hidden treasure"
    assert containers(hosts, "host4") == running
    for host in (
        "host2",
        "host3",
    ):  # the old managers find that they were left behind, and work on as workers
        hosts.playground.start(host)
    for host in ("host2", "host3"):
        eventually(
            f"{host} is a worker",
            lambda host=host: not hosts.client(host).api.info()["Swarm"]["ControlAvailable"],
        )
    assert roles(hosts) == {"host1": "leader"}

    def ready() -> int:
        return [node["Status"]["State"] for node in hosts.client().api.nodes()].count("ready")

    eventually("what host1 was before is down", lambda: ready() == 4)
    hosts.docker("service", "rm", "web")
