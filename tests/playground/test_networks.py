"""Overlay networks: their life, names and addresses on them, and traffic across hosts."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.cluster import Cluster, Json, eventually

pytestmark = pytest.mark.playground

SERVE = ("--", "sh", "-c", "hostname > /index.html; httpd -f -p 80 -h /")


def lookup(cluster: Cluster, task: Json, name: str) -> set[str]:
    """The addresses that a task's name server gives for a name."""
    said = cluster.enter(task, f"nslookup -type=a {name} 127.0.0.11 2>&1 || true")
    return set(
        re.findall(r"Address:? ?\d*:? (\d+\.\d+\.\d+\.\d+)$", said.partition("Name:")[2], re.MULTILINE)
    )


def address(task: Json, network: str) -> str:
    """A task's own address on a network."""
    for attachment in task["NetworksAttachments"]:
        if attachment["Network"]["Spec"]["Name"] == network:
            return str(attachment["Addresses"][0]).partition("/")[0]
    raise AssertionError(f"{network} not in {task['NetworksAttachments']}")


def test_create_list_inspect_remove(cluster: Cluster) -> None:
    id = cluster.docker(
        "network", "create", "--driver", "overlay", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.1",
        "--label", "team=blue", "--attachable", "shop",
    )  # fmt: skip
    for host in cluster.hosts:
        row = cluster.docker(
            "network", "ls", "--filter", "name=shop", "--format", "{{.Driver}} {{.Scope}}", host=host
        )
        assert row == "overlay swarm"
    network = cluster.inspect("network", "shop")
    assert network["Id"] == id
    assert network["IPAM"]["Config"] == [{"Subnet": "10.77.0.0/24", "Gateway": "10.77.0.1"}]
    assert network["Labels"] == {"team": "blue"}
    assert network["Attachable"] is True
    assert "already exists" in cluster.refused("network", "create", "--driver", "overlay", "shop")
    overlap = ("--subnet", "10.77.0.128/25")
    assert "overlaps" in cluster.refused("network", "create", "--driver", "overlay", *overlap, "other")
    cluster.run("web", "--network", "shop")
    refusal = cluster.refused("network", "rm", "shop")
    assert "in use" in refusal
    assert "web" in refusal or "task" in refusal
    cluster.docker("service", "rm", "web")
    eventually("it can be removed", lambda: cluster.attempt("network", "rm", "shop").returncode == 0)
    assert "network shop not found" in cluster.refused("network", "inspect", "shop")


def test_the_predefined_networks_are_there(cluster: Cluster) -> None:
    listed = cluster.docker("network", "ls", "--format", "{{.Name}}/{{.Driver}}/{{.Scope}}").split()
    assert sorted(listed) == [
        "bridge/bridge/local",
        "host/host/local",
        "ingress/overlay/swarm",
        "none/null/local",
    ]
    assert "pre-defined" in cluster.refused("network", "rm", "bridge")
    assert cluster.inspect("network", "ingress")["Ingress"] is True


def test_names_and_traffic_across_hosts(cluster: Cluster) -> None:
    cluster.docker("network", "create", "--driver", "overlay", "shop")
    servers = cluster.run("web", "--network", "name=shop,alias=store", *SERVE, replicas=3)
    (client,) = cluster.run("client", "--network", "shop")
    assert cluster.spread(servers) == ["host1", "host2", "host3"]
    endpoint = cluster.inspect("service", "web")["Endpoint"]["VirtualIPs"]
    vip = endpoint[0]["Addr"].partition("/")[0]
    own = {address(task, "shop") for task in servers}
    assert len(own) == 3

    assert lookup(cluster, client, "web") == {vip}
    assert lookup(cluster, client, "store") == {vip}
    assert lookup(cluster, client, "tasks.web") == own
    assert lookup(cluster, client, "no-such-name") == set()
    names = {cluster.container(task)["Config"]["Hostname"] for task in servers}
    for each in own:  # straight to each task
        assert cluster.enter(client, f"ping -c 1 -W 3 {each}")
    straight = {cluster.enter(client, f"timeout 5 wget -q -O - http://{each}/") for each in own}
    assert straight == names
    answers = cluster.enter(
        client, "for i in 1 2 3 4 5 6 7 8 9; do timeout 5 wget -q -O - http://web/; done"
    ).split()
    assert set(answers) == names  # in turn, by the virtual address

    cluster.docker("service", "scale", "--detach", "web=1")
    eventually("names follow the tasks", lambda: len(lookup(cluster, client, "tasks.web")) == 1)
    assert lookup(cluster, client, "web") == {vip}


def test_networks_are_apart(cluster: Cluster) -> None:
    for name in ("red", "blue"):
        cluster.docker("network", "create", "--driver", "overlay", name)
    (server,) = cluster.run("web", "--network", "red", *SERVE)
    (stranger,) = cluster.run("stranger", "--network", "blue")
    (both,) = cluster.run("both", "--network", "red", "--network", "blue")
    place = address(server, "red")
    assert lookup(cluster, stranger, "web") == set()
    assert cluster.enter(
        stranger, f"timeout 1 wget -q -O - http://{place}/ 2>&1 || echo unreachable"
    ).endswith("unreachable")
    assert cluster.enter(both, "timeout 5 wget -q -O - http://web/")
    assert lookup(cluster, stranger, "both") == {
        vip["Addr"].partition("/")[0]
        for vip in cluster.inspect("service", "both")["Endpoint"]["VirtualIPs"]
        if vip["NetworkID"] == cluster.inspect("network", "blue")["Id"]
    }


def test_dnsrr_gives_the_tasks_themselves(cluster: Cluster) -> None:
    cluster.docker("network", "create", "--driver", "overlay", "shop")
    servers = cluster.run("web", "--network", "shop", "--endpoint-mode", "dnsrr", *SERVE, replicas=3)
    (client,) = cluster.run("client", "--network", "shop")
    assert lookup(cluster, client, "web") == {address(task, "shop") for task in servers}
    assert not cluster.inspect("service", "web")["Endpoint"].get("VirtualIPs")


def test_the_network_of_the_host(cluster: Cluster) -> None:
    (task,) = cluster.run("web", "--network", "host")
    assert f"{cluster.address(cluster.host_of(task))}/24" in cluster.enter(task, "ip addr show eth0")
    (alone,) = cluster.run("alone", "--network", "none")
    assert cluster.enter(alone, "ls /sys/class/net") == "lo"


def test_tasks_reach_the_world_outside(cluster: Cluster) -> None:
    cluster.docker("network", "create", "--driver", "overlay", "shop")
    for name, options in (("plain", ()), ("overlay", ("--network", "shop"))):
        (task,) = cluster.run(name, *options)
        assert cluster.enter(task, "ping -c 1 -W 3 203.0.113.10")


def test_a_network_that_is_not_there_is_refused(cluster: Cluster) -> None:
    words = ("service", "create", "--detach", "--no-resolve-image", "--network", "nowhere", "busybox")
    assert "network nowhere not found" in cluster.refused(*words)


LEFT = r"""
ip -o link | cut -d' ' -f2 | sort; ip address | grep inet | grep -v fe80; nft -s list ruleset
for each in $(ls /sys/class/net); do bridge fdb show dev $each; done | grep -v '^33:33\|^01:00'
ip -4 neigh show nud permanent; ls /run/shoal/network/netns
"""


def left(cluster: Cluster, host: str) -> Counter[str]:
    """Devices, addresses, rules, entries of tunnels and neighbours, and namespaces of a host, as words."""
    found = cluster.playground.run(host, ["sh", "-c", LEFT]).stdout
    return Counter(re.split(r"[\s,]+", re.sub(r"@if\d+|tentative|dev veth\w+", "", found)))


def come_and_go(cluster: Cluster, name: str, port: int, times: int) -> None:
    """A service on a network of its own, made and removed over and over; every second time once it runs."""
    for number in range(times):
        cluster.docker("network", "create", "--driver", "overlay", name)
        cluster.create(
            name, "--replicas", "3", "--network", name, "--publish", f"{port}:80", "--stop-grace-period=1s",
            "--", "sleep", "1000",
        )  # fmt: skip
        if number % 2:
            cluster.running(name, 3)
        cluster.docker("service", "rm", name)
        eventually("it can be removed", lambda: cluster.attempt("network", "rm", name).returncode == 0)


def test_services_and_networks_that_come_and_go_leave_nothing(cluster: Cluster) -> None:
    come_and_go(cluster, "first", 8100, 2)  # what is made once and stays: the ingress network's part
    cluster.clear()
    before = {host: left(cluster, host) for host in cluster.hosts}
    with ThreadPoolExecutor(2) as several:
        list(several.map(lambda number: come_and_go(cluster, f"n{number}", 8100 + number, 4), (1, 2)))
    cluster.clear()
    for host in cluster.hosts:
        eventually(
            f"{host} has nothing more or less",
            lambda host=host: left(cluster, host) == before[host],
        )
