"""IPv6 on cluster networks on a real kernel: between hosts, out, and not between networks."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.dataplane import DataplaneChanges, EndpointRecord, NetworkRecord, address6_for
from cluster.objects import Subnet
from netplane.model import Attachment, SandboxSpec
from tests.host.netplane.test_cluster import APP, INGRESS, INGRESS6, PORT, VIP, Cluster, six
from tests.support.network_lab import Lab, PlaneError

pytestmark = pytest.mark.host

OTHER, LOCKED = "other-id", "locked-id"
OUTSIDE = "2001:db8::99"
# An unsolicited neighbour advertisement: TARGET has MAC, says the sender to READER.
ADVERTISE = """
import socket, struct, sys
target, mac, reader = sys.argv[1:]
sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
said = socket.inet_pton(socket.AF_INET6, target) + b"\\x02\\x01" + bytes.fromhex(mac.replace(":", ""))
sock.sendto(struct.pack(">BBHI", 136, 0, 0, 0x20000000) + said, (reader, 0))
"""


def ping(cluster: Cluster, name: str, address: str) -> bool:
    host, netns = cluster.netns[name]
    return "1 received" in host.run(f"ping -6 -n -c 1 -W 2 {address}", netns, check=False)


def six_underlay(cluster: Cluster) -> None:
    """The hosts and the client are neighbours by IPv6, too."""
    for number, host in enumerate(cluster.hosts, 1):
        host.run(f"ip addr add 2001:db8::{number}/64 dev eth0 nodad")
    cluster.lab.run(cluster.client, f"ip addr add {OUTSIDE}/64 dev eth0 nodad")


def test_across_hosts_and_out(lab: Lab) -> None:
    cluster = Cluster(lab, 2)
    six_underlay(cluster)
    lab.serve(cluster.client, "outside")
    cluster.task("t1", 1, 10, ingress=False)
    cluster.task("t2", 2, 11, ingress=False)
    cluster.task("t3", 1, 12, ingress=False)
    assert cluster.ask("t1", six("10.0.1.11"))[0].split()[:2] == ["t2", six("10.0.1.10")]
    assert cluster.ask("t2", six("10.0.1.10"), kind="udp")[0].split()[:2] == ["t1", six("10.0.1.11")]
    assert cluster.ask("t1", six("10.0.1.12"))[0].startswith("t3 ")  # on the same host
    assert ping(cluster, "t1", six("10.0.1.11"))
    assert ping(cluster, "t1", "fd00:0:0:1001::1")
    # Out through the task's own host, with that host's address.
    assert cluster.ask("t2", OUTSIDE)[0].split()[:2] == ["outside", "2001:db8::2"]
    # Nobody waits for a look at duplicates, and no router's word counts.
    host, netns = cluster.netns["t1"]
    (link,) = json.loads(host.run("ip -j -6 addr show dev eth0", netns))
    flags = [each for each in link["addr_info"] if each["scope"] == "global"]
    assert [each["local"] for each in flags] == [six("10.0.1.10")]
    assert not any(each.get("tentative") for each in link["addr_info"])
    # The whole MTU, and nothing more, goes through the tunnel.
    assert "1 received" in host.run(f"ping -6 -n -c 1 -W 2 -s 1402 -M do {six('10.0.1.11')}", netns)


def test_nobody_says_that_another_address_is_its_own(lab: Lab) -> None:
    cluster = Cluster(lab, 1)
    for name, last in (("thief", 10), ("reader", 11), ("owner", 12)):
        cluster.task(name, 1, last, ingress=False)
    script = lab.directory / "advertise.py"
    script.write_text(ADVERTISE)
    host, thief = cluster.netns["thief"]
    _, reader = cluster.netns["reader"]
    assert ping(cluster, "reader", six("10.0.1.12"))
    for target in ("10.0.1.12", "10.0.1.10"):
        host.run(f"python3 {script} {six(target)} 02:42:0a:00:01:0a {six('10.0.1.11')}", thief)
    known = json.loads(host.run("ip -j -6 neigh show dev eth0", reader))
    macs = {each["dst"]: each["lladdr"] for each in known}
    assert macs[six("10.0.1.12")] == "02:42:0a:00:01:0c"
    assert macs[six("10.0.1.10")] == "02:42:0a:00:01:0a", "its own is believed"
    assert "packets 1 " in host.run("nft list counters table bridge shoal")


def test_an_address_moves_to_another_host(lab: Lab) -> None:
    """Back and forth, as when a container with an address of its own is started elsewhere."""
    cluster = Cluster(lab, 3)
    cluster.task("asker", 3, 9, ingress=False)
    cluster.task("local", 1, 8, ingress=False)
    for host in (1, 2, 1):
        cluster.task("t1", host, 10, ingress=False)
        for asker in ("asker", "local"):
            assert cluster.ask(asker, six("10.0.1.10"))[0].startswith("t1 "), (host, asker)
        place, _ = cluster.netns["t1"]
        place.call("remove", "t1-box")
        cluster.tell(DataplaneChanges(removed_endpoints=((APP, "t1"),)))
    left = cluster.hosts[2].run("ip -6 neigh show nud permanent")
    assert six("10.0.1.10") not in left


def test_walls_between_networks(lab: Lab) -> None:
    cluster = Cluster(lab, 2)
    six_underlay(cluster)
    lab.serve(cluster.client, "outside")
    networks = (
        NetworkRecord(
            id=OTHER,
            name="other",
            driver="overlay",
            subnets=(Subnet(subnet="10.0.2.0/24", gateway="10.0.2.1"),),
            subnets6=(Subnet(subnet="fd00:0:0:1002::/64", gateway="fd00:0:0:1002::1"),),
            vni=4098,
        ),
        NetworkRecord(
            id=LOCKED,
            name="locked",
            driver="overlay",
            subnets=(Subnet(subnet="10.0.3.0/24", gateway="10.0.3.1"),),
            subnets6=(Subnet(subnet="fd00:0:0:1003::/64", gateway="fd00:0:0:1003::1"),),
            vni=4099,
            internal=True,
        ),
    )
    cluster.tell(DataplaneChanges(networks=networks))
    cluster.task("t1", 1, 10, ingress=False)
    host = cluster.hosts[0]
    for network, number, name in ((OTHER, 2, "stranger"), (LOCKED, 3, "prisoner")):
        sandbox = host.create(
            SandboxSpec(id=f"{name}-box", attachments=(Attachment(network, f"10.0.{number}.5/24"),))
        )
        lab.serve(host.pid, name, sandbox["netns"])
        cluster.netns[name] = (host, sandbox["netns"])
    stranger, prisoner = "fd00:0:0:1002::a00:205", "fd00:0:0:1003::a00:305"
    assert cluster.ask("stranger", stranger)[0].startswith("stranger ")
    assert cluster.ask("stranger", OUTSIDE)[0].startswith("outside 2001:db8::1 ")
    walls = [
        ("t1", stranger),
        ("t1", prisoner),
        ("stranger", six("10.0.1.10")),
        ("prisoner", six("10.0.1.10")),
        ("prisoner", OUTSIDE),
    ]
    with ThreadPoolExecutor(len(walls)) as pool:
        answers = list(pool.map(lambda wall: cluster.ask(*wall)[0], walls))
    assert [answer for answer in answers if " " in answer] == []
    # From outside, nobody reaches a container's address, though the host would know the way.
    lab.run(cluster.client, "ip -6 route add fd00::/16 via 2001:db8::1")
    assert len(lab.peer(cluster.client, "ask", six("10.0.1.10"), 80, 1, "tcp", 0)[0].split()) == 1


def test_names_and_service_addresses(lab: Lab) -> None:
    cluster = Cluster(lab, 2)
    cluster.task("t1", 1, 10)
    cluster.task("t2", 2, 11)
    assert cluster.resolve("t1", "web", "AAAA")["records"] == [six(VIP)]
    spread = {answer.split()[0] for answer in cluster.ask("t1", six(VIP), count=30)}
    assert spread == {"t1", "t2"}
    # A restart of the daemon changes none of it.
    first = cluster.hosts[0]
    first.kill_plane()
    first.start_plane()
    first.call("join", "node1", first.address, 4789)
    assert cluster.ask("t1", six("10.0.1.11"))[0].startswith("t2 ")
    first.call("remove", "t1-box")
    first.call("leave")
    assert "fd00:0:0:1001" not in first.run("ip -6 route show table all")


def test_udp_flows_leave_a_task_that_is_gone(lab: Lab) -> None:
    """To its service's address, and through a published port of a host that has none of its tasks."""
    cluster = Cluster(lab, 2)
    six_underlay(cluster)
    published = ("2001:db8::2", PORT, 1, "udp", 6001)
    cluster.task("t1", 1, 10)
    cluster.task("asker", 1, 12, "flat")
    assert cluster.ask("asker", six(VIP), kind="udp", source_port=6000)[0].startswith("t1 ")
    assert lab.peer(cluster.client, "ask", *published)[0].split()[:2] == ["t1", OUTSIDE]
    cluster.task("t2", 2, 11)
    cluster.serving("t1", serving=False)
    assert cluster.ask("asker", six(VIP), kind="udp", source_port=6000)[0].startswith("t2 ")
    assert lab.peer(cluster.client, "ask", *published)[0].startswith("t2 ")
    # By TCP, too, the client's address is kept, whichever host it came through.
    for number in (1, 2):
        (answer,) = lab.peer(cluster.client, "ask", f"2001:db8::{number}", PORT, 1, "tcp", 0)
        assert answer.split()[:2] == ["t2", OUTSIDE]


def test_a_running_sandbox_gets_ipv6_and_loses_it(lab: Lab) -> None:
    """docker network connect and disconnect."""
    cluster = Cluster(lab, 2)
    cluster.task("t2", 2, 11, ingress=False)
    host = cluster.hosts[0]
    sandbox = host.create(SandboxSpec(id="c1", attachments=(Attachment("bridge"),)))
    cluster.netns["c1"] = (host, sandbox["netns"])
    host.call("attach", "c1", json.dumps({"network_id": APP, "address": "10.0.1.20/24"}))
    record = EndpointRecord(
        network_id=APP, task_id="c1", task_name="c1", service_id="", node_id="node1", address="10.0.1.20/24"
    )
    cluster.tell(DataplaneChanges(endpoints=(record,)))
    assert cluster.ask("c1", six("10.0.1.11"))[0].split()[:2] == ["t2", six("10.0.1.20")]
    host.call("detach", "c1", APP)
    assert "inet6 fd00" not in host.run("ip -6 addr", sandbox["netns"])
    assert six("10.0.1.20") not in host.run("ip -6 neigh")


def test_a_node_without_ipv6_says_so(lab: Lab) -> None:
    """Or whose data path carries too little: it refuses containers on such networks, but not on ingress."""
    cluster = Cluster(lab, 1)
    host = cluster.hosts[0]
    small = NetworkRecord(
        id=OTHER,
        name="small",
        driver="overlay",
        subnets=(Subnet(subnet="10.0.2.0/24", gateway="10.0.2.1"),),
        subnets6=(Subnet(subnet="fd00:0:0:1002::/64", gateway="fd00:0:0:1002::1"),),
        vni=4098,
        mtu=1200,
    )
    cluster.tell(DataplaneChanges(networks=(small,)))
    with pytest.raises(PlaneError, match=r"small has IPv6, which needs an MTU of 1280: .* it is 1200"):
        host.create(SandboxSpec(id="c1", attachments=(Attachment(OTHER, "10.0.2.5/24"),)))
    with pytest.raises(PlaneError, match="choose that with --ip, and leave --ip6 out"):
        host.create(
            SandboxSpec(id="c2", attachments=(Attachment(APP, "10.0.1.5/24", address6="fd00:0:0:1001::5"),))
        )
    sandbox = host.create(SandboxSpec(id="c3", attachments=(Attachment(INGRESS, "10.0.0.5/24"),)))
    assert sandbox["addresses6"] == {INGRESS: address6_for(INGRESS6, "10.0.0.5")}
