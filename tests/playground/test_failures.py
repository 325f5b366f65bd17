"""Power loss, partitions and restarts: what the cluster does, and that each is mended afterwards."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.consistency import parse
from shoal.cli.client import Engine
from shoal.playground.layout import CLIENT
from tests.support.cluster import Cluster, Json, eventually, playground
from tests.support.registries import push_web, start

pytestmark = pytest.mark.playground


@pytest.fixture(scope="module")
def image(fragile: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """nginx's image, from a registry in the client namespace."""
    start(fragile.playground)
    return push_web(fragile.playground, tmp_path_factory.mktemp("web"))


@pytest.fixture
def healthy(fragile: Cluster) -> Iterator[Cluster]:
    """The module's cluster: three reachable managers before and after each test, and nothing left in it."""
    fragile.wait_ready(3)
    fragile.mark()
    yield fragile
    fragile.wait_ready(3)
    fragile.clear()


def leader(cluster: Cluster, host: str) -> str:
    """The leader's host, as another tells."""

    def lead(node: Json) -> bool:
        return bool(node.get("ManagerStatus", {}).get("Leader"))

    return eventually(
        "there is a leader",
        lambda: next(
            (
                name
                for name, node in cluster.nodes(host).items()
                if node.get("ManagerStatus", {}).get("Leader")
            ),
            "",
        ),
    )


def write(cluster: Cluster, host: str, name: str) -> bool:
    """Write something through a host."""
    return bool(cluster.client(host).api.create_config(name, b"x"))


def test_the_leader_loses_power_and_comes_back(healthy: Cluster, image: str) -> None:
    cluster = healthy
    old = leader(cluster, "host1")
    survivors = [host for host in cluster.hosts if host != old]
    host = survivors[0]
    cluster.create("web", "--replicas", "6", "--publish", "8080:80", image=image, host=host)
    before = cluster.running("web", 6, host)
    write(cluster, host, "acknowledged")
    cluster.playground.kill(old)
    eventually("writes work again", lambda: write(cluster, host, f"after-{time.monotonic_ns()}"), seconds=15)
    assert leader(cluster, host) in survivors
    names = [config["Spec"]["Name"] for config in cluster.client(host).api.configs()]
    assert "acknowledged" in names

    down = eventually(
        f"{old} is down",
        lambda: (node := cluster.nodes(host)[old])["Status"]["State"] == "down" and node,
    )
    assert down["ManagerStatus"]["Reachability"] == "unreachable"
    dead = {task["ID"] for task in before if task["NodeID"] == down["ID"]}
    assert dead
    moved = eventually("its tasks run elsewhere", lambda: elsewhere(cluster, host, down["ID"], 6))
    assert {task["ID"] for task in before} - dead <= {task["ID"] for task in moved}  # the others ran on
    for survivor in survivors:
        for _ in range(6):
            assert cluster.fetch(survivor, 8080).endswith(" 1")

    cluster.playground.start(old)
    cluster.wait_ready(3, host)
    assert write(cluster, old, "through-the-returned")
    eventually(
        "it runs none of the tasks that were moved",
        lambda: (
            not dead & {c["Labels"]["com.docker.swarm.task.id"] for c in running_containers(cluster, old)}
        ),
    )
    assert len(cluster.tasks_in("web", "running", host)) == 6
    assert eventually("it serves the port", lambda: fetched(cluster, old, 8080))


def fetched(cluster: Cluster, host: str, port: int) -> str:
    """What a port answers, or nothing."""
    try:
        return cluster.fetch(host, port)
    except AssertionError:
        return ""


def running_containers(cluster: Cluster, host: str) -> list[Json]:
    """The containers that run on a host."""
    found: list[Json] = cluster.client(host).api.containers()
    return found


def elsewhere(cluster: Cluster, host: str, node: str, count: int) -> list[Json]:
    """The running tasks of `web`, once there are so many that are not on `node`."""
    found = [task for task in cluster.tasks_in("web", "running", host) if task["NodeID"] != node]
    return found if len(found) == count else []


def test_a_minority_refuses_writes_and_converges_after_the_heal(healthy: Cluster) -> None:
    cluster = healthy
    lonely = leader(cluster, "host1")  # the leader itself, who must step down
    others = [host for host in cluster.hosts if host != lonely]
    host = others[0]
    cluster.create("web", "--replicas", "3", host=host)
    cluster.running("web", 3, host)
    cluster.playground.partition(lonely, others)
    parted = time.monotonic()
    try:
        eventually(
            "the majority goes on", lambda: write(cluster, host, f"m-{time.monotonic_ns()}"), seconds=15
        )
        written = cluster.client(host).api.configs()
        # The first may still reach the old leader's log; whether it took effect, nobody can say.
        status, _ = cluster.curl(lonely, "POST", "/configs/create", {"Name": "unsure", "Data": "eA=="})
        assert status == 503
        status, answer = cluster.curl(lonely, "POST", "/configs/create", {"Name": "lost", "Data": "eA=="})
        assert status == 503
        assert "does not have a leader" in answer["message"]
        status, answer = cluster.curl(lonely, "GET", "/services")  # reads are confirmed by the leader, too
        assert status == 503
        # unless the client asks for what this manager has, and is told how old that is
        engine = Engine(cluster.playground.host(lonely).docker_host, stale=True)
        alone = time.monotonic() - parted
        assert [service["Spec"]["Name"] for service in engine.get("/services")] == ["web"]
        word, fields = parse(engine.labels[-1])
        assert (word, fields["leader"]) == ("follower", "none")
        assert float(fields["age"].rstrip("s")) >= alone
        # its containers run on meanwhile
        assert len(running_containers(cluster, lonely)) == 1
        cluster.docker("service", "scale", "--detach", "web=4", host=host)
        eventually(
            "the majority replaces what it can't see",
            lambda: elsewhere(cluster, host, cluster.nodes(host)[lonely]["ID"], 4),
        )
    finally:
        cluster.playground.heal()
    cluster.wait_ready(3, host)
    for each in cluster.hosts:
        names = {config["Spec"]["Name"] for config in cluster.client(each).api.configs()}
        assert {config["Spec"]["Name"] for config in written} <= names
        assert "lost" not in names
    running = {task["ID"] for task in cluster.running("web", 4, lonely)}
    eventually(
        "only those tasks run that should",
        lambda: (
            running
            == {
                container["Labels"]["com.docker.swarm.task.id"]
                for each in cluster.hosts
                for container in running_containers(cluster, each)
            }
        ),
    )


CONNECTED = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 8080), 3); s.settimeout(5)
print("open", flush=True)
for line in sys.stdin:
    s.sendall(b"GET / HTTP/1.1\\r\\nHost: web\\r\\n\\r\\n")
    print(s.recv(4000).split(b"\\r\\n\\r\\n")[1].decode().strip(), flush=True)
"""


@pytest.mark.parametrize("way", ["restart", "stop"])
def test_containers_and_connections_outlive_the_daemon(healthy: Cluster, image: str, way: str) -> None:
    cluster = healthy
    host = next(host for host in cluster.hosts if host != leader(cluster, "host1"))
    (task,) = cluster.run(
        "web", "--publish", "8080:80", "--constraint", f"node.hostname=={host}", image=image
    )
    before = cluster.container(task)
    eventually("it answers", lambda: fetched(cluster, host, 8080))
    command = [sys.executable, "-c", CONNECTED, cluster.address(host)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with cluster.playground.popen(CLIENT, command, **pipes) as connection:
        assert connection.stdin is not None
        assert connection.stdout is not None
        assert connection.stdout.readline() == "open\n"

        def ask() -> str:
            assert connection.stdin is not None
            assert connection.stdout is not None
            connection.stdin.write("\n")
            connection.stdin.flush()
            return connection.stdout.readline()

        assert ask().endswith(" 1\n")
        if way == "restart":
            cluster.playground.restart_daemon(host)
        else:
            cluster.playground.stop_daemon(host)  # SIGTERM
            pid = str(before["State"]["Pid"])
            assert cluster.playground.run(host, ["test", "-d", f"/proc/{pid}"]).returncode == 0
            assert ask().endswith(" 1\n")
            assert fetched(cluster, host, 8080)  # new connections, too
            cluster.playground.restart_daemon(host)
        assert ask().endswith(" 1\n")
        connection.stdin.close()
    cluster.wait_ready(3, "host1")
    assert [t["ID"] for t in cluster.running("web", 1)] == [task["ID"]]
    after = cluster.container(task)
    assert after["State"]["Pid"] == before["State"]["Pid"]
    assert after["State"]["StartedAt"] == before["State"]["StartedAt"]
    assert after["NetworkSettings"]["Networks"] == before["NetworkSettings"]["Networks"]
    assert fetched(cluster, host, 8080)


def test_a_nodes_address_changes_while_it_runs(healthy: Cluster, image: str) -> None:
    """As with DHCP: it is back at the new address before it counts as down, and then at the old one again."""
    cluster = healthy
    cluster.docker("network", "create", "--driver", "overlay", "shop")
    cluster.create("web", "--replicas", "3", "--publish", "8080:80", "--network", "shop", image=image)
    before = cluster.running("web", 3)
    host, old = "host3", cluster.address("host3")
    net, new = old.rpartition(".")[0], f"{old.rpartition('.')[0]}.77"
    for gone, come in ((old, new), (new, old)):
        script = (
            f"ip address delete {gone}/24 dev eth0; ip address add {come}/24 dev eth0;"
            f"ip route replace default via {net}.1"
        )
        assert cluster.playground.run(host, ["sh", "-c", script]).returncode == 0
        node = eventually(
            "it is registered where it is now",
            lambda come=come: (found := cluster.nodes()[host])["Status"]["Addr"] == come and found,
        )
        assert node["Status"]["State"] == "ready"
        # Through the others' tunnels, and through its own to the others.
        for entry in (cluster.address("host1"), come):
            eventually(
                f"all three are reached through {entry}",
                lambda entry=entry: len({answered(cluster, entry) for _ in range(9)} - {""}) == 3,
            )
        eventually(
            "its manager is reached, too",
            lambda come=come: (
                (found := cluster.nodes()[host]["ManagerStatus"])["Addr"] == f"{come}:2377"
                and found["Reachability"] == "reachable"
            ),
        )
    assert {task["ID"] for task in cluster.running("web", 3)} == {task["ID"] for task in before}


def answered(cluster: Cluster, address: str) -> str:
    """The task that answers at an address, or nothing."""
    done = cluster.from_client("curl", "-fsS", "-m", "1", f"http://{address}:8080/")
    return str(done.stdout).split()[0] if done.returncode == 0 else ""


def test_a_worker_loses_power(archive: Path) -> None:
    with playground(hosts=3, managers=1) as cluster:
        cluster.load(archive)
        cluster.docker("node", "update", "--availability", "drain", "host1")
        cluster.create("web", "--replicas", "4")
        assert cluster.spread(cluster.running("web", 4)) == ["host2"] * 2 + ["host3"] * 2
        node = cluster.nodes()["host3"]["ID"]
        cluster.playground.kill("host3")
        moved = eventually("its tasks run elsewhere", lambda: elsewhere(cluster, "host1", node, 4))
        assert cluster.spread(moved) == ["host2"] * 4
        assert cluster.nodes()["host3"]["Status"]["State"] == "down"
        rows = cluster.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}").splitlines()
        assert "host3 Down" in rows
        cluster.playground.start("host3")
        cluster.wait_ready(1)
        cluster.docker("service", "scale", "--detach", "web=6")
        assert "host3" in cluster.spread(cluster.running("web", 6))
