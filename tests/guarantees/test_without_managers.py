"""Workloads, names, virtual IPs and published ports go on without managers, and while Shoal restarts."""

from collections.abc import Iterator

import pytest

from shoal.playground.layout import CLIENT
from tests.guarantees.hosts import Connection, Place, answers, kill_shoal
from tests.support.cluster import Cluster, Json, eventually

pytestmark = pytest.mark.playground

PORT = 7000
ECHO = ("nc", "-ll", "-p", "80", "-e", "cat")


def virtual_ip(cluster: Cluster, service: str, network: str) -> str:
    """The service's virtual IP on a network."""
    wanted = cluster.inspect("network", network)["Id"]
    endpoint: Json = cluster.inspect("service", service)["Endpoint"]
    (address,) = [vip["Addr"] for vip in endpoint["VirtualIPs"] if vip["NetworkID"] == wanted]
    return str(address).partition("/")[0]


class Workload:
    """An echo service on host3, a client of it on host2, and connections that stay open."""

    def __init__(self, cluster: Cluster) -> None:
        cluster.docker("network", "create", "--driver", "overlay", "net")
        on = ("--constraint", "node.hostname==host3", "--network", "net")
        (echo,) = cluster.run("echo", *on, "--publish", f"{PORT}:80", "--", *ECHO)
        (client,) = cluster.run("client", "--constraint", "node.hostname==host2", "--network", "net")
        self.cluster = cluster
        self.echo, self.client = Place.of(cluster, echo), Place.of(cluster, client)
        self.ids = {echo["ID"], client["ID"]}
        self.vip = virtual_ip(cluster, "echo", "net")
        self.address = cluster.address("host2")  # whose mesh leads to host3

    def connections(self) -> tuple[Connection, Connection]:
        """One through the virtual IP, one from outside through another host's published port."""
        eventually("the name is there", lambda: self.vip in self.client.enter("nslookup echo").stdout)
        for way in (self.inside, self.outside):
            eventually("it answers", lambda way=way: answers(way))
        return self.inside(), self.outside()

    def inside(self) -> Connection:
        return self.client.connect(self.vip, 80)

    def outside(self) -> Connection:
        return Connection(self.cluster, CLIENT, [], self.address, PORT)

    def goes_on(self, word: str, *, names: bool = True) -> None:
        """New connections, and (unless the name server is down) names."""
        assert self.echo.lives
        assert self.client.lives
        for way in (self.inside, self.outside):
            with way() as fresh:
                fresh.say(word)
        if names:
            answer = self.client.enter(f"echo {word} | nc -w 2 echo 80")
            assert answer.stdout == word + "\n", answer.stderr
            assert self.vip in self.client.enter("nslookup echo").stdout


@pytest.fixture
def patient(cluster: Cluster) -> Iterator[Cluster]:
    """Nodes count as down after 12 s: a busy machine may take longer than 3 s to start a daemon again."""
    cluster.docker("swarm", "update", "--dispatcher-heartbeat", "4s")
    yield cluster
    cluster.docker("swarm", "update", "--dispatcher-heartbeat", "5s")  # Docker's default: as managers choose


def test_everything_goes_on_without_managers_and_while_every_process_of_shoal_restarts(
    patient: Cluster,
) -> None:
    cluster = patient
    workload = Workload(cluster)
    inside, outside = workload.connections()
    with inside, outside:

        def both(word: str) -> None:
            inside.say(word)
            outside.say(word)

        both("before")
        cluster.playground.kill("host1")  # all managers lose power
        try:
            both("without-managers")
            workload.goes_on("without-managers")
            for host in ("host2", "host3"):
                kill_shoal(cluster, host)
            both("without-shoal")
            workload.goes_on("without-shoal", names=False)
            for host in ("host2", "host3"):
                cluster.playground.restart_daemon(host)
            both("restarted-without-managers")
            eventually(
                "names are answered again", lambda: not workload.client.enter("nslookup echo").returncode
            )
            workload.goes_on("restarted-without-managers")
        finally:
            cluster.playground.start("host1")
        cluster.wait_ready(1)
        both("managers-are-back")
        for host in cluster.hosts:
            kill_shoal(cluster, host)
            cluster.playground.restart_daemon(host)
        cluster.wait_ready(1)
        both("all-restarted")
        workload.goes_on("all-restarted")
    running = {task["ID"] for name in ("echo", "client") for task in cluster.running(name, 1)}
    assert running == workload.ids  # the very tasks of the beginning
