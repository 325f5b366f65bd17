"""Overlays, service addresses, the routing mesh and names across hosts on a real kernel."""

import ipaddress
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from cluster.dataplane import (
    DataplaneChanges,
    EndpointRecord,
    NetworkRecord,
    PeerRecord,
    Protocol,
    PublishedPort,
    ServiceRecord,
    address6_for,
)
from cluster.objects import Subnet
from netplane.model import Attachment, SandboxSpec
from tests.support.network_lab import Host, Lab, PlaneError, await_file

pytestmark = pytest.mark.host

INGRESS, APP = "ingress-id", "app-id"
INGRESS6, APP6 = "fd00:0:0:1000::/64", "fd00:0:0:1001::/64"
VIP = "10.0.1.2"
PORT = 8080


def six(address: str) -> str:
    """The IPv6 address that goes with one in the network APP."""
    return address6_for(APP6, address).partition("/")[0]


class Cluster:
    """Hosts that are told what managers would tell them."""

    def __init__(self, lab: Lab, hosts: int) -> None:
        self.lab = lab
        self.client = lab.namespace()
        lab.plug(self.client, "192.0.2.99/24")
        self.hosts = [lab.host(f"host{i}", f"192.0.2.{i}") for i in range(1, hosts + 1)]
        self.endpoints: dict[str, EndpointRecord] = {}
        self.netns: dict[str, tuple[Host, str]] = {}
        for i, host in enumerate(self.hosts, 1):
            host.call("join", f"node{i}", host.address, 4789)
        self.base = DataplaneChanges(
            full=True,
            networks=(
                NetworkRecord(
                    id=INGRESS,
                    name="ingress",
                    driver="overlay",
                    subnets=(Subnet(subnet="10.0.0.0/24", gateway="10.0.0.1"),),
                    subnets6=(Subnet(subnet=INGRESS6, gateway="fd00:0:0:1000::1"),),
                    vni=4096,
                    ingress=True,
                ),
                NetworkRecord(
                    id=APP,
                    name="app",
                    driver="overlay",
                    subnets=(Subnet(subnet="10.0.1.0/24", gateway="10.0.1.1"),),
                    subnets6=(Subnet(subnet=APP6, gateway="fd00:0:0:1001::1"),),
                    vni=4097,
                ),
            ),
            peers=tuple(
                PeerRecord(
                    node_id=f"node{i}", address=host.address, addresses={INGRESS: f"10.0.0.{100 + i}/24"}
                )
                for i, host in enumerate(self.hosts, 1)
            ),
            services=(
                ServiceRecord(
                    network_id=INGRESS,
                    service_id="web",
                    name="web",
                    vip="10.0.0.2/24",
                    ports=(
                        PublishedPort(protocol=Protocol.TCP, published=PORT, target=80),
                        PublishedPort(protocol=Protocol.UDP, published=PORT, target=80),
                    ),
                ),
                ServiceRecord(
                    network_id=APP, service_id="web", name="web", aliases=("www",), vip=f"{VIP}/24"
                ),
                ServiceRecord(network_id=APP, service_id="flat", name="flat"),
            ),
        )
        self.tell(self.base)

    def tell(self, changes: DataplaneChanges) -> None:
        for host in self.hosts:
            host.apply(changes)

    def task(self, name: str, host: int, number: int, service: str = "web", *, ingress: bool = True) -> str:
        """Create a task's sandbox with a server in it, and tell every host of it; its namespace's path."""
        place = self.hosts[host - 1]
        networks = [APP, *([INGRESS] if ingress else [])]
        addresses = {APP: f"10.0.1.{number}/24", INGRESS: f"10.0.0.{number}/24"}
        sandbox = place.create(
            SandboxSpec(
                id=f"{name}-box",
                hostname=name,
                attachments=tuple(Attachment(each, addresses[each]) for each in networks),
                task_id=name,
                service_id=service,
            )
        )
        self.lab.serve(place.pid, name, sandbox["netns"])
        records = tuple(
            EndpointRecord(
                network_id=each,
                task_id=name,
                task_name=f"{service}.1.{name}",
                service_id=service,
                node_id=f"node{host}",
                address=addresses[each],
            )
            for each in networks
        )
        self.tell(DataplaneChanges(endpoints=records))
        for record in records:
            self.endpoints[f"{name}/{record.network_id}"] = record
        self.netns[name] = (place, sandbox["netns"])
        path: str = sandbox["netns"]
        return path

    def serving(self, name: str, *, serving: bool) -> None:
        records = tuple(
            replace(record, serving=serving)
            for key, record in self.endpoints.items()
            if key.startswith(f"{name}/")
        )
        self.tell(DataplaneChanges(endpoints=records))

    def ask(
        self,
        name: str,
        address: str,
        port: int = 80,
        count: int = 1,
        kind: str = "tcp",
        source_port: int = 0,
    ) -> list[str]:
        host, netns = self.netns[name]
        answers: list[str] = self.lab.peer(
            host.pid, "ask", address, port, count, kind, source_port, netns=netns
        )
        return answers

    def resolve(self, name: str, query: str, kind: str = "A", over: str = "udp") -> dict[str, object]:
        host, netns = self.netns[name]
        answer: dict[str, object] = self.lab.peer(host.pid, "resolve", query, kind, over, netns=netns)
        return answer

    def through(self, host: int, count: int = 1, kind: str = "tcp", source_port: int = 0) -> list[str]:
        answers: list[str] = self.lab.peer(
            self.client, "ask", f"192.0.2.{host}", PORT, count, kind, source_port
        )
        return answers


def test_overlay_across_hosts_and_out(lab: Lab) -> None:
    cluster = Cluster(lab, 2)
    lab.serve(cluster.client, "outside")
    cluster.task("t1", 1, 10, ingress=False)
    cluster.task("t2", 2, 11, ingress=False)
    assert cluster.ask("t1", "10.0.1.11")[0].split()[:2] == ["t2", "10.0.1.10"]
    assert cluster.ask("t2", "10.0.1.10", kind="udp")[0].split()[:2] == ["t1", "10.0.1.11"]
    # Out through the task's own host, with that host's address.
    assert cluster.ask("t2", "192.0.2.99")[0].split()[:2] == ["outside", "192.0.2.2"]


def test_service_address_spreads_and_follows(lab: Lab) -> None:
    cluster = Cluster(lab, 2)
    cluster.task("t1", 1, 10)
    cluster.task("t2", 2, 11)
    cluster.task("t3", 2, 12)
    spread = Counter(answer.split()[0] for answer in cluster.ask("t1", VIP, count=60))
    assert set(spread) == {"t1", "t2", "t3"}
    cluster.serving("t2", serving=False)
    assert {answer.split()[0] for answer in cluster.ask("t1", VIP, count=20)} == {"t1", "t3"}
    assert cluster.ask("t1", "10.0.1.11")[0].startswith("t2 ")
    cluster.serving("t1", serving=False)
    cluster.serving("t3", serving=False)
    assert cluster.ask("t1", VIP) == ["ConnectionRefusedError"]
    assert cluster.ask("t1", VIP, kind="udp") == ["PermissionError"]  # at once, as sent from this very host
    host, netns = cluster.netns["t1"]
    cluster.serving("t2", serving=True)
    assert "1 packets received" in host.run(f"busybox ping -c 1 -W 2 {VIP}", netns)


def test_an_address_that_moves_to_another_node_is_reached_at_once(lab: Lab) -> None:
    """The new node's bridge has learnt the address's MAC behind the tunnel while it was the other node's."""
    cluster = Cluster(lab, 2)
    cluster.task("old", 1, 10)
    assert cluster.through(2)[0].startswith("old ")
    cluster.netns["old"][0].call("remove", "old-box")
    gone = tuple((record.network_id, "old") for record in cluster.endpoints.values())
    cluster.tell(DataplaneChanges(removed_endpoints=gone))
    cluster.endpoints.clear()
    cluster.task("new", 2, 10)
    assert cluster.through(2)[0].startswith("new ")
    assert cluster.through(1)[0].startswith("new ")


def test_swaps_under_load_fail_no_connection(lab: Lab) -> None:
    cluster = Cluster(lab, 2)
    cluster.task("t1", 1, 10)
    cluster.task("t2", 2, 11)
    cluster.task("t3", 2, 12)
    host, netns = cluster.netns["t1"]
    stop, held = lab.directory / "stop", lab.directory / "held"
    loads = [
        lab.begin(host.pid, "load", VIP, 80, stop, netns=netns),
        lab.begin(cluster.client, "load", "192.0.2.1", PORT, stop),
    ]
    hold = lab.begin(cluster.client, "hold", "192.0.2.1", PORT, held)
    await_file(lab.directory / "stop.started")
    await_file(lab.directory / "held.started")
    for _ in range(15):
        for name in ("t1", "t2", "t3"):
            cluster.serving(name, serving=False)
            cluster.serving(name, serving=True)
    held.touch()
    stop.touch()
    for load in loads:
        result = json.loads(load.communicate()[0])
        assert result["bad"] == []
        assert set(result["servers"]) == {"t1", "t2", "t3"}
    assert json.loads(hold.communicate()[0])["broken"] is False


def test_mesh_on_every_node_keeps_the_clients_address(lab: Lab) -> None:
    cluster = Cluster(lab, 3)
    cluster.task("t2", 2, 11)
    cluster.task("t3", 2, 12)
    for host in (1, 2, 3):
        for kind in ("tcp", "udp"):
            answers = cluster.through(host, 4, kind)
            assert {answer.split()[0] for answer in answers} == {"t2", "t3"}, (host, kind)
            assert {answer.split()[1] for answer in answers} == {"192.0.2.99"}, (host, kind)
    # From the nodes themselves, with a task and without one; and from a task on the network.
    for host in cluster.hosts:
        for address in ("127.0.0.1", host.address, "192.0.2.1"):
            for kind in ("tcp", "udp"):
                (answer,) = lab.peer(host.pid, "ask", address, PORT, 1, kind, 0)
                assert answer.startswith(("t2 ", "t3 ")), (host.name, address, kind)
    assert cluster.ask("t2", "192.0.2.1", PORT)[0].startswith(("t2 ", "t3 "))
    assert cluster.ask("t2", "192.0.2.2", PORT)[0].startswith(("t2 ", "t3 "))
    for task in ("t2", "t3"):
        cluster.serving(task, serving=False)
    assert cluster.through(1) == ["ConnectionRefusedError"]
    assert cluster.through(2, kind="udp") == ["ConnectionRefusedError"]


def test_one_client_port_through_two_nodes(lab: Lab) -> None:
    cluster = Cluster(lab, 3)
    cluster.task("t1", 1, 10)
    script = """
import socket
socks = []
for host in (1, 2, 3):
    s = socket.socket(); s.setsockopt(1, 2, 1); s.settimeout(3); s.bind(("192.0.2.99", 5555))
    s.connect((f"192.0.2.{host}", 8080)); print(s.recv(99).split()[0].decode()); socks.append(s)
for s in socks:
    s.send(b"again"); print(s.recv(99).decode())
"""
    assert lab.run(cluster.client, f"python3 -c '{script}'").split() == ["t1"] * 3 + ["again"] * 3


def test_task_on_ingress_gets_out(lab: Lab) -> None:
    cluster = Cluster(lab, 2)
    lab.serve(cluster.client, "outside")
    cluster.task("t2", 2, 11)
    for kind in ("tcp", "udp"):
        assert cluster.ask("t2", "192.0.2.99", kind=kind)[0].split()[:2] == ["outside", "192.0.2.2"]


def test_withdraw_is_at_once_and_local(lab: Lab) -> None:
    cluster = Cluster(lab, 2)
    cluster.task("t1", 1, 10)
    cluster.task("t2", 2, 11)
    first = cluster.hosts[0]
    first.call("withdraw", "t1-box")
    assert {answer.split()[0] for answer in cluster.through(1, 6)} == {"t2"}
    assert {answer.split()[0] for answer in cluster.ask("t1", VIP, count=20)} == {"t2"}
    assert cluster.resolve("t1", "tasks.web")["records"] == ["10.0.1.11"]
    assert {answer.split()[0] for answer in cluster.through(2, 6)} == {"t1", "t2"}
    first.call("restore", "t1-box")
    assert {answer.split()[0] for answer in cluster.through(1, 6)} == {"t1", "t2"}


def test_connections_that_a_vanished_task_never_answered_choose_again(lab: Lab) -> None:
    """The client's second attempt, a second after its first, reaches a task that is there."""
    cluster = Cluster(lab, 2)
    netns = cluster.task("t1", 1, 10)
    cluster.hosts[0].run("for i in eth0 eth1; do ip link set $i down; done", netns)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(cluster.through, 2)
        waiting = f"conntrack -L -p tcp --dport {PORT} 2>/dev/null"
        while "UNREPLIED" not in cluster.hosts[1].run(waiting):
            assert not answer.done(), answer.result()
        cluster.task("t2", 2, 11)
        cluster.serving("t1", serving=False)
        assert answer.result()[0].startswith("t2 ")


def test_a_task_that_just_began_to_serve_is_spared_while_others_serve(lab: Lab) -> None:
    cluster = Cluster(lab, 2)
    second = cluster.hosts[1]
    cluster.task("t1", 1, 10)
    second.call("spare", 3)
    cluster.task("t2", 2, 11)
    assert {answer.split()[0] for answer in cluster.through(2, 6)} == {"t1"}
    assert {answer.split()[0] for answer in cluster.through(1, 6)} == {"t1", "t2"}
    while {answer.split()[0] for answer in cluster.through(2, 6)} != {"t1", "t2"}:
        pass


def test_udp_flows_leave_a_withdrawn_task(lab: Lab) -> None:
    cluster = Cluster(lab, 2)
    cluster.task("t1", 1, 10)
    (before,) = cluster.through(2, kind="udp", source_port=6000)
    assert before.startswith("t1 ")
    cluster.task("t2", 2, 11)
    cluster.serving("t1", serving=False)
    (after,) = cluster.through(2, kind="udp", source_port=6000)
    assert after.startswith("t2 ")
    # The same from a sandbox to the service's address.
    cluster.task("t3", 1, 12, "flat")
    (before,) = cluster.ask("t3", VIP, kind="udp", source_port=6001)
    assert before.startswith("t2 ")
    cluster.serving("t1", serving=True)
    cluster.serving("t2", serving=False)
    (after,) = cluster.ask("t3", VIP, kind="udp", source_port=6001)
    assert after.startswith("t1 ")


def test_names(lab: Lab) -> None:
    cluster = Cluster(lab, 2)
    cluster.task("t1", 1, 10)
    cluster.task("t2", 2, 11)
    cluster.task("t3", 2, 12, "flat", ingress=False)
    cluster.task("t4", 1, 13, "flat", ingress=False)
    assert cluster.resolve("t1", "web")["records"] == [VIP]
    assert cluster.resolve("t1", "WWW.app.")["records"] == [VIP]
    assert cluster.resolve("t1", "tasks.web", over="tcp")["records"] == ["10.0.1.10", "10.0.1.11"]
    assert cluster.resolve("t1", "flat")["records"] == ["10.0.1.12", "10.0.1.13"]
    assert cluster.resolve("t1", "web.1.t2")["records"] == ["10.0.1.11"]
    assert cluster.resolve("t4", "t1")["records"] == ["10.0.1.10"]
    assert cluster.resolve("t1", "web", "AAAA")["records"] == [six(VIP)]
    assert cluster.resolve("t1", "tasks.web", "AAAA")["records"] == [six("10.0.1.10"), six("10.0.1.11")]
    assert cluster.resolve("t1", "web.1.t2", "AAAA")["records"] == [six("10.0.1.11")]
    pointer = ipaddress.IPv6Address(six("10.0.1.11")).reverse_pointer
    assert cluster.resolve("t1", pointer, "PTR")["records"] == ["web.1.t2.app."]
    assert cluster.resolve("t1", "11.1.0.10.in-addr.arpa", "PTR")["records"] == ["web.1.t2.app."]
    cluster.serving("t3", serving=False)
    assert cluster.resolve("t1", "flat")["records"] == ["10.0.1.13"]


def test_restart_keeps_the_mesh_and_the_names(lab: Lab) -> None:
    cluster = Cluster(lab, 2)
    cluster.task("t1", 1, 10)
    cluster.task("t2", 2, 11)
    first = cluster.hosts[0]
    stop, held = lab.directory / "stop", lab.directory / "held"
    loads = [
        lab.begin(cluster.client, "load", "192.0.2.1", PORT, stop),
        lab.begin(first.pid, "load", VIP, 80, stop, netns=cluster.netns["t1"][1]),
    ]
    hold = lab.begin(cluster.client, "hold", "192.0.2.1", PORT, held)
    await_file(lab.directory / "stop.started")
    await_file(lab.directory / "held.started")
    first.kill_plane()
    first.start_plane()
    first.call("join", "node1", first.address, 4789)
    first.apply(replace(cluster.base, endpoints=tuple(cluster.endpoints.values())))
    assert cluster.resolve("t1", "web")["records"] == [VIP]
    held.touch()
    stop.touch()
    for load in loads:
        assert json.loads(load.communicate()[0])["bad"] == []
    assert json.loads(hold.communicate()[0])["broken"] is False


def test_leave_takes_overlays_away(lab: Lab) -> None:
    cluster = Cluster(lab, 1)
    host = cluster.hosts[0]
    cluster.task("t1", 1, 10)
    with pytest.raises(PlaneError, match="has not reached"):
        host.create(SandboxSpec(id="x", attachments=(Attachment("unknown", "10.0.9.9/24"),)))
    host.call("remove", "t1-box")
    host.call("leave")
    assert not any(name.startswith(("sho", "shx", "shv")) and name != "shoal0" for name in host.links())
    with pytest.raises(PlaneError, match="no cluster"):
        host.apply(cluster.base)


def test_power_loss_is_noticed(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    host.create(SandboxSpec(id="c1", attachments=(Attachment("bridge"),)))
    networks = set(host.call("networks"))
    again = Host(lab, "host1", "192.0.2.2")  # the same directories, none of the kernel's state
    again.start_plane()
    assert again.call("sandboxes") == {}
    assert set(again.call("networks")) == networks
    assert not list((again.directory / "run/netns").iterdir())
    assert again.create(SandboxSpec(id="c1", attachments=(Attachment("bridge"),)))["netns"]


def test_an_overlay_leaves_the_hosts_own_links_alone(lab: Lab) -> None:
    """One that would take a link's subnet, or carry more than the underlay does, is not made there."""
    cluster = Cluster(lab, 1)
    host = cluster.hosts[0]
    host.run("ip link add spare type bridge && ip addr add 10.0.9.1/24 dev spare && ip link set spare up")
    fit = next(network for network in cluster.base.networks if network.id == APP)
    plain = host.create(SandboxSpec(id="plain", attachments=(Attachment("bridge"),)))
    (gateway,) = plain["gateways"].values()
    local = str(ipaddress.ip_network(f"{gateway}/24", strict=False))
    unfit = {
        "underlay": replace(fit, subnets=(Subnet(subnet="192.0.2.0/25", gateway="192.0.2.1"),)),
        "local": replace(fit, subnets=(Subnet(subnet=local, gateway=gateway),)),
        "spare": replace(fit, subnets=(Subnet(subnet="10.0.9.0/25", gateway="10.0.9.3"),)),
        "large": replace(fit, subnets=(Subnet(subnet="10.0.8.0/24", gateway="10.0.8.1"),), mtu=1451),
    }
    networks = tuple(
        replace(network, id=name, name=name, vni=5000 + number, subnets6=())
        for number, (name, network) in enumerate(unfit.items())
    )
    cluster.tell(DataplaneChanges(networks=networks))

    def create(name: str) -> None:
        address = unfit[name].subnets[0].subnet.partition("/")[0].removesuffix(".0") + ".20/24"
        host.create(SandboxSpec(id=f"{name}-box", attachments=(Attachment(name, address),)))

    for name, reason in (
        ("underlay", r"overlaps 192\.0\.2\.0/24, which the node has on its link eth0; .* another --subnet"),
        ("local", "overlaps 172.*, which the node has on its link"),
        ("spare", "on its link spare"),
        ("large", "1450 at most"),
    ):
        with pytest.raises(PlaneError, match=reason):
            create(name)
    assert host.run("ip -o -4 addr").count("192.0.2.") == 1
    host.run("ip link del spare")
    create("spare")  # it is looked at again
    host.kill_plane()
    host.start_plane()
    host.call("join", "node1", host.address, 4789)
    host.apply(replace(cluster.base, networks=(*cluster.base.networks, *networks)))
    assert "10.0.9.3/25" in host.run("ip -o -4 addr")
    host.call("remove", "spare-box")
