"""Published ports, from a client outside the cluster, through every host."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from shoal.playground.layout import CLIENT
from tests.support.cluster import Cluster, eventually

pytestmark = pytest.mark.playground

ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 53)); print("ready", flush=True)
while True:
    data, client = s.recvfrom(200)
    s.sendto(f"{client[0]} ".encode() + data, client)
"""
ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)
s.sendto(b"hello\\n", (sys.argv[1], int(sys.argv[2])))
print(s.recv(200).decode().strip())
"""


def answered(cluster: Cluster, host: str, port: int) -> str:
    """What a published port answers through a host, as soon as it does."""

    def fetch() -> str:
        try:
            return cluster.fetch(host, port)
        except AssertionError:
            return ""

    return eventually(f"{host}:{port} answers", fetch)


def test_every_host_answers_and_the_client_is_known(cluster: Cluster, web_image: str) -> None:
    options = ("--publish", "8080:80", "--constraint", "node.hostname!=host3")
    tasks = cluster.run("web", *options, image=web_image, replicas=2)
    names = {cluster.container(task)["Config"]["Hostname"] for task in tasks}
    for host in cluster.hosts:  # host3 has no task
        seen: Counter[str] = Counter()
        for _ in range(6):
            name, client, version = answered(cluster, host, 8080).split()
            assert (client, version) == ("203.0.113.10", "1")
            seen[name] += 1
        assert set(seen) == names  # spread over both tasks
    assert cluster.docker("service", "ls", "--format", "{{.Ports}}") == "*:8080->80/tcp"


def test_udp(cluster: Cluster) -> None:
    (task,) = cluster.run("echo", "--publish", "5353:53/udp", "--constraint", "node.hostname==host1")
    inside = ["nsenter", "-t", str(cluster.container(task)["State"]["Pid"]), "-n", sys.executable, "-c", ECHO]
    with cluster.playground.popen("host1", inside, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            for host in cluster.hosts:
                words = (sys.executable, "-c", ASK, cluster.address(host), "5353")
                said = eventually(f"{host} answers", lambda words=words: cluster.from_client(*words).stdout)
                assert said == "203.0.113.10 hello\n"
        finally:
            server.terminate()


def test_a_port_is_published_once_and_given_back(cluster: Cluster) -> None:
    cluster.create("one", "--replicas", "0", "--publish", "8081:80")
    words = (
        "service",
        "create",
        "--detach",
        "--no-resolve-image",
        "--name",
        "two",
        "--publish",
        "8081:80",
        "busybox",
    )
    assert "port '8081' is already in use by service 'one'" in cluster.refused(*words)
    cluster.docker("service", "rm", "one")
    cluster.docker(*words)


def test_a_port_chosen_by_the_cluster(cluster: Cluster, web_image: str) -> None:
    cluster.run("web", "--publish", "target=80", image=web_image)
    (port,) = cluster.inspect("service", "web")["Endpoint"]["Ports"]
    assert 30000 <= port["PublishedPort"] <= 32767
    assert answered(cluster, "host2", port["PublishedPort"]).endswith(" 1")


def test_ports_are_added_and_taken_away_by_updates(cluster: Cluster, web_image: str) -> None:
    (task,) = cluster.run("web", "--publish", "8082:80", image=web_image)
    assert answered(cluster, "host1", 8082)
    cluster.update("web", "--publish-rm", "80", "--publish-add", "8083:80")
    assert answered(cluster, "host3", 8083)
    eventually("8082 is closed", lambda: closed(cluster, "host1", 8082))
    assert task["ID"]


def closed(cluster: Cluster, host: str, port: int) -> bool:
    """Whether nothing answers at a port."""
    return bool(
        cluster.from_client("curl", "-s", "-m", "1", f"http://{cluster.address(host)}:{port}/").returncode
    )


def test_scaling_under_load_fails_no_request(cluster: Cluster, web_image: str) -> None:
    cluster.create(
        "web", "--publish", "8084:80", "--replicas", "3", "--stop-grace-period", "5s", image=web_image
    )
    cluster.running("web", 3)
    for host in cluster.hosts:
        answered(cluster, host, 8084)
    urls = [f"http://{cluster.address(host)}:8084/" for host in cluster.hosts]
    command = [sys.executable, "-m", "shoal.demo.load", "--rate", "40", *urls]
    load = cluster.playground.popen(CLIENT, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with load:
        assert load.stdout is not None
        assert load.stdout.readline() == "started\n"
        cluster.docker("service", "scale", "--detach", "web=12")
        cluster.running("web", 12)
        names: set[str] = set()
        for _ in range(200):  # until the new ones have had their share of the load
            names |= {cluster.fetch(host, 8084).split()[0] for host in cluster.hosts}
            if len(names) == 12:
                break
        assert len(names) == 12
        cluster.docker("service", "scale", "--detach", "web=3")
        cluster.running("web", 3)
        eventually(
            "their containers end",
            lambda: sum(len(cluster.client(host).api.containers()) for host in cluster.hosts) == 3,
        )
        out, _ = load.communicate(timeout=20)
    result = json.loads(out)
    for url in urls:
        assert result[url]["failures"] == []
        assert result[url]["answers"] > 20
    assert len(set().union(*(result[url]["tasks"] for url in urls))) >= 10


def test_an_update_under_load_fails_no_request(cluster: Cluster, web_image: str) -> None:
    options = ("--publish", "8085:80", "--stop-grace-period", "5s", "--update-monitor", "200ms")
    cluster.create("web", *options, "--replicas", "3", "--update-order", "start-first", image=web_image)
    cluster.running("web", 3)
    for host in cluster.hosts:
        answered(cluster, host, 8085)
    urls = [f"http://{cluster.address(host)}:8085/" for host in cluster.hosts]
    command = [sys.executable, "-m", "shoal.demo.load", "--rate", "40", *urls]
    load = cluster.playground.popen(CLIENT, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with load:
        assert load.stdout is not None
        assert load.stdout.readline() == "started\n"
        cluster.docker("service", "update", "--quiet", "--no-resolve-image", "--env-add", "A=b", "web")
        out, _ = load.communicate(timeout=20)
    result = json.loads(out)
    assert [result[url]["failures"] for url in urls] == [[], [], []]
