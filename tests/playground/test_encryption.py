"""Encrypted overlay networks in a real cluster: from `--opt encrypted` to what passes on the underlay."""

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.cluster import Cluster, Json, eventually

pytestmark = pytest.mark.playground

MARK = "a-payload-that-nobody-may-read"
TAP = """
import socket, sys, time
tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
tap.bind(("eth0", 0))
tap.settimeout(0.1)
print("ready", flush=True)
count, read, ports, end = 0, 0, set(), time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    try:
        frame = tap.recv(65535)
    except TimeoutError:
        continue
    count += 1
    read += sys.argv[1].encode() in frame
    if frame[12:14] == b"\\x08\\x00" and frame[23] == 17:
        ports.add(int.from_bytes(frame[36:38], "big"))
print(count, read, *sorted(ports))
"""


class Tap:
    """What passes a host's eth0 for some seconds: frames, those with MARK in them, and UDP ports."""

    def __init__(self, cluster: Cluster, host: str, seconds: float) -> None:
        command = ["python3", "-c", TAP, MARK, str(seconds)]
        self._process = cluster.playground.popen(host, command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def seen(self) -> tuple[int, int, list[int]]:
        said, _ = self._process.communicate(timeout=60)
        count, read, *ports = map(int, said.split())
        return count, read, ports


@contextmanager
def lossless(cluster: Cluster, source: Json, address: str) -> Iterator[None]:
    """200 pings a second from a task while the block runs; none may be lost."""
    pid = str(cluster.container(source)["State"]["Pid"])
    script = f"ping -n -i 0.005 {address} & read line; kill -INT $!; wait"
    command = ["nsenter", "-t", pid, "-n", "sh", "-c", script]
    with tempfile.TemporaryFile("w+") as said:
        process = cluster.playground.popen(
            cluster.host_of(source), command, stdin=subprocess.PIPE, stdout=said
        )
        try:
            yield
            time.sleep(0.5)
            process.communicate("enough\n", timeout=30)
        finally:
            process.kill()
        said.seek(0)
        answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ", said.read())}
    assert len(answered) > 100
    # What was sent last may be on its way yet.
    assert not set(range(1, max(answered))) - answered


def address(task: Json, network: str) -> str:
    for attachment in task["NetworksAttachments"]:
        if attachment["Network"]["Spec"]["Name"] == network:
            return str(attachment["Addresses"][0]).partition("/")[0]
    raise AssertionError(f"{network} not in {task['NetworksAttachments']}")


def encryption(cluster: Cluster, network: str = "vault") -> Json:
    found: Json = cluster.curl("host1", "GET", f"/networks/{network}")[1]["Encryption"]
    return found


def in_force(cluster: Cluster, epoch: int) -> bool:
    said = encryption(cluster)
    return said["Epoch"] == said["OldestEpoch"] == epoch and all(
        node["Epochs"] == [epoch] for node in said["Nodes"]
    )


def devices(cluster: Cluster, host: str) -> list[str]:
    links = json.loads(cluster.playground.run(host, ["ip", "-j", "link"]).stdout)
    return [each["ifname"] for each in links if each["ifname"].startswith("shs")]


def ping(cluster: Cluster, source: Json, target: str) -> bool:
    return "0% packet loss" in cluster.enter(source, f"ping -c 1 -W 1 {target} || true")


def by_host(cluster: Cluster) -> list[Json]:
    """The three tasks, once they run."""
    return sorted(cluster.running("box", 3), key=cluster.host_of)


def test_the_life_of_an_encrypted_network(fragile: Cluster) -> None:
    cluster = fragile
    assert "no keys to rotate" in cluster.curl("host1", "POST", "/shoal/networks/rotate-keys")[1]["message"]
    cluster.docker("network", "create", "-d", "overlay", "--attachable", "--opt", "encrypted", "vault")
    assert "encrypted" in cluster.inspect("network", "vault")["Options"]
    serve = ("--", "sh", "-c", f"echo {MARK} > /index.html; httpd -f -p 80 -h /")
    cluster.run("box", "--network", "vault", "--mode", "global", *serve, replicas=3)
    one, two, three = by_host(cluster)
    for task, other in ((one, two), (two, three), (three, one)):
        eventually("they reach each other", lambda t=task, o=other: ping(cluster, t, address(o, "vault")))
    said = encryption(cluster)
    assert {node["Method"] for node in said["Nodes"]} <= {"kernel", "userspace"}
    assert in_force(cluster, 1)

    tap = Tap(cluster, "host1", 2)
    assert cluster.enter(one, f"timeout 5 wget -q -O - http://{address(two, 'vault')}/") == MARK
    count, read, ports = tap.seen()
    assert count > 10
    assert read == 0
    assert 4788 in ports
    assert 4789 not in ports

    # Rotation, and then a restart of the daemon, under traffic.
    with lossless(cluster, one, address(two, "vault")):
        assert cluster.curl("host2", "POST", "/shoal/networks/rotate-keys")[0] == 200
        eventually("new keys are in force", lambda: in_force(cluster, 2))
    assert encryption(cluster)["Because"] == "somebody asked for it"
    before = devices(cluster, "host1")
    with lossless(cluster, two, address(one, "vault")):
        cluster.playground.restart_daemon("host1")
    assert devices(cluster, "host1") == before
    one, two, three = by_host(cluster)  # on a busy machine it was down for longer than that goes unnoticed

    # A node, and its manager, that is cut off while keys are rotated has the new ones once it is back.
    cluster.playground.partition("host3")
    eventually(  # if the leader is cut off, there is another first
        "somebody leads",
        lambda: cluster.curl("host1", "POST", "/shoal/networks/rotate-keys")[0] == 200,
    )
    eventually("there are new keys", lambda: encryption(cluster)["Epoch"] == 3)
    assert ping(cluster, one, address(two, "vault"))
    assert encryption(cluster)["OldestEpoch"] == 2, "the old keys must stay in force for who is away"
    cluster.playground.heal()
    eventually("the rotation is over", lambda: in_force(cluster, 3))
    eventually("it is reached", lambda: ping(cluster, one, address(three, "vault")))

    # A power loss takes a node's keys, and it makes others.
    cluster.playground.kill("host2")
    cluster.playground.start("host2")
    cluster.wait_ready(3)
    one, two, three = by_host(cluster)
    eventually("it is reached", lambda: ping(cluster, one, address(two, "vault")))

    cluster.docker("service", "rm", "box")
    eventually("it can be removed", lambda: cluster.attempt("network", "rm", "vault").returncode == 0)
    for host in cluster.hosts:
        eventually("nothing of it is left", lambda h=host: not devices(cluster, h))
        assert cluster.playground.run(host, ["pgrep", "-x", "wireguard-go"]).stdout == ""


def test_the_mesh_may_be_encrypted(fragile: Cluster) -> None:
    cluster = fragile
    cluster.docker("network", "rm", "ingress", stdin="y\n")
    cluster.docker(
        "network",
        "create",
        "-d",
        "overlay",
        "--ingress",
        "--opt",
        "encrypted",
        "--subnet",
        "10.0.0.0/24",
        "mesh",
    )
    serve = ("--", "sh", "-c", f"echo {MARK} > /index.html; httpd -f -p 80 -h /")
    (task,) = cluster.run("web", "--publish", "8080:80", *serve)
    (entry, *_) = [host for host in cluster.hosts if host != cluster.host_of(task)]
    eventually(
        "it answers",
        lambda: (
            cluster.from_client(
                "curl", "-fsS", "-m", "2", f"http://{cluster.address(entry)}:8080/"
            ).stdout.strip()
            == MARK
        ),
    )
    tap = Tap(cluster, cluster.host_of(task), 1.5)
    for _ in range(3):
        assert cluster.fetch(entry, 8080) == MARK
    count, read, _ = tap.seen()
    assert count > 10
    assert read == 0
