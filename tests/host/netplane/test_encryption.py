"""Encrypted networks on a real kernel: what is seen on the underlay, rotation, and what is never plain.

The tests go through one cluster's life, in their order.
"""

import json
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.dataplane import DataplaneChanges, EndpointRecord, NetworkRecord, PeerRecord
from cluster.encryption import tunnel_address, tunnel_port
from cluster.objects import NodeEncryption, Subnet
from netplane import wireguard
from netplane.model import Attachment, SandboxSpec
from tests.support.network_lab import Host, Lab

pytestmark = pytest.mark.host

SECRET, PLAIN = "secret-id", "plain-id"
VNIS = {SECRET: 4098, PLAIN: 4099}
NETS = {SECRET: "10.0.8", PLAIN: "10.0.9"}
MARK = "a-payload-that-nobody-may-read"

Json = dict[str, object]


class Cluster:
    """Three hosts, each with a task in an encrypted and in a plain network; and what managers would tell."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.hosts = [lab.host(f"host{i}", f"192.0.2.{i}") for i in (1, 2, 3)]
        self.netns: list[str] = []
        self.keys: dict[str, dict[int, str]] = {}
        self.epochs: tuple[int, ...] = (1,)
        for i, host in enumerate(self.hosts, 1):
            # Control sockets are files: other runs of this test may have devices of these names.
            host.run("mkdir -p /run/wireguard && mount -t tmpfs tmpfs /run/wireguard")
            host.call("join", f"node{i}", host.address, 4789)
        self.tell()
        for i, host in enumerate(self.hosts, 1):
            sandbox = host.create(
                SandboxSpec(
                    id=f"box{i}",
                    hostname=f"box{i}",
                    attachments=tuple(Attachment(each, f"{NETS[each]}.1{i}/24") for each in (SECRET, PLAIN)),
                    task_id=f"task{i}",
                    service_id="web",
                )
            )
            self.netns.append(sandbox["netns"])

    def said(self, host: Host) -> NodeEncryption:
        found = host.call("encryption")
        return NodeEncryption(
            method=found.get("method", ""),
            trouble=found.get("trouble", ""),
            keys={int(epoch): key for epoch, key in found.get("keys", {}).items()},
            behind=tuple(found.get("behind", ())),
        )

    def tell(self) -> None:
        """Networks and places, then the keys that the hosts made because of that.

        An agent that starts applies what it knew before anyone hears of it: so long, its keys are the same.
        """
        for _ in range(2):
            for host in self.hosts:
                self.keys[host.name] = self.said(host).keys or self.keys.get(host.name, {})
            changes = DataplaneChanges(
                full=True,
                networks=tuple(
                    NetworkRecord(
                        id=id,
                        name=id,
                        driver="overlay",
                        subnets=(Subnet(subnet=f"{NETS[id]}.0/24", gateway=f"{NETS[id]}.1"),),
                        vni=VNIS[id],
                        options={"encrypted": ""} if id == SECRET else {},
                        key_epochs=self.epochs if id == SECRET else (),
                    )
                    for id in NETS
                ),
                peers=tuple(
                    PeerRecord(node_id=f"node{i}", address=host.address, keys=self.keys[host.name])
                    for i, host in enumerate(self.hosts, 1)
                ),
                endpoints=tuple(
                    EndpointRecord(
                        network_id=id,
                        task_id=f"task{i}",
                        task_name=f"web.{i}",
                        service_id="web",
                        node_id=f"node{i}",
                        address=f"{NETS[id]}.1{i}/24",
                    )
                    for id in NETS
                    for i in (1, 2, 3)
                ),
            )
            for host in self.hosts:
                host.apply(changes)

    def ping(
        self, source: int, target: int, network: str = SECRET, options: str = "-c 3 -i 0.05 -W 2"
    ) -> str:
        return self.hosts[source - 1].run(
            f"ping {options} {NETS[network]}.1{target} || true", self.netns[source - 1]
        )

    def send(self, source: int, target: int, network: str) -> None:
        script = (
            "import socket\n"
            "sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            f"sender.sendto(b'{MARK}', ('{NETS[network]}.1{target}', 7))\n"
        )
        host = self.hosts[source - 1]
        subprocess.run(
            self.lab.inside(host.pid, ["python3", "-c", script], self.netns[source - 1]), check=False
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    method, why = wireguard.find_method()
    if method is None:
        pytest.fail(f"the tests need WireGuard: {why}")
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        yield (made := Cluster(lab))
    finally:
        for host in made.hosts:  # a wireguard-go holds its namespace, which here no machine's end takes along
            for name in devices(host):
                host.run(f"ip link del {name}")
        lab.close()


def eventually(what: str, check: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def devices(host: Host) -> list[str]:
    return sorted(name for name in host.links() if name.startswith("shs"))


def test_a_network_works_across_nodes(cluster: Cluster) -> None:
    for one, other in ((1, 2), (2, 3), (3, 1)):
        assert " 0% packet loss" in cluster.ping(one, other), (one, other)
    # As large as the network says it takes, unfragmented: 1500 less 80 of WireGuard, and 70 of VXLAN in it.
    link = json.loads(cluster.hosts[0].run("ip -j link show eth0", cluster.netns[0]))[0]
    assert link["mtu"] == 1350
    assert " 0% packet loss" in cluster.ping(1, 2, options="-c 2 -i 0.05 -W 2 -M do -s 1322")
    for host in cluster.hosts:
        assert list(cluster.said(host).keys) == [1]
        assert cluster.said(host).behind == ()


class Tap:
    """Every frame that passes a host's eth0, by a raw socket there."""

    def __init__(self, host: Host) -> None:
        script = (
            "import socket, sys\n"
            "tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))\n"
            "tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)\n"
            "tap.bind(('eth0', 0))\n"
            "print('ready', flush=True)\n"
            "with open(sys.argv[1], 'w') as found:\n"
            "    while True: print(tap.recv(65535).hex(), file=found, flush=True)\n"
        )
        self._found = host.lab.directory / f"tap-{host.name}"
        self._process = host.lab.spawn(
            host.lab.inside(host.pid, ["python3", "-c", script, str(self._found)]), stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def frames(self) -> list[bytes]:
        """What passed so far; ends the tap."""
        time.sleep(0.2)
        self._process.kill()
        self._process.wait()
        return [bytes.fromhex(line) for line in self._found.read_text().split("\n")[:-1]]


def udp_ports(frames: list[bytes]) -> set[int]:
    """The UDP ports that frames over IPv4 go to."""
    found = set()
    for frame in frames:
        if frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_UDP:
            found.add(struct.unpack_from(">H", frame, 36)[0])
    return found


def test_nobody_on_the_way_reads_it(cluster: Cluster) -> None:
    tap = Tap(cluster.hosts[0])
    cluster.send(1, 2, PLAIN)
    assert any(MARK.encode() in frame for frame in tap.frames()), "the tap sees nothing at all"
    tap = Tap(cluster.hosts[0])
    cluster.send(1, 2, SECRET)
    assert " 0% packet loss" in cluster.ping(1, 2)
    seen = tap.frames()
    assert len(seen) >= 7
    assert not any(MARK.encode() in frame for frame in seen)
    assert udp_ports(seen) == {4788}


INJECT = """
import socket, struct, sys
target, vni, address, mac = sys.argv[1:]
inner = bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("02420a000063") + b"\\x08\\x00"
payload = b"injected"
udp = struct.pack(">HHHH", 7, 7, 8 + len(payload), 0) + payload
ip = bytearray(struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
    socket.inet_aton(address.rpartition(".")[0] + ".99"), socket.inet_aton(address)))
total = sum(struct.unpack(">10H", ip)); total = (total & 0xFFFF) + (total >> 16)
ip[10:12] = struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF)
frame = struct.pack(">II", 0x08000000, int(vni) << 8) + inner + bytes(ip) + udp
where = socket.getaddrinfo(target, 4789, type=socket.SOCK_DGRAM)[0]
sender = socket.socket(where[0], socket.SOCK_DGRAM)
for _ in range(3):
    try:
        sender.sendto(frame, where[4])
    except PermissionError:
        print("refused")
"""


def received(cluster: Cluster, target: int, network: str, inject: Callable[[], object]) -> bool:
    """Whether the task at `target` got what was injected meanwhile."""
    script = (
        "import socket\n"
        "listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"listener.bind(('{NETS[network]}.1{target}', 7))\n"
        "listener.settimeout(1)\n"
        "print('ready', flush=True)\n"
        "try: print(listener.recv(99))\n"
        "except TimeoutError: print('nothing')\n"
    )
    host, netns = cluster.hosts[target - 1], cluster.netns[target - 1]
    listener = cluster.lab.spawn(
        cluster.lab.inside(host.pid, ["python3", "-c", script], netns), stdout=subprocess.PIPE, text=True
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == "ready\n"
    inject()
    return "injected" in listener.stdout.read()


def test_plain_vxlan_is_taken_for_plain_networks_only(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "inject.py"
    script.write_text(INJECT)
    attacker, victim = cluster.hosts[1], cluster.hosts[0]

    def inject(network: str, target: str) -> str:
        address = f"{NETS[network]}.11"
        mac = "02:42:" + ":".join(f"{int(octet):02x}" for octet in address.split("."))
        return attacker.run(f"python3 {script} {target} {VNIS[network]} {address} {mac}")

    # Its own rules refuse to send that; without them, as from a stranger, the other end's refuse to take it.
    assert inject(SECRET, victim.address).count("refused") == 3
    attacker.kill_plane()
    attacker.run("nft delete table inet shoal_encryption")
    assert received(cluster, 1, PLAIN, lambda: inject(PLAIN, victim.address))
    assert not received(cluster, 1, SECRET, lambda: inject(SECRET, victim.address))
    own = json.loads(victim.run("ip -j -6 addr show eth0 scope link"))[0]["addr_info"][0]["local"]
    assert not received(cluster, 1, SECRET, lambda: inject(SECRET, f"{own}%eth0"))
    attacker.run(f"ip -6 route replace {tunnel_address('node1')} via {own} dev eth0")
    assert not received(cluster, 1, SECRET, lambda: inject(SECRET, tunnel_address("node1")))
    dropped = victim.run("nft list table inet shoal_encryption")
    assert sum(map(int, re.findall(r"packets (\d+) bytes", dropped))) == 9, dropped
    attacker.start_plane()
    attacker.call("join", "node2", attacker.address, 4789)
    cluster.tell()
    assert "drop" in attacker.run("nft list table inet shoal_encryption")
    assert " 0% packet loss" in cluster.ping(2, 1), "routes that others broke are put right"


def test_rules_that_others_remove_are_put_back(cluster: Cluster) -> None:
    host = cluster.hosts[1]
    host.run("nft delete table inet shoal_encryption")
    eventually(
        "they are back", lambda: "drop" in host.run("nft list table inet shoal_encryption || true"), 30
    )


def rotate(cluster: Cluster) -> None:
    """As the managers do it: a new epoch, its keys, and when nobody is behind, the end of the old one."""
    newest = cluster.epochs[-1] + 1
    cluster.epochs = (newest - 1, newest)
    cluster.tell()
    eventually(
        "every node sends with the new keys",
        lambda: all(
            newest in cluster.said(host).keys and not cluster.said(host).behind for host in cluster.hosts
        ),
    )
    cluster.epochs = (newest,)
    cluster.tell()


def test_rotation_loses_no_packet(cluster: Cluster) -> None:
    before = [cluster.said(host).keys[1] for host in cluster.hosts]
    pings = [
        cluster.lab.spawn(
            cluster.lab.inside(
                cluster.hosts[one - 1].pid,
                ["ping", "-i", "0.005", "-c", "1200", "-W", "3", "-q", f"{NETS[SECRET]}.1{other}"],
                cluster.netns[one - 1],
            ),
            stdout=subprocess.PIPE,
            text=True,
        )
        for one, other in ((1, 2), (2, 3), (3, 1))
    ]
    tap = Tap(cluster.hosts[0])
    time.sleep(0.3)
    rotate(cluster)
    assert udp_ports(tap.frames()) == {4787, 4788}
    rotate(cluster)
    for ping in pings:
        assert ping.stdout is not None
        said = ping.stdout.read()
        assert "1200 received, 0% packet loss" in said, said
    for host, key in zip(cluster.hosts, before, strict=True):
        assert list(cluster.said(host).keys) == [3]
        assert cluster.said(host).keys[3] != key
        assert len(devices(host)) == 1


def test_a_restart_of_the_daemon_disturbs_nothing(cluster: Cluster) -> None:
    host = cluster.hosts[0]
    keys, links = cluster.said(host).keys, devices(host)
    ping = cluster.lab.spawn(
        cluster.lab.inside(
            host.pid, ["ping", "-i", "0.005", "-c", "600", "-q", f"{NETS[SECRET]}.12"], cluster.netns[0]
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    host.kill_plane()
    host.start_plane()
    host.call("join", "node1", host.address, 4789)
    cluster.tell()
    assert ping.stdout is not None
    said = ping.stdout.read()
    assert "600 received, 0% packet loss" in said, said
    assert (cluster.said(host).keys, devices(host)) == (keys, links)
    rotate(cluster)  # and it knows how to go on
    assert " 0% packet loss" in cluster.ping(1, 3)


TAKE_PORT = """
import socket, sys, time
taken = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
taken.bind(("::", int(sys.argv[1])))
print("taken", flush=True)
time.sleep(600)
"""


def programs(host: Host) -> list[int]:
    """The wireguard-go processes in a host's network namespace."""
    namespace = Path(f"/proc/{host.pid}/ns/net").readlink()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            here = (process / "ns/net").readlink() == namespace
            if here and "wireguard-go" in (process / "cmdline").read_text():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_without_its_device_a_node_is_cut_off_and_never_plain(cluster: Cluster) -> None:
    host = cluster.hosts[0]
    tap = Tap(host)
    before = cluster.said(host).keys
    (device,) = devices(host)
    theirs = ("shs0", "shsabcdefe1")  # a name like ours, even one of ours on another kind
    for name in theirs:
        host.run(f"ip link add {name} type bridge")
    host.run(f"ip link del {device}")
    cluster.send(1, 2, SECRET)
    assert not any(MARK.encode() in frame for frame in tap.frames())
    eventually("there is another", lambda: cluster.said(host).keys not in ({}, before), 20)
    assert set(theirs) <= set(host.links())
    for name in theirs:
        host.run(f"ip link del {name}")
    cluster.tell()
    eventually("traffic goes on", lambda: " 0% packet loss" in cluster.ping(1, 2))


def test_a_node_that_cannot_make_the_newest_keys_keeps_none_that_are_over(cluster: Cluster) -> None:
    host = cluster.hosts[0]
    (old,) = cluster.said(host).keys
    port = tunnel_port(4789, old + 1)
    taken = cluster.lab.spawn(
        cluster.lab.inside(
            host.pid,
            [sys.executable, "-c", TAKE_PORT, str(port)],
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert taken.stdout is not None
    assert taken.stdout.readline() == "taken\n"
    tap = Tap(host)
    cluster.epochs = (old, old + 1)
    cluster.tell()
    assert (list(cluster.said(host).keys), bool(cluster.said(host).trouble)) == ([old], True)
    assert " 0% packet loss" in cluster.ping(1, 2), "by the keys that all have"
    cluster.epochs = (old + 1,)
    cluster.tell()
    assert cluster.said(host).keys == {}
    assert devices(host) == []
    cluster.send(1, 2, SECRET)
    assert not any(MARK.encode() in frame for frame in tap.frames())
    assert " 0% packet loss" in cluster.ping(2, 3)
    taken.kill()
    taken.wait()
    eventually("it has the newest", lambda: list(cluster.said(host).keys) == [old + 1], 20)
    cluster.tell()
    eventually("traffic goes on", lambda: " 0% packet loss" in cluster.ping(1, 2))


def test_a_peer_that_moves_is_found(cluster: Cluster) -> None:
    host = cluster.hosts[2]
    host.run(f"ip addr del {host.address}/24 dev eth0; ip addr add 192.0.2.33/24 dev eth0")
    host.address = "192.0.2.33"
    host.call("join", "node3", host.address, 4789)
    cluster.tell()
    assert " 0% packet loss" in cluster.ping(1, 3)


def test_nothing_is_left(cluster: Cluster) -> None:
    for i, host in enumerate(cluster.hosts, 1):
        host.call("remove", f"box{i}")
        host.call("leave")
        assert devices(host) == []
        assert "shoal_encryption" not in host.run("nft list tables")
        assert "fd53:686f:616c:" not in host.run("ip -6 route")
        assert cluster.said(host).keys == {}
        eventually("its program ends", lambda: programs(host) == [])  # noqa: B023
