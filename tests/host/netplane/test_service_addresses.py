"""Service addresses from inside containers: led by nftables alone, and by eBPF at connect()."""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.dataplane import (
    DataplaneChanges,
    EndpointRecord,
    NetworkRecord,
    PeerRecord,
    ServiceRecord,
    address6_for,
)
from cluster.objects import Subnet
from netplane.bpf import kernel, programs
from netplane.bpf.connect import directory_of, missing
from netplane.model import Attachment, SandboxSpec
from tests.support.network_lab import Host, Lab

pytestmark = pytest.mark.host

NETWORK, SUBNET6 = "app-id", "fd00:0:0:7::/64"
VIP = "10.0.1.2"
# Serves TCP and UDP of both families; says its name, the client's address and port, then echoes.
SERVER = """
import socket, sys, threading
def tcp():
    while True:
        c, peer = s.accept(); threading.Thread(target=talk, args=(c, peer), daemon=True).start()
def talk(c, peer):
    c.sendall(f"{sys.argv[1]} {peer[0]}\\n".encode())
    while data := c.recv(100): c.sendall(data)
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("::", 80)); s.listen(512); threading.Thread(target=tcp, daemon=True).start()
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.bind(("::", 80)); print("ready", flush=True)
while True:
    data, peer = u.recvfrom(100); u.sendto(sys.argv[1].encode() + b" " + peer[0].encode(), peer)
"""
# Asks so many times; prints who answered, whom the client saw as its peer, or what went wrong, as JSON.
CLIENT = """
import json, socket, sys
address, kind, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
found = []
for _ in range(count):
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET,
                      socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    s.settimeout(3)
    try:
        s.connect((address, 80)); kind == "tcp" or s.send(b"?")
        found.append([s.recv(100).decode().split()[0], s.getpeername()[0]])
    except OSError as error:
        found.append([type(error).__name__, ""])
print(json.dumps(found))
"""
HOLDER = """
import socket, sys
s = socket.create_connection((sys.argv[1], 80), 3); f = s.makefile("rb")
print(f.readline().split()[0].decode(), flush=True)
for line in sys.stdin:
    s.sendall(line.encode()); print(f.readline().decode().strip(), s.getpeername()[0], flush=True)
"""


def six(address: str) -> str:
    return address6_for(SUBNET6, address).partition("/")[0]


class Shop:
    """One host, one network, one service."""

    def __init__(self, lab: Lab, cgroup: str) -> None:
        self.lab = lab
        self.cgroup = cgroup
        self.host: Host = lab.host("host1", "192.0.2.1", cgroup)
        self.netns: dict[str, str] = {}
        self.procs = ""
        if cgroup:
            containers = directory_of(cgroup) / "box"
            containers.mkdir(parents=True)
            self.procs = f"echo $$ > {containers}/cgroup.procs; "
        self.host.call("join", "node1", "192.0.2.1", 4789)
        self.records = DataplaneChanges(
            full=True,
            networks=(
                NetworkRecord(
                    id=NETWORK,
                    name="app",
                    driver="overlay",
                    subnets=(Subnet(subnet="10.0.1.0/24", gateway="10.0.1.1"),),
                    subnets6=(Subnet(subnet=SUBNET6, gateway=six("10.0.1.1")),),
                    vni=4097,
                ),
            ),
            peers=(PeerRecord(node_id="node1", address="192.0.2.1"),),
            services=(
                ServiceRecord(network_id=NETWORK, service_id="web", name="web", vip=f"{VIP}/24"),
                *(  # others, so that numbers and chains are many
                    ServiceRecord(
                        network_id=NETWORK, service_id=f"s{i}", name=f"s{i}", vip=f"10.0.1.{200 + i}/24"
                    )
                    for i in range(5)
                ),
            ),
        )
        self.host.apply(self.records)

    def box(self, name: str, number: int) -> None:
        """A sandbox on the network."""
        attachment = Attachment(NETWORK, f"10.0.1.{number}/24")
        made = self.host.create(SandboxSpec(id=f"{name}-box", attachments=(attachment,), task_id=name))
        self.netns[name] = made["netns"]

    def task(self, name: str, number: int) -> None:
        """A sandbox whose server serves."""
        self.box(name, number)
        server = self.start(name, "python3", "-c", SERVER, name)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        self.serving(name, number)

    def serving(self, name: str, number: int, *, serving: bool = True) -> None:
        self.host.apply(
            DataplaneChanges(
                endpoints=(
                    EndpointRecord(
                        network_id=NETWORK,
                        task_id=name,
                        task_name=name,
                        service_id="web",
                        node_id="node1",
                        address=f"10.0.1.{number}/24",
                        serving=serving,
                    ),
                )
            )
        )

    def start(self, name: str, *command: str) -> "subprocess.Popen[str]":
        """A program in a container: in its network and, if there is one, its cgroup."""
        inside = self.lab.inside(self.host.pid, command, self.netns[name])
        return self.lab.spawn(
            ["sh", "-c", f'{self.procs}exec "$@"', "sh", *inside],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, name: str, address: str = VIP, kind: str = "tcp", count: int = 1) -> list[list[str]]:
        client = self.start(name, "python3", "-c", CLIENT, address, kind, str(count))
        found: list[list[str]] = json.loads(client.communicate()[0])
        return found

    def translated(self, name: str) -> bool:
        """True if a rule of the sandbox led a connection that it has."""
        flows = self.host.run("conntrack -L 2>/dev/null; true", self.netns[name])
        return f"dst={VIP} " in flows


@pytest.fixture(scope="module", params=["nftables", "eBPF"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    cgroup = ""
    if request.param == "eBPF":
        if why := missing():
            pytest.skip(why)
        cgroup = f"/shoal-test-{os.getpid()}/containers"
    lab = Lab(tmp_path_factory.mktemp(request.param))
    try:
        made = Shop(lab, cgroup)
        made.task("t1", 11)
        made.box("client", 20)
        yield made
    finally:
        lab.close()
        if cgroup:
            _remove(directory_of(cgroup).parent)


def attached(directory: Path, hook: int) -> int:
    """How many programs a cgroup has."""
    found = kernel.attached(directory, hook)
    for descriptor in found.values():
        os.close(descriptor)
    return len(found)


def _remove(directory: Path) -> None:
    for inner in directory.iterdir() if directory.exists() else ():
        if inner.is_dir():
            _remove(inner)
    if directory.exists():
        directory.rmdir()


def test_each_way_leads_what_it_should(shop: Shop) -> None:
    holder = shop.start("client", "python3", "-c", HOLDER, VIP)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "t1\n"
    assert shop.translated("client") == (not shop.cgroup)
    times = (
        "cd /proc/sys/net/netfilter; cat nf_conntrack_tcp_timeout_established nf_conntrack_udp_timeout_stream"
    )
    silences = [int(each) for each in shop.host.run(times, shop.netns["client"]).split()]
    assert silences == [5 * 24 * 3600, 300]
    holder.kill()


def test_peers_read_the_services_address(shop: Shop) -> None:
    for address in (VIP, six(VIP)):
        for kind in ("tcp", "udp"):
            assert shop.ask("client", address, kind) == [["t1", address]], (address, kind)
    # A socket of IPv6 that speaks IPv4, as those of many languages do.
    assert shop.ask("client", f"::ffff:{VIP}") == [["t1", f"::ffff:{VIP}"]]
    # Others are as they were.
    assert shop.ask("client", "10.0.1.11") == [["t1", "10.0.1.11"]]


def test_to_oneself_through_the_services_address(shop: Shop) -> None:
    for address in (VIP, six(VIP)):
        assert shop.ask("t1", address) == [["t1", address]]
        assert shop.ask("t1", address, "udp") == [["t1", address]]


def test_pings_are_answered(shop: Shop) -> None:
    for command in (f"ping -c 1 -W 2 {VIP}", f"ping6 -c 1 -W 2 {six(VIP)}"):
        assert "1 packets received" in shop.host.run(f"busybox {command}", shop.netns["client"])


def test_every_backend_gets_its_share_also_of_clients_that_live_for_one_connection(shop: Shop) -> None:
    """And while the set changes: who begins to count anew would meet the first backend too often."""
    shop.task("t2", 12)
    shop.task("t3", 13)
    found: Counter[str] = Counter()
    for client in range(6):
        name = f"client{client}"
        shop.box(name, 30 + client)
        found.update(who for who, _ in shop.ask(name, count=1))
        # A change of another number of backends in between, and back.
        shop.serving("t0", 10)
        shop.serving("t0", 10, serving=False)
        found.update(who for who, _ in shop.ask(name, count=49))
        shop.host.call("remove", f"{name}-box")
    assert found.keys() == {"t1", "t2", "t3"}
    expected = found.total() / 3
    chi_square = sum((count - expected) ** 2 / expected for count in found.values())
    assert chi_square < 27.6, found  # one run of a million goes beyond that by chance


def test_connections_that_exist_stay_while_the_set_changes(shop: Shop) -> None:
    shop.serving("t2", 12, serving=False)
    shop.serving("t3", 13, serving=False)
    holder = shop.start("client", "python3", "-c", HOLDER, VIP)
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "t1\n"
    for name, number, serving in (("t2", 12, True), ("t1", 11, False), ("t2", 12, False)):
        shop.serving(name, number, serving=serving)
        print("again", file=holder.stdin, flush=True)
        assert holder.stdout.readline() == f"again {VIP}\n"
    for address in (VIP, six(VIP)):
        assert shop.ask("client", address) == [["ConnectionRefusedError", ""]]
        assert shop.ask("client", address, "udp") == [["PermissionError", ""]]
    shop.serving("t1", 11)
    holder.kill()


def test_a_restart_disturbs_nothing(shop: Shop) -> None:
    holder = shop.start("client", "python3", "-c", HOLDER, VIP)
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "t1\n"
    shop.host.kill_plane()
    assert shop.ask("client") == [["t1", VIP]]
    shop.host.start_plane()
    assert shop.ask("client") == [["t1", VIP]]
    shop.host.call("join", "node1", "192.0.2.1", 4789)
    assert shop.ask("client") == [["t1", VIP]]
    shop.host.apply(shop.records)
    assert shop.ask("client") == [["ConnectionRefusedError", ""]]  # nobody said that t1 serves
    shop.serving("t2", 12)
    assert shop.ask("client") == [["t2", VIP]]
    print("again", file=holder.stdin, flush=True)
    assert holder.stdout.readline() == f"again {VIP}\n"
    holder.kill()


def test_nothing_is_left_when_the_node_leaves(shop: Shop) -> None:
    shop.host.call("leave")
    if shop.cgroup:
        directory = directory_of(shop.cgroup)
        for hook in (programs.INET4_CONNECT, programs.INET6_GETPEERNAME):
            assert attached(directory, hook) == 0
        assert not (directory / "connect").exists()
    for name in shop.netns:
        shop.host.call("remove", f"{name}-box")
    assert shop.host.run("nft list map ip shoal ports 2>/dev/null | grep -c goto; true").strip() in ("", "0")


def test_what_a_killed_daemon_left_goes_with_the_next_that_is_in_no_cluster(lab: Lab) -> None:
    if why := missing():
        pytest.skip(why)
    cgroup = f"/shoal-test-killed-{os.getpid()}"
    directory = directory_of(cgroup)
    host = lab.host("host1", "192.0.2.1", cgroup)
    host.call("join", "node1", "192.0.2.1", 4789)
    host.kill_plane()
    assert attached(directory, programs.INET4_CONNECT) == 1
    host.start_plane()
    host.call("stop")
    assert not directory.exists()
