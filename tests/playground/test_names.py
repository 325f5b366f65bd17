"""Names in containers of a cluster, `docker network inspect --verbose`, and `shoal network trace`."""

import ipaddress
import json
from typing import Any

import pytest

from tests.support.cluster import Cluster, Json, eventually

pytestmark = pytest.mark.playground

SERVE = ("--", "sh", "-c", "hostname > /index.html; httpd -f -p 80 -h /")


def asked(cluster: Cluster, task: Json, kind: str, name: str) -> str:
    """What a task's name server says."""
    return cluster.enter(task, f"nslookup -type={kind} {name} 127.0.0.11 2>&1 || true")


def traced(cluster: Cluster, host: str, source: str, target: str, *options: str) -> Json:
    """`shoal network trace` on a host, as JSON."""
    words = ["shoal", "network", "trace", *options, "--format", "json", source, target]
    done = cluster.playground.run(host, words)
    told: Json = json.loads(done.stdout)
    assert done.returncode == (0 if told["Arrives"] else 1), done.stderr
    return told


def own(task: Json, network: str) -> str:
    """A task's address in a network."""
    return next(
        str(each["Addresses"][0]).partition("/")[0]
        for each in task["NetworksAttachments"]
        if each["Network"]["Spec"]["Name"] == network
    )


def test_names_and_traces(cluster: Cluster) -> None:
    cluster.docker("network", "create", "--driver", "overlay", "shop")
    cluster.docker("network", "create", "--driver", "overlay", "--internal", "red")
    servers = cluster.run("web", "--network", "shop", "--publish", "8080:80", *SERVE, replicas=3)
    settings = ("--dns-search", "shop", "--dns-option", "ndots:2", "--host", "printer:192.0.2.99")
    (client,) = cluster.run("client", "--network", "shop", *settings)
    (far,) = cluster.run("far", "--network", "red")
    host = cluster.host_of(client)
    vip = cluster.inspect("service", "web")["Endpoint"]["VirtualIPs"]
    shop = cluster.inspect("network", "shop")["Id"]
    (address,) = (each["Addr"].partition("/")[0] for each in vip if each["NetworkID"] == shop)

    _names(cluster, client, servers, address)
    assert "SERVFAIL" in asked(cluster, far, "a", "example.com")  # nothing leads out of its network
    _inspection(cluster, servers, address)

    told = traced(cluster, host, "client", "web:80", "--probe")
    assert told["Arrives"], told
    assert [step["Stage"] for step in told["Steps"]][:3] == ["source", "name", "balance"]
    assert "so the kernel has it" in told["Steps"][2]["Text"]
    assert all(own(task, "shop") in told["Steps"][2]["Text"] for task in servers)
    assert told["Steps"][-1]["Text"] == f"connected to {address}:80"
    closed = traced(cluster, host, "client", f"{own(servers[0], 'shop')}:81", "--probe")
    assert "failed: Connection refused" in closed["Steps"][-1]["Text"]
    there = cluster.host_of(servers[0])
    told = traced(cluster, there, "host", f"{own(servers[0], 'shop')}:81")
    assert "nothing listens on port 81/tcp" in told["Summary"]
    told = traced(cluster, host, "client", "far")
    assert "service far, in networks red" in told["Summary"] or "far in red" in told["Summary"]
    told = traced(cluster, "host2", "outside", f"{cluster.address('host2')}:8080")
    assert told["Arrives"], told
    assert (
        "is no published port" in traced(cluster, host, "outside", f"{cluster.address(host)}:81")["Summary"]
    )

    # Whoever stops is out of the names as soon as its node knows it.
    cluster.docker("service", "scale", "--detach", "web=0")
    eventually(
        "no address is left",
        lambda: "Address" not in asked(cluster, client, "a", "tasks.web").partition("Name:")[2],
    )
    told = traced(cluster, host, "client", "web:80")
    assert "connections are refused, because" in told["Summary"]


def _names(cluster: Cluster, client: Json, servers: list[Json], address: str) -> None:
    resolv = cluster.enter(client, "cat /etc/resolv.conf")
    assert "search shop" in resolv
    assert "ndots:2" in resolv
    assert "192.0.2.99" in cluster.enter(client, "cat /etc/hosts")
    eventually(
        "all tasks have names",
        lambda: all(own(task, "shop") in asked(cluster, client, "a", "tasks.web") for task in servers),
    )
    assert "service = 0 0 80 web.shop" in asked(cluster, client, "srv", "_80._tcp.web")
    assert asked(cluster, client, "srv", "_80._tcp.tasks.web").count("service = 0 0 80 web.") == 3
    for found, name in ((address, "web.shop"), (own(servers[0], "shop"), f"web.{servers[0]['Slot']}.")):
        pointer = ipaddress.ip_address(found).reverse_pointer
        assert name in asked(cluster, client, "ptr", pointer)
    first = cluster.container(servers[0])["Name"].lstrip("/")
    assert own(servers[0], "shop") in asked(cluster, client, "a", first)


def _inspection(cluster: Cluster, servers: list[Json], address: str) -> None:
    for host in cluster.hosts:
        told: Any = json.loads(cluster.docker("network", "inspect", "--verbose", "shop", host=host))[0]
        web = told["Services"]["web"]
        assert web["VIP"] == address
        tasks = {task["EndpointIP"]: task for task in web["Tasks"]}
        for server in servers:
            task = tasks[own(server, "shop")]
            assert task["Name"].startswith(f"web.{server['Slot']}.")
            assert task["Info"]["Host IP"] == cluster.address(cluster.host_of(server))
            container = server["Status"]["ContainerStatus"]["ContainerID"]
            if container in told["Containers"]:
                assert told["Containers"][container]["EndpointID"] == task["EndpointID"]
        assert {peer["IP"] for peer in told["Peers"]} >= {
            cluster.address(cluster.host_of(s)) for s in servers
        }
        assert told["Dropped"].keys() <= {"Isolated", "ToHost", "Spoofed"}
    ingress = json.loads(cluster.docker("network", "inspect", "--verbose", "ingress"))[0]
    assert ingress["Services"]["web"]["Ports"] == ["Target: 80, Publish: 8080"]
