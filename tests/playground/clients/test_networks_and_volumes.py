"""`docker network` and `docker volume`, every subcommand and flag, on one node and across the swarm."""

import pytest

from tests.playground.clients.coverage import covers
from tests.support.cluster import Cluster, eventually

pytestmark = pytest.mark.playground

SLEEP = ("busybox", "sleep", "infinity")


@covers(
    "network create",
    *("--driver", "--attachable", "--internal", "--label", "--opt", "--scope", "--ipv4"),
    *("--subnet", "--gateway", "--ip-range", "--aux-address", "--ipam-driver", "--ipam-opt"),
)
def test_a_swarm_network(cluster: Cluster) -> None:
    cluster.docker(
        *("network", "create", "--driver", "overlay", "--scope", "swarm", "--attachable", "--internal"),
        *("--label", "a=b", "--opt", "com.docker.network.driver.mtu=1400", "--ipv4"),
        *("--subnet", "10.66.0.0/24", "--gateway", "10.66.0.254", "--ip-range", "10.66.0.128/26"),
        *("--aux-address", "printer=10.66.0.129", "--ipam-driver", "default", "--ipam-opt", "x=y", "whole"),
    )
    network = cluster.inspect("network", "whole", host="host2")
    assert (network["Attachable"], network["Internal"], network["Scope"]) == (True, True, "swarm")
    assert network["Labels"] == {"a": "b"}
    assert network["IPAM"]["Options"] == {"x": "y"}
    (task,) = cluster.run("web", "--network", "whole")
    address = task["NetworksAttachments"][0]["Addresses"][0]
    assert address.endswith("/24")
    assert 130 <= int(address.partition("/")[0].rpartition(".")[2]) < 192  # 129 is the printer's
    link = cluster.enter(task, "ip -o link show eth0")
    assert "mtu 1400" in link
    assert "default" not in cluster.enter(task, "ip route")  # internal: no way out


@covers("network create", "--ipv6", "--config-only", "--config-from")
@covers("network rm", "--force")
@covers("network prune", "--filter", "--force")
def test_networks_of_a_node(cluster: Cluster) -> None:
    cluster.docker(
        "network", "create", "--config-only", "--subnet", "172.31.7.0/24", "--label", "only=1", "plan"
    )
    cluster.docker("network", "create", "--driver", "bridge", "--config-from", "plan", "made")
    assert cluster.inspect("network", "made")["IPAM"]["Config"][0]["Subnet"] == "172.31.7.0/24"
    cluster.docker("network", "create", "--ipv6", "--subnet", "fd00:77::/64", "six")
    assert cluster.inspect("network", "six")["EnableIPv6"] is True
    assert cluster.docker("network", "rm", "--force", "made", "no-such-network") == "made"
    cluster.docker("network", "rm", "six", "plan")
    cluster.docker("network", "create", "--label", "prune=1", "unused")
    cluster.docker("network", "create", "spared")
    said = cluster.docker("network", "prune", "--force", "--filter", "label=prune")
    assert "unused" in said
    assert "spared" not in said
    cluster.docker("network", "rm", "spared")


@covers(
    "network connect",
    *("--alias", "--driver-opt", "--gw-priority", "--ip", "--ip6", "--link", "--link-local-ip"),
)
@covers("network disconnect", "--force")
def test_containers_come_and_go(cluster: Cluster) -> None:
    six = ("--ipv6", "--subnet", "172.31.8.0/24", "--subnet", "fd00:88::/64")
    cluster.docker("network", "create", *six, "late")
    try:
        cluster.docker("run", "--detach", "--name", "first", "--network", "late", *SLEEP)
        cluster.docker("run", "--detach", "--name", "second", *SLEEP)
        cluster.docker(
            *("network", "connect", "--alias", "other", "--ip", "172.31.8.77", "--ip6", "fd00:88::77"),
            *("--gw-priority", "5", "--link", "first:friend", "--link-local-ip", "169.254.8.8"),
            *("--driver-opt", "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"),
            *("late", "second"),
        )
        told = cluster.inspect("container", "second")["NetworkSettings"]["Networks"]["late"]
        assert (told["IPAddress"], told["GlobalIPv6Address"]) == ("172.31.8.77", "fd00:88::77")
        assert "other" in told["Aliases"]
        assert told["GwPriority"] == 5
        addresses = cluster.docker("exec", "second", "ip", "-o", "addr")
        for address in ("172.31.8.77/24", "fd00:88::77/64", "169.254.8.8"):
            assert address in addresses
        assert "default via 172.31.8.1 " in cluster.docker("exec", "second", "ip", "route")
        assert "172.31.8.77" in cluster.docker("exec", "first", "nslookup", "other", "127.0.0.11")
        assert cluster.docker("exec", "second", "ping", "-c1", "-W5", "friend")
        cluster.docker("network", "disconnect", "--force", "late", "second")
        assert "172.31.8.77" not in cluster.docker("exec", "second", "ip", "-o", "addr")
    finally:
        cluster.attempt("rm", "--force", "first", "second")
        cluster.docker("network", "rm", "late")


@covers("network create", "--ingress")
def test_another_ingress_network(cluster: Cluster) -> None:
    """It is taken away, made anew with another subnet, and a published port goes through it."""
    cluster.docker("network", "rm", "ingress", stdin="y\n")
    try:
        eventually("it is gone", lambda: cluster.attempt("network", "inspect", "ingress").returncode)
    finally:
        subnet = ("--subnet", "10.88.0.0/24")
        cluster.docker("network", "create", "--driver", "overlay", "--ingress", "--ipv6", *subnet, "ingress")
    (task,) = cluster.run("web", "--publish", "8140:80", "--", "httpd", "-f", "-p", "80")
    assert any(each["Addresses"][0].startswith("10.88.0.") for each in task["NetworksAttachments"])
    for host in cluster.hosts:
        reached = eventually(
            f"through {host}",
            lambda host=host: (
                "404"
                in cluster.from_client(
                    "curl",
                    "-s",
                    "-m",
                    "3",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    f"http://{cluster.address(host)}:8140/none",
                ).stdout
            ),
        )
        assert reached


@covers("volume create", "--driver", "--label", "--opt")
@covers("volume inspect", "--format")
@covers("volume ls", "--filter", "--format", "--quiet")
@covers("volume rm", "--force")
@covers("volume prune", "--all", "--filter", "--force")
def test_volumes(cluster: Cluster) -> None:
    ram = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=2m")
    cluster.docker("volume", "create", "--driver", "local", "--label", "a=b", *ram, "fast")
    assert cluster.docker("volume", "inspect", "--format", "{{.Labels.a}} {{.Driver}}", "fast") == "b local"
    place = ("--constraint", "node.hostname==host1", "--mount", "type=volume,source=fast,target=/fast")
    (task,) = cluster.run("web", *place)
    assert "2048" in cluster.enter(task, "df -k /fast | tail -1")
    cluster.docker("volume", "create", "plain")
    for text in ("name=fast", "label=a", "label=a=b"):
        assert cluster.docker("volume", "ls", "--quiet", "--filter", text) == "fast"
    assert cluster.docker("volume", "ls", "--format", "{{.Name}}", "--filter", "dangling=true") == "plain"
    assert "in use" in cluster.refused("volume", "rm", "fast")
    assert cluster.docker("volume", "rm", "--force", "plain", "no-such-volume").split()[0] == "plain"
    for name, label in (("kept", "keep=1"), ("spent", "spend=1")):
        cluster.docker("volume", "create", "--label", label, name)
    said = cluster.docker("volume", "prune", "--all", "--force", "--filter", "label!=keep")
    assert "spent" in said
    assert cluster.docker("volume", "ls", "--quiet").split() == ["fast", "kept"]
    cluster.docker("volume", "rm", "kept")
    cluster.docker("service", "rm", "web")
    eventually("it can go", lambda: not cluster.attempt("volume", "rm", "fast").returncode)
