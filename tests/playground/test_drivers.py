"""Networks on the hosts' own wire: macvlan, of a node alone and of the swarm, by the docker command."""

import ipaddress
from collections.abc import Iterator

import pytest

from shoal.playground.layout import CLUSTER_SUBNET_LENGTH
from tests.support.cluster import Cluster, Json, eventually

pytestmark = pytest.mark.playground

SLEEP = ("busybox", "sleep", "infinity")
SPARE = "ip link add spare0 type veth peer name spare1; ip link set spare0 up; ip link set spare1 up"
SERVE = ("--", "sh", "-c", "hostname > /index.html; httpd -f -p 80 -h /")


def wire(cluster: Cluster) -> str:
    """The subnet of the hosts' wire."""
    return str(ipaddress.ip_interface(f"{cluster.address('host1')}/{CLUSTER_SUBNET_LENGTH}").network)


def part(cluster: Cluster, number: int) -> str:
    """A 16th of the wire's addresses, above those of the hosts."""
    whole = ipaddress.ip_network(wire(cluster))
    return str(list(whole.subnets(new_prefix=whole.prefixlen + 4))[number])


@pytest.fixture
def nodes(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster; containers and networks of the nodes are gone afterwards."""
    try:
        yield cluster
    finally:
        for service in cluster.docker("service", "ls", "--quiet").split():
            cluster.attempt("service", "rm", service)
        for name in cluster.docker("network", "ls", "-q", "--filter", "scope=swarm").split():
            eventually("no task is left", lambda name=name: not _left(cluster, name))
        for host in cluster.hosts:
            for id in cluster.docker("ps", "-aq", "--filter", "is-task=false", host=host).split():
                cluster.docker("rm", "--force", id, host=host)
            local = ("network", "ls", "--quiet", "--filter", "type=custom", "--filter", "scope=local")
            for id in cluster.docker(*local, host=host).split():
                cluster.docker("network", "rm", id, host=host)


def _left(cluster: Cluster, network: str) -> bool:
    """Whether a swarm network that a test made is still there, though asked to go."""
    if cluster.inspect("network", network)["Ingress"]:
        return False
    return cluster.attempt("network", "rm", network).returncode != 0


def start(cluster: Cluster, name: str, *options: str, host: str = "host1") -> Json:
    cluster.docker("run", "--detach", "--name", name, "--stop-timeout", "0", *options, *SLEEP, host=host)
    return cluster.inspect("container", name, host=host)


def reaches(cluster: Cluster, name: str, target: str, host: str = "host1") -> bool:
    return cluster.attempt("exec", name, "ping", "-c1", "-W1", target, host=host).returncode == 0


def place(cluster: Cluster, name: str, network: str, host: str = "host1") -> Json:
    found: Json = cluster.inspect("container", name, host=host)["NetworkSettings"]["Networks"][network]
    return found


def test_containers_on_the_wire(nodes: Cluster) -> None:
    addressing = ("--subnet", wire(nodes), "--gateway", nodes.address("host3"))
    aux = ("--aux-address", f"taken={ipaddress.ip_network(part(nodes, 8))[0]}")
    for host, number in (("host1", 8), ("host2", 9)):
        more = aux if host == "host1" else ()
        nodes.docker(
            "network", "create", "-d", "macvlan", *addressing, "--ip-range", part(nodes, number), *more,
            "-o", "parent=eth0", "lan", host=host,
        )  # fmt: skip
    fixed = str(ipaddress.ip_network(part(nodes, 8))[9])
    start(nodes, "one", "--network", "lan", "-p", "8099:80")
    start(nodes, "two", "--network", "lan", "--ip", fixed, "--mac-address", "02:42:0a:0a:0a:0a")
    start(nodes, "far", "--network", "lan", host="host2")
    start(nodes, "late")

    lan = nodes.inspect("network", "lan")
    assert (lan["Driver"], lan["Scope"], lan["Options"]) == ("macvlan", "local", {"parent": "eth0"})
    assert lan["IPAM"]["Config"][0]["IPRange"] == part(nodes, 8)
    assert {each["Name"] for each in lan["Containers"].values()} == {"one", "two"}
    two = place(nodes, "two", "lan")
    assert (two["IPAddress"], two["MacAddress"]) == (fixed, "02:42:0a:0a:0a:0a")
    assert two["Gateway"] == nodes.address("host3")
    assert place(nodes, "one", "lan")["IPAddress"] == str(
        ipaddress.ip_network(part(nodes, 8))[1]
    )  # 0 is reserved

    far = place(nodes, "far", "lan", host="host2")["IPAddress"]
    for target in ("two", fixed, far, nodes.address("host3")):
        assert reaches(nodes, "one", target), target
    assert "127.0.0.11" in nodes.docker("exec", "one", "cat", "/etc/resolv.conf")
    assert not reaches(nodes, "one", nodes.address("host1"))  # macvlan: not one's own host
    # As with dockerd: nothing is published on the wire, and nobody says no.
    assert nodes.docker("port", "one") == ""
    assert nodes.from_client("curl", "-sm1", f"http://{nodes.address('host1')}:8099").returncode

    nodes.docker("network", "connect", "--alias", "tardy", "lan", "late")
    assert reaches(nodes, "one", "tardy")
    nodes.docker("network", "disconnect", "lan", "late")
    assert not reaches(nodes, "one", "tardy")
    assert "has active endpoints" in nodes.refused("network", "rm", "lan")


def test_what_cannot_be_meant_is_refused(nodes: Cluster) -> None:
    create = ("network", "create", "-d", "macvlan")
    nodes.docker(*create, "--subnet", "172.30.7.0/24", "alone")
    start(nodes, "one", "--network", "alone")
    start(nodes, "two", "--network", "alone")
    assert reaches(nodes, "one", "two")
    assert not reaches(nodes, "one", "203.0.113.10")  # without a parent there is no way out
    nodes.playground.run("host1", ["sh", "-c", SPARE])
    nodes.docker(*create, "-o", "parent=spare0", "-o", "macvlan_mode=passthru", "whole")
    assert nodes.inspect("network", "whole")["Options"]["parent"] == "spare0"
    start(nodes, "holder", "--network", "whole")
    busy = nodes.refused("run", "--rm", "--network", "whole", "busybox", "true")
    assert "takes no more containers" in busy
    refused = {
        "already using parent interface": (*create, "-o", "parent=spare0", "x"),
        "has these: eth0": (*create, "-o", "parent=eth9", "x"),
        "requested macvlan mode": (*create, "-o", "macvlan_mode=hub", "x"),
        "more than that of the parent": (
            *create, "-o", "parent=eth0", "-o", "com.docker.network.driver.mtu=9000", "x",
        ),
        "Pool overlaps": (*create, "--subnet", "172.30.7.128/25", "x"),
        "which this host has on its link eth0": ("network", "create", "--subnet", part(nodes, 8), "x"),
        "IPv6 needs 1280": (
            "network", "create", "--ipv6", "-o", "com.docker.network.driver.mtu=1000", "x",
        ),
        "already exists": (*create, "alone"),
        "VLANs have numbers from 1 to 4094": (*create, "-o", "parent=eth0.4095", "x"),
    }  # fmt: skip
    for words, command in refused.items():
        assert words in nodes.refused(*command), command
    assert nodes.docker("network", "ls", "--filter", "name=x", "--quiet") == ""
    nodes.playground.run("host1", ["ip", "link", "del", "spare0"])


def test_a_swarm_network_of_the_nodes_own_wires(nodes: Cluster) -> None:
    for host, number in (("host1", 10), ("host2", 11)):
        nodes.docker(
            "network", "create", "--config-only", "--subnet", wire(nodes), "--ip-range", part(nodes, number),
            "--gateway", nodes.address("host3"), "-o", "parent=eth0", "wires", host=host,
        )  # fmt: skip
    create = ("network", "create", "-d", "macvlan", "--scope", "swarm")
    assert "each node's own" in nodes.refused(*create, "--subnet", "10.9.0.0/24", "lan")
    nodes.docker(*create, "--attachable", "--config-from", "wires", "lan")
    lan = nodes.inspect("network", "lan", host="host2")
    assert (lan["Scope"], lan["Driver"], lan["ConfigFrom"]["Network"]) == ("swarm", "macvlan", "wires")

    here = ("--constraint", "node.hostname!=host3")
    tasks = nodes.run("web", "--network", "lan", *here, *SERVE, replicas=2)
    (client,) = nodes.run("client", "--network", "lan", "--constraint", "node.hostname==host1")
    own = {nodes.host_of(task): task["NetworksAttachments"][0]["Addresses"][0] for task in tasks}
    for host, number in (("host1", 10), ("host2", 11)):
        assert ipaddress.ip_interface(own[host]).ip in ipaddress.ip_network(part(nodes, number)), own
    for host, address in own.items():
        page = nodes.enter(client, f"wget -qO- {address.partition('/')[0]}")
        assert page, host
    found = nodes.enter(client, "nslookup -type=a web 127.0.0.11")
    assert all(address.partition("/")[0] in found for address in own.values()), found
    assert "is in use" in nodes.refused("network", "rm", "wires")  # by this node's part

    start(nodes, "guest", "--network", "lan", host="host2")
    held = ipaddress.ip_address(place(nodes, "guest", "lan", host="host2")["IPAddress"])
    assert held in ipaddress.ip_network(part(nodes, 11))
    assert reaches(nodes, "guest", "web", host="host2")
    nodes.docker("rm", "--force", "guest", host="host2")

    nodes.create("lost", "--network", "lan", "--constraint", "node.hostname==host3")
    eventually("it is said why", lambda: "does not exist on this node" in nodes.complaint("lost"))
    assert "Rejected" in nodes.docker("service", "ps", "lost", "--no-trunc", "--format", "{{.CurrentState}}")

    nodes.docker("service", "rm", "web", "client", "lost")
    eventually("the network goes", lambda: nodes.attempt("network", "rm", "lan").returncode == 0)
    eventually("its settings are free", lambda: nodes.attempt("network", "rm", "wires").returncode == 0)


def test_services_on_networks_of_their_nodes(nodes: Cluster) -> None:
    nodes.docker("network", "create", "-d", "bridge", "--scope", "swarm", "near")
    nodes.docker("network", "create", "-d", "host", "--scope", "swarm", "bare")
    at = ("--constraint", "node.hostname==host1")
    one, two = nodes.run("pair", "--network", "near", *at, replicas=2)
    address = one["NetworksAttachments"][0]["Addresses"][0].partition("/")[0]
    nodes.enter(two, f"ping -c1 -W2 {address}")
    nodes.enter(two, "ping -c1 -W2 203.0.113.10")
    (bare,) = nodes.run("bare", "--network", "bare", *at)
    assert nodes.address("host1") in nodes.enter(bare, "ip addr show eth0")


def test_networks_without_ipv4_and_without_ports_of_the_host(nodes: Cluster) -> None:
    nodes.docker("network", "create", "--ipv4=false", "--ipv6", "--subnet", "fd00:66::/64", "six")
    six = nodes.inspect("network", "six")
    assert (six["EnableIPv4"], six["EnableIPv6"]) == (False, True)
    assert [config["Subnet"] for config in six["IPAM"]["Config"]] == ["fd00:66::/64"]
    start(nodes, "one", "--network", "six", "-p", "8098:80")
    start(nodes, "two", "--network", "six")
    held = place(nodes, "one", "six")
    assert (held["IPAddress"], held["IPPrefixLen"], held["GlobalIPv6Address"]) == ("", 0, "fd00:66::2")
    assert nodes.attempt("exec", "two", "ping", "-6", "-c1", "-W1", "one").returncode == 0
    assert nodes.docker("port", "one") == "80/tcp -> [::]:8098"
    nodes.docker("exec", "--detach", "one", "httpd", "-f", "-p", "80", "-h", "/etc")
    fetch = ["curl", "-sgm5", "http://[fd00:66::1]:8098/hostname"]
    name = nodes.inspect("container", "one")["Config"]["Hostname"]
    eventually("the port answers", lambda: nodes.playground.run("host1", fetch).stdout.strip() == name)

    mode = ("-o", "com.docker.network.bridge.gateway_mode_ipv4=routed")
    nodes.docker("network", "create", *mode, "--subnet", "172.30.8.0/24", "open")
    start(nodes, "bare", "--network", "open", "-p", "8097:80")
    assert nodes.docker("ps", "--filter", "name=bare", "--format", "{{.Ports}}") == "80/tcp"
    ports = nodes.inspect("container", "bare")["NetworkSettings"]["Ports"]
    assert ports == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": ""}]}
