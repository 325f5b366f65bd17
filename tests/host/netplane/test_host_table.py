"""The host's rules on a real kernel: the mesh by IPv6, walls, guards, and rules that others take away."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from cluster.dataplane import DataplaneChanges, NetworkRecord, Protocol, PublishedPort
from cluster.objects import Subnet
from cluster.publish_at import Policy
from netplane.host_rules import LAYOUT
from tests.host.netplane.test_cluster import APP, INGRESS, PORT, VIP, Cluster
from tests.host.netplane.test_ipv6 import OUTSIDE, six_underlay
from tests.support.network_lab import REPOSITORY, Lab

pytestmark = pytest.mark.host

AGAIN = """
import socket
socks = []
for address in addresses:
    s = socket.socket(socket.AF_INET6); s.setsockopt(1, 2, 1); s.settimeout(3); s.bind((client, 5555))
    s.connect((address, 8080)); print(s.recv(99).decode().split()[:2]); socks.append(s)
for s in socks:
    s.send(b"again"); print(s.recv(99))
"""
SEND = """
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((device, 0))
for frame in frames:
    s.send(bytes.fromhex(frame))
"""
GREETED = """
import socket, time
found = b""
try:
    s = socket.create_connection((address, 8080), 3); s.settimeout(3); s.send(b"again")
    while b"again" not in found and (data := s.recv(999)):
        found += data
except OSError as error:
    print(error)
print(found)
"""
HOLD = """
import pathlib, socket
s = socket.create_connection(("192.0.2.1", 8080), 3); s.settimeout(5); s.recv(999)
pathlib.Path(stop + ".started").touch()
while not pathlib.Path(stop).exists():
    s.send(b"again")
    assert s.recv(999)
print("whole")
"""
VXLAN = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((source, 0))
s.sendto(bytes.fromhex("0800000000100100") + bytes(60), ("192.0.2.1", 4789))
"""
SAME = """
import itertools
from dataclasses import replace
from cluster.dataplane import Protocol
from netplane import host_rules, port_rules
from netplane.libnftables import LibNftables
from netplane.netlink import nft
from netplane.netlink.wire import NETFILTER, NetlinkSocket
rules, messages = LibNftables(), NetlinkSocket(NETFILTER)
def listed():
    return [rules.list(f"chain {family} shoal {chain}") for family in ("ip", "ip6") for chain in chains]
chains = [f"port_{protocol}_80" for protocol in Protocol]
def ports(count):
    backends = tuple(f"10.0.{i >> 8}.{i & 255}" for i in range(count))
    all = [port_rules.Published(each, 80, 8080, backends, (), "fd00::/64") for each in Protocol]
    return {(each.protocol, 80): each for each in all}
wanted = {}
for count in (0, 1, 700):
    rules.run(host_rules.frame() + port_rules.publish({}, ports(count)))
    wanted[count] = listed()
for before, after in itertools.permutations(wanted, 2):
    rules.run(host_rules.frame() + port_rules.publish({}, ports(before)))
    nft.commit(messages, port_rules.rebalance(ports(before), ports(after)))
    assert listed() == wanted[after], (before, after)
"""
THEIRS = "printf 'table inet theirs {\\nchain c {\\ntype filter hook input priority 5\\n}\\n}\\n' | nft -f -"
OTHER = NetworkRecord(
    id="other-id",
    name="other",
    driver="overlay",
    subnets=(Subnet(subnet="10.0.2.0/24", gateway="10.0.2.1"),),
    vni=4098,
)


def python(lab: Lab, pid: int, script: str, netns: str = "", **values: object) -> str:
    """What a script prints that runs in a namespace with these variables."""
    settings = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    path = lab.directory / "script.py"
    path.write_text(f"{settings}\n{script}")
    return lab.run(pid, f"PYTHONPATH={REPOSITORY} {sys.executable} {path}", netns=netns)


def servers(answers: list[str]) -> set[str]:
    return {answer.split()[0] for answer in answers}


def until(what: str, check: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_the_mesh_by_ipv6_keeps_the_clients_address(lab: Lab) -> None:
    cluster = Cluster(lab, 3)
    six_underlay(cluster)
    cluster.task("t2", 2, 11)
    cluster.task("t3", 2, 12)
    for number in (1, 2, 3):
        for kind in ("tcp", "udp"):
            answers = lab.peer(cluster.client, "ask", f"2001:db8::{number}", PORT, 4, kind, 0)
            assert servers(answers) == {"t2", "t3"}, (number, kind)
            assert {answer.split()[1] for answer in answers} == {OUTSIDE}, (number, kind)
    for host in cluster.hosts:  # from the nodes themselves
        for address in ("2001:db8::1", "2001:db8::3"):
            (answer,) = lab.peer(host.pid, "ask", address, PORT, 1, "tcp", 0)
            assert answer.startswith(("t2 ", "t3 ")), (host.name, address)
        # Refused at once, so that a client of "localhost" goes on to 127.0.0.1.
        assert lab.peer(host.pid, "ask", "::1", PORT, 1, "tcp", 0) == ["ConnectionRefusedError"]
    assert cluster.ask("t2", "2001:db8::1", PORT)[0].startswith(("t2 ", "t3 "))
    # One client port through three nodes to one task.
    cluster.serving("t3", serving=False)
    addresses = [f"2001:db8::{number}" for number in (1, 2, 3)]
    found = python(lab, cluster.client, AGAIN, addresses=addresses, client=OUTSIDE)
    assert (found.count(f"{OUTSIDE!r}"), found.count("again")) == (3, 3), found
    cluster.serving("t2", serving=False)
    assert lab.peer(cluster.client, "ask", "2001:db8::1", PORT, 1, "tcp", 0) == ["ConnectionRefusedError"]


def test_whom_a_node_leads_connections_to(lab: Lab) -> None:
    cluster = Cluster(lab, 2)
    cluster.task("t1", 1, 10)
    cluster.task("t2", 2, 11)
    (service,) = (each for each in cluster.base.services if each.network_id == INGRESS)

    def become(policy: Policy) -> None:
        port = PublishedPort(protocol=Protocol.TCP, published=PORT, target=80, policy=policy)
        cluster.tell(DataplaneChanges(services=(replace(service, ports=(port,)),)))

    become(Policy.LOCAL_FIRST)
    assert [servers(cluster.through(host, 6)) for host in (1, 2)] == [{"t1"}, {"t2"}]
    cluster.serving("t2", serving=False)
    assert [servers(cluster.through(host, 6)) for host in (1, 2)] == [{"t1"}, {"t1"}]
    become(Policy.LOCAL)
    assert [servers(cluster.through(host, 2)) for host in (1, 2)] == [{"t1"}, {"ConnectionRefusedError"}]
    cluster.serving("t2", serving=True)
    assert [servers(cluster.through(host, 6)) for host in (1, 2)] == [{"t1"}, {"t2"}]
    become(Policy.ANY)
    assert servers(cluster.through(1, 6)) == {"t1", "t2"}


def test_rules_that_others_take_away_are_put_back(lab: Lab) -> None:
    cluster = Cluster(lab, 2)
    netns = cluster.task("t1", 1, 10)
    host = cluster.hosts[0]
    host.run(THEIRS)
    rules = host.run("nft -s list ruleset")
    for harm in (
        "flush ruleset",
        "delete table ip shoal",
        "delete table ip6 shoal",
        "flush chain ip shoal published",
        "flush set ip shoal bridges",
    ):
        host.run(f"nft '{harm}'")
        if harm == "flush ruleset":  # theirs is theirs to put back
            host.run(THEIRS)
        until(harm, lambda: _sorted(host.run("nft -s list ruleset")) == _sorted(rules))
        assert servers(cluster.through(1, 1)) == {"t1"}
    host.run("nft flush ruleset", netns)
    until("the sandbox's", lambda: servers(cluster.ask("t1", VIP)) == servers(cluster.through(2)) == {"t1"})


def _sorted(ruleset: str) -> list[str]:
    """The words in an order that does not depend on that of tables and of elements in sets."""
    return sorted(ruleset.replace(",", " ").split())


def test_an_older_layout_is_replaced_and_ports_stay_open(lab: Lab) -> None:
    """A newer daemon starts while no manager tells it anything."""
    cluster = Cluster(lab, 2)
    cluster.task("t1", 1, 10)
    held = lab.directory / "held"
    hold = lab.begin(cluster.client, "hold", "192.0.2.1", PORT, held)
    until("held", (lab.directory / "held.started").exists)
    host = cluster.hosts[0]
    host.kill_plane()
    host.run(
        f"nft delete chain ip shoal {LAYOUT} && nft add chain ip shoal layout_1 && nft delete table ip6 shoal"
    )
    host.start_plane()
    table = host.run("nft list table ip shoal")
    assert LAYOUT in table
    assert "layout_1" not in table
    assert servers(cluster.through(1, 3)) == {"t1"}
    host.call("join", "node1", host.address, 4789)
    cluster.tell(cluster.base)
    assert cluster.through(1) == ["ConnectionRefusedError"]  # the records have no task
    held.touch()
    assert '"broken": false' in hold.communicate()[0]


def test_messages_write_what_the_text_would(lab: Lab) -> None:
    """In both families, with many backends, one and none."""
    python(lab, lab.namespace(), SAME)


def test_walls_and_guards(lab: Lab) -> None:
    cluster = Cluster(lab, 2)
    netns = cluster.task("t1", 1, 10)
    cluster.task("t2", 2, 11)
    host = cluster.hosts[0]
    for port in (2377, 9000):
        for each in cluster.hosts:
            lab.serve(each.pid, each.name, port=port)
    # The host's services can be reached, its control port can't, here and on another node.
    assert cluster.ask("t1", "192.0.2.1", 9000)[0].startswith("host1 ")
    for address in ("192.0.2.1", "10.0.1.1", "192.0.2.2"):
        assert cluster.ask("t1", address, 2377) == ["ConnectionRefusedError"], address
    assert lab.peer(cluster.client, "ask", "192.0.2.1", 2377, 1, "tcp", 0)[0].startswith("host1 ")
    # Another network's bridge is no way to the host; the default bridge is, by custom.
    assert cluster.ask("t1", "10.0.0.101", 9000)[0].startswith("host1 ")
    cluster.tell(DataplaneChanges(networks=(OTHER,)))
    assert cluster.ask("t1", "10.0.2.1", 9000) == ["TimeoutError"]
    assert cluster.ask("t1", "172.17.0.1", 9000)[0].startswith("host1 ")
    counts = host.call("drops")[0]
    assert counts[APP]["to_host"] + counts[INGRESS]["to_host"] >= 4
    # What is not the task's own address, MAC or network does not leave it.
    own, peer = "02420a00010a", "02420a00010b"
    datagram = "4500001400000000401100000a0001{:02x}0a00010b"
    frames = [
        f"{peer}{own}0800{datagram.format(99)}",  # another's address
        f"{peer}02420a0001630800{datagram.format(10)}",  # another's MAC
        f"{'f' * 12}{own}08060001080006040002{own}0a000101{peer}0a00010b",  # the gateway's address is here
        f"{peer}{own}86dd6000000000001140{'20010db8' + '0' * 24}{'20010db8' + '0' * 24}",
    ]
    device = host.run("ip -o -4 addr | grep 10.0.1.10 | cut -d' ' -f2", netns).split()[0].partition("@")[0]
    python(lab, host.pid, SEND, netns=netns, frames=frames, device=device)
    assert host.call("drops")[0][APP]["spoofed"] == counts[APP]["spoofed"] + len(frames)
    assert cluster.ask("t1", "10.0.1.11")[0].startswith("t2 ")


def test_frames_of_cluster_networks_come_from_nodes_only(lab: Lab) -> None:
    """A frame for a network of this node: from a stranger, from a node, and from elsewhere in its name."""
    cluster = Cluster(lab, 2)
    cluster.task("t1", 1, 10)
    host = cluster.hosts[0]
    before = host.call("drops")[1]
    python(lab, cluster.client, VXLAN, source="192.0.2.99")
    until("dropped", lambda: bool(host.call("drops")[1] == before + 1))
    python(lab, cluster.hosts[1].pid, VXLAN, source="192.0.2.2")
    other = lab.namespace()
    host.run(
        f"ip link add wrong type veth peer name eth0 netns {other} && ip link set wrong up && "
        "ip addr add 198.51.100.1/24 dev wrong && echo 0 > /proc/sys/net/ipv4/conf/wrong/rp_filter"
    )
    lab.run(
        other,
        "ip addr add 192.0.2.2/32 dev eth0 && ip link set eth0 up && ip route add 198.51.100.1 dev eth0 && "
        "ip route add 192.0.2.1 via 198.51.100.1 dev eth0",
    )
    python(lab, other, VXLAN, source="192.0.2.2")
    until("dropped", lambda: bool(host.call("drops")[1] == before + 2))
    host.call("leave")
    assert "4789" not in host.run("nft list set ip shoal tunnel_ports")


@pytest.fixture
def proxied(lab: Lab) -> Iterator[Lab]:
    """A lab whose processes for the PROXY protocol, which no daemon ends with itself, end with the test."""
    yield lab
    for pid in running(str(lab.directory)):
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def running(words: str) -> list[str]:
    """The processes for the PROXY protocol with these words in their command line."""
    command = ["pgrep", "-f", f"netplane.proxy_protocol {words}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()


def test_the_proxy_protocol(proxied: Lab) -> None:
    """A task is told who its client is; a restart of the daemon breaks no connection; nothing is left."""
    lab = proxied
    cluster = Cluster(lab, 2)
    six_underlay(cluster)
    cluster.task("t2", 2, 11)
    (service,) = (each for each in cluster.base.services if each.network_id == INGRESS)

    def become(proxy: str) -> None:
        port = PublishedPort(protocol=Protocol.TCP, published=PORT, target=80, proxy=proxy)
        cluster.tell(DataplaneChanges(services=(replace(service, ports=(port,)),)))

    def said(address: str) -> str:
        return python(lab, cluster.client, GREETED, address=address)

    def proxies() -> list[str]:
        return running(str(cluster.hosts[0].directory))

    become("v1")
    for address, client in (
        ("192.0.2.1", "192.0.2.99"),
        ("192.0.2.2", "192.0.2.99"),
        ("2001:db8::1", OUTSIDE),
    ):
        found = said(address)
        assert f"PROXY TCP{6 if ':' in address else 4} {client} {address} " in found, found
        assert f" {PORT}\\r\\nagain" in found, found
    (pid,) = proxies()
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    rights = dict(line.split(":\t", 1) for line in status if line.startswith(("Cap", "NoNew", "Uid", "Gid")))
    nobody, nothing, marks = "\t".join(["65534"] * 4), f"{0:016x}", f"{1 << 12:016x}"
    assert rights == {
        "Uid": nobody, "Gid": nobody, "NoNewPrivs": "1", "CapEff": marks, "CapPrm": marks,
        "CapInh": nothing, "CapBnd": nothing, "CapAmb": nothing,
    }  # fmt: skip
    first = cluster.hosts[0]
    held = lab.directory / "held"
    path = lab.directory / "hold.py"
    path.write_text(f"stop = {str(held)!r}\n{HOLD}")
    hold = lab.spawn(lab.inside(cluster.client, [sys.executable, str(path)]), stdout=subprocess.PIPE)
    until("held", (lab.directory / "held.started").exists)
    first.kill_plane()
    first.start_plane()
    first.call("join", "node1", first.address, 4789)
    port = PublishedPort(protocol=Protocol.TCP, published=PORT, target=80, proxy="v2")
    others = [each for each in cluster.base.services if each is not service]
    services = (*others, replace(service, ports=(port,)))
    everything = replace(cluster.base, services=services, endpoints=tuple(cluster.endpoints.values()))
    cluster.tell(everything)
    assert proxies() == [pid]
    assert "QUIT" in said("192.0.2.1")
    held.touch()
    assert hold.communicate()[0] == b"whole\n"
    first.run(f"kill -9 {pid}")
    until("another", lambda: proxies() not in ([], [pid]) and "QUIT" in said("192.0.2.1"))
    become("")
    until("the processes are gone", lambda: running(str(lab.directory)) == [])
    assert "PROXY" not in said("192.0.2.1")
