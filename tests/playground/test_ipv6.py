"""IPv6 beside IPv4 on the cluster's networks: addresses, names, services, published ports, bad input."""

import ipaddress
import re

import pytest

from cluster.dataplane import address6_for
from tests.support.cluster import Cluster, Json, eventually

pytestmark = pytest.mark.playground

WHO = r"""
mkdir -p /cgi-bin
printf '#!/bin/sh\necho; echo "$(hostname) $REMOTE_ADDR"\n' > /cgi-bin/who
chmod +x /cgi-bin/who
exec httpd -f -p 80 -h /
"""
SERVE = ("--", "sh", "-c", WHO)


def lookup6(cluster: Cluster, task: Json, name: str) -> set[str]:
    """The IPv6 addresses that a task's name server gives for a name."""
    said = cluster.enter(task, f"nslookup -type=aaaa {name} 127.0.0.11 2>&1 || true")
    found = re.findall(r"(?:Address[ \d]*:|AAAA address) *([0-9a-f:]*:[0-9a-f:]+)$", said, re.MULTILINE)
    return {str(ipaddress.ip_address(each)) for each in found}


def addresses(task: Json, network: str) -> list[str]:
    """A task's addresses on a network."""
    for attachment in task["NetworksAttachments"]:
        if attachment["Network"]["Spec"]["Name"] == network:
            return [str(each).partition("/")[0] for each in attachment["Addresses"]]
    raise AssertionError(f"{network} not in {task['NetworksAttachments']}")


def test_addresses_names_and_traffic(cluster: Cluster) -> None:
    cluster.docker("network", "create", "--driver", "overlay", "--ipv6", "--attachable", "shop")
    servers = cluster.run("web", "--network", "shop", *SERVE, replicas=3)
    (client,) = cluster.run("client", "--network", "shop")
    assert cluster.spread(servers) == ["host1", "host2", "host3"]
    network = cluster.inspect("network", "shop")
    four, six = network["IPAM"]["Config"]
    assert (network["EnableIPv6"], ":" in four["Subnet"], four["Gateway"][-2:]) == (True, False, ".1")
    assert ipaddress.ip_network(six["Subnet"]).subnet_of(ipaddress.ip_network("fd00::/8"))
    assert ipaddress.ip_address(six["Gateway"]) == ipaddress.ip_network(six["Subnet"])[1]

    own = {addresses(task, "shop")[1] for task in servers}
    vips = [vip["Addr"] for vip in cluster.inspect("service", "web")["Endpoint"]["VirtualIPs"]]
    assert vips[1] == address6_for(six["Subnet"], vips[0])
    vip = vips[1].partition("/")[0]
    assert lookup6(cluster, client, "web") == {vip}
    assert lookup6(cluster, client, "tasks.web") == own
    names = {cluster.container(task)["Config"]["Hostname"] for task in servers}
    straight = {
        cluster.enter(client, f"timeout 5 wget -q -O - http://[{each}]/cgi-bin/who").split()[0]
        for each in own
    }
    assert straight == names
    assert cluster.enter(client, f"ping -6 -c 1 -W 3 {sorted(own)[0]}")
    told: list[list[str]] = []

    def everyone_answered() -> bool:
        told.append(cluster.enter(client, f"timeout 5 wget -q -O - http://[{vip}]/cgi-bin/who").split())
        return {name for name, _ in told} == names

    eventually("the service's address leads to every task", everyone_answered, pause=0.0)
    assert {asker.strip("[]") for _, asker in told} == {addresses(client, "shop")[1]}

    # As the Engine API tells it, and for a container of no service on another host.
    shown = cluster.container(servers[0])["NetworkSettings"]["Networks"]["shop"]
    assert [shown["IPAddress"], shown["GlobalIPv6Address"]] == addresses(servers[0], "shop")
    assert (shown["GlobalIPv6PrefixLen"], shown["IPv6Gateway"]) == (64, six["Gateway"])
    fetch = f"wget -q -O - http://[{vip}]/cgi-bin/who"
    alone = cluster.docker("run", "--rm", "--network", "shop", "busybox", "sh", "-c", fetch, host="host2")
    assert alone.split()[0] in names
    refused = cluster.refused("run", "--rm", "--network", "shop", "--ip6", sorted(own)[0], "busybox", "true")
    assert "choose that with --ip, and leave --ip6 out" in refused

    # A task that comes anew, wherever it is, is found by its new address.
    cluster.update("web", "--force", "--detach=false", "--update-parallelism", "0")
    now = {addresses(task, "shop")[1] for task in cluster.running("web", 3)}
    eventually("names follow", lambda: lookup6(cluster, client, "tasks.web") == now)
    for each in now:
        assert cluster.enter(client, f"timeout 5 wget -q -O - http://[{each}]/cgi-bin/who")


def test_published_ports(cluster: Cluster) -> None:
    """The client's IPv6 address is kept through every host, also through those without a task."""
    (task,) = cluster.run("web", "--publish", "8086:80", "--constraint", "node.hostname==host1", *SERVE)
    name = cluster.container(task)["Config"]["Hostname"]
    asker, *entries = reversed(cluster.hosts)
    commands = {
        host: f"addr add 2001:db8::{number}/64 dev eth0 nodad" for number, host in enumerate(cluster.hosts, 1)
    }
    try:
        for host, command in commands.items():
            assert not cluster.playground.run(host, ["ip", "-6", *command.split()]).returncode
        for host in entries:
            number = cluster.hosts.index(host) + 1
            url = f"http://[2001:db8::{number}]:8086/cgi-bin/who"
            said = eventually(
                f"{host} answers",
                lambda url=url: cluster.playground.run(
                    asker, ["curl", "-fsS", "-m", "3", url]
                ).stdout.split(),
            )
            assert [said[0], said[1].strip("[]")] == [name, f"2001:db8::{cluster.hosts.index(asker) + 1}"]
    finally:
        for host, command in commands.items():
            delete = command.replace("addr add", "addr del").removesuffix(" nodad")
            cluster.playground.run(host, ["ip", "-6", *delete.split()])


def test_bad_input_and_exhaustion(cluster: Cluster) -> None:
    def refusal(*words: str) -> str:
        return cluster.refused("network", "create", "--driver", "overlay", *words, "bad")

    assert "a /96 or larger" in refusal("--ipv6", "--subnet", "fd00:7::/100")
    assert "has one IPv6 subnet" in refusal("--ipv6", "--subnet", "fd00:7::/64", "--subnet", "fd00:8::/64")
    assert "create it with --ipv6" in refusal("--subnet", "fd00:7::/64")
    mtu = "com.docker.network.driver.mtu=1200"
    assert "needs 1280 or more" in refusal("--ipv6", "--opt", mtu)
    both = ("--ipv6", "--subnet", "10.86.0.0/29", "--subnet", "fd00:7::/64")
    cluster.docker("network", "create", "--driver", "overlay", *both, "small")
    assert "overlaps" in refusal("--ipv6", "--subnet", "fd00:7::/80")

    cluster.create("many", "--network", "small", "--replicas", "6")
    cluster.running("many", 4)
    waiting = eventually(
        "what can't be placed says why",
        lambda: {
            task["Status"].get("Err") for task in cluster.tasks("many") if task["Status"]["State"] == "new"
        },
    )
    assert waiting == {
        "network small has no free address: all 5 of 10.86.0.0/29 are in use; remove or scale down what is "
        "in it, or use a network with a larger subnet"
    }
