"""One suite over all network drivers: each keeps the same promises, as far as its kind makes them."""

import functools
import ipaddress
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import pytest

from cluster.dataplane import DataplaneChanges, NetworkRecord, PeerRecord, Protocol
from cluster.objects import Subnet
from cluster.spec import IPAM, IPAMConfig, NetworkReference, NetworkSpec
from netplane.model import Attachment, HostPort, Mode, SandboxSpec
from tests.support.network_lab import Host, Lab, PlaneError

pytestmark = pytest.mark.host

T = TypeVar("T")

MTU = "com.docker.network.driver.mtu"
ICC = "com.docker.network.bridge.enable_icc"
WIRE, OWN, OWN6 = "192.0.2.0/24", "10.66.0.0/24", "fd00:66::/64"
OUTSIDE, OUTSIDE6 = "192.0.2.9", "fd00:2::9"
VLAN = 7
PATIENCE = 1.5


@dataclass(frozen=True)
class Kind:
    """A driver in one of its modes. What it promises: that containers reach each other (`together`), and the
    outside (`out`)."""

    driver: str
    options: dict[str, str] = field(default_factory=dict)
    subnet: str = OWN
    gateway: str = "10.66.0.1"
    together: bool = True
    out: bool = True
    internal: bool = False
    mtu: int = 1400
    without_gateway: bool = False
    four: bool = True

    @property
    def six(self) -> bool:
        """With IPv6: only where there is no IPv4, to keep the suite short."""
        return not self.four


def _on_wire(mode: str, **promises: Any) -> Kind:
    return Kind("macvlan", {"parent": "eth0", "macvlan_mode": mode}, WIRE, OUTSIDE, **promises)


def _ipvlan(mode: str, **promises: Any) -> Kind:
    return Kind("ipvlan", {"parent": "eth0", "ipvlan_mode": mode}, WIRE, OUTSIDE, **promises)


KINDS = {
    "bridge": Kind("bridge"),
    "bridge-internal": Kind("bridge", internal=True, out=False),
    "bridge-no-icc": Kind("bridge", {ICC: "false"}, together=False),
    "bridge-ipv6-only": Kind("bridge", subnet=OWN6, gateway="fd00:66::1", four=False),
    "overlay": Kind("overlay"),
    "overlay-internal": Kind("overlay", internal=True, out=False),
    "macvlan-bridge": _on_wire("bridge"),
    "macvlan-private": _on_wire("private", together=False),
    "macvlan-vepa": _on_wire("vepa", together=False),  # no switch here sends frames back
    "macvlan-internal": _on_wire("bridge", internal=True, out=True, without_gateway=True),
    "macvlan-without-parent": Kind("macvlan", out=False, without_gateway=True),
    "macvlan-vlan": Kind("macvlan", {"parent": f"eth0.{VLAN}"}, gateway="10.66.0.9"),
    "macvlan-ipv6-only": Kind("macvlan", {"parent": "eth0"}, "fd00:2::/64", OUTSIDE6, four=False),
    "ipvlan-l2": _ipvlan("l2"),
    "ipvlan-l2-private": Kind(
        "ipvlan", {"parent": "eth0", "ipvlan_flag": "private"}, WIRE, OUTSIDE, together=False
    ),
    "ipvlan-l3": _ipvlan("l3", out=False),
    "ipvlan-l3s": _ipvlan("l3s", out=False),
}


class Network:
    """A network of a kind on one host, made by whom that kind is made by."""

    def __init__(self, host: Host, kind: Kind) -> None:
        self.host, self.kind = host, kind
        self._next = 100

    def make(self) -> None:
        kind = self.kind
        if kind.driver == "overlay":
            self.host.call("join", "node1", self.host.address, 4789)
            record = NetworkRecord(
                id="net",
                name="net",
                driver="overlay",
                subnets=(Subnet(subnet=kind.subnet, gateway=kind.gateway),),
                vni=4097,
                mtu=kind.mtu,
                internal=kind.internal,
            )
            peer = PeerRecord(node_id="node1", address=self.host.address)
            self.host.apply(DataplaneChanges(full=True, networks=(record,), peers=(peer,)))
            return
        config = IPAMConfig(subnet=kind.subnet, gateway="" if kind.without_gateway else kind.gateway)
        self.id = create(
            self.host,
            name="net",
            driver=kind.driver,
            options={**kind.options, MTU: str(kind.mtu)},
            internal=kind.internal,
            enable_ipv4=kind.four,
            enable_ipv6=kind.six,
            ipam=IPAM(config=[config]),
        )

    def remove(self) -> None:
        if self.kind.driver == "overlay":
            self.host.apply(DataplaneChanges(full=True))
        else:
            self.host.call("remove_network", "net")

    def place(self, name: str, address: str = "") -> Attachment:
        """A place for a sandbox; the managers choose the addresses of overlays, here as everywhere."""
        if self.kind.driver == "overlay" and not address:
            self._next += 1
            address = self.address(self._next)
        if self.kind.driver == "overlay":
            address += "/24"
        four, six = (address, "") if self.kind.four else ("", address)
        return Attachment("net", address=four, address6=six, names=(name,), aliases=(f"{name}-alias",))

    def address(self, number: int) -> str:
        return str(ipaddress.ip_network(self.kind.subnet)[number])

    def of(self, sandbox: dict[str, Any]) -> str:
        """The address of a sandbox in the network."""
        held = sandbox["addresses" if self.kind.four else "addresses6"]
        network = "net" if self.kind.driver == "overlay" else self.id
        return str(held[network]).partition("/")[0]


def create(host: Host, **fields: Any) -> str:
    made: dict[str, str] = host.call("create_network", msgspec.json.encode(NetworkSpec(**fields)).decode())
    return made["id"]


def traces(host: Host) -> tuple[object, ...]:
    """All that a network may leave on a host."""
    rules = "nft list ruleset | sed -E 's/(packets|bytes|handle) [0-9]+//g'"
    return (
        {name: each["mtu"] for name, each in links(host).items()},
        host.run("ip -o addr show | grep -v fe80: | sed 's/valid_lft.*//'"),
        host.run(rules),
        host.run("ip neigh show nud permanent"),
        host.run("ip route | sed 's/ linkdown//'"),
        host.run(f"ls {host.directory}/run/netns {host.directory}/run/sandboxes"),
        host.run("grep -c netns /proc/self/mountinfo || true"),
    )


def links(host: Host, netns: str = "") -> dict[str, Any]:
    return {each["ifname"]: each for each in json.loads(host.run("ip -j -d link", netns))}


def at_once(*calls: Callable[[], T]) -> list[T]:
    """What these find; most that wait in vain wait as long as it takes."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [each.result() for each in [threads.submit(call) for call in calls]]


@pytest.fixture
def outside(lab: Lab) -> int:
    """A machine on the wire, which is also the way out of it; it serves."""
    pid = lab.namespace()
    lab.plug(pid, f"{OUTSIDE}/24")
    lab.run(pid, f"ip addr add {OUTSIDE6}/64 dev eth0 nodad")
    lab.serve(pid, "outside")
    return pid


def _prepared(lab: Lab, outside: int, kind: Kind) -> Host:
    host = Host(lab, "host1", "192.0.2.1")
    host.run("ip addr add fd00:2::1/64 dev eth0 nodad")
    if (
        kind.driver == "ipvlan"
        and host.run("ip link add try0 link eth0 type ipvlan && ip link del try0 && echo yes || true")
        != "yes\n"
    ):
        pytest.skip("this kernel has no ipvlan")
    if "." in kind.options.get("parent", ""):
        add = f"ip link add link eth0 name eth0.{VLAN} type vlan id {VLAN}"
        lab.run(outside, f"{add} && ip addr add {kind.gateway}/24 dev eth0.{VLAN} || true", check=False)
        lab.run(outside, f"ip link set eth0.{VLAN} up || true", check=False)
        if f"eth0.{VLAN}" not in lab.run(outside, "ip -br link"):
            pytest.skip("this kernel has no VLAN devices")
    host.start_plane()
    return host


@pytest.mark.parametrize("name", KINDS)
def test_a_network_keeps_its_promises(lab: Lab, outside: int, name: str) -> None:
    kind = KINDS[name]
    host = _prepared(lab, outside, kind)
    network = Network(host, kind)
    if kind.driver == "overlay":  # the node is in a cluster before and after
        network.make()
        network.remove()
    host.create(SandboxSpec(id="c0", hostname="c0", attachments=(Attachment("bridge"),)))
    clean = traces(host)
    network.make()

    def sandbox(id: str, address: str = "") -> dict[str, Any]:
        return host.create(SandboxSpec(id=id, hostname=id, attachments=(network.place(id, address),)))

    def ask(who: dict[str, Any], address: str) -> str:
        (answer,) = lab.peer(host.pid, "ask", address, 80, 1, "tcp", 0, PATIENCE, netns=who["netns"])
        return str(answer)

    one, two = sandbox("c1"), sandbox("c2", network.address(77))
    lab.serve(host.pid, "two", two["netns"])
    # Addresses, the device, the way out.
    assert ipaddress.ip_address(network.of(one)) in ipaddress.ip_network(kind.subnet)
    assert network.of(two) == network.address(77)
    assert {each["ifname"] for each in links(host, one["netns"]).values()} == {"lo", "eth0"}
    assert links(host, one["netns"])["eth0"]["mtu"] == kind.mtu
    family = "" if kind.four else "-6"
    ways = json.loads(host.run(f"ip -j {family} route show default", one["netns"]))
    if kind.internal or kind.without_gateway:
        assert ways == []
    elif kind.options.get("ipvlan_mode", "l2") == "l2":
        assert [way["gateway"] for way in ways] == [kind.gateway]
    else:
        assert [way["dev"] for way in ways] == ["eth0"]
    # Names.
    record = "A" if kind.four else "AAAA"
    for called in ("c2", "c2.net", *(() if kind.driver == "overlay" else ("c2-alias",))):
        answer = lab.peer(host.pid, "resolve", called, record, "udp", netns=one["netns"])
        assert answer == {"code": "NOERROR", "records": [network.of(two)]}, called
    # Who reaches whom.
    target = OUTSIDE if kind.four else OUTSIDE6
    reaches_out = kind.gateway if "." in kind.options.get("parent", "") else target

    def check(who: dict[str, Any]) -> None:
        targets = (network.of(two), reaches_out)
        answers = at_once(*(functools.partial(ask, who, target) for target in targets))
        found = answers[0].startswith("two "), answers[1].startswith("outside ")
        assert found == (kind.together, kind.out), answers

    check(one)
    # A running sandbox comes and goes.
    came = host.call("attach", "c0", msgspec.json.encode(network.place("c0")).decode())
    assert ask(came, network.of(two)).startswith("two ") is kind.together
    host.call("detach", "c0", "net" if kind.driver == "overlay" else network.id)
    assert set(links(host, came["netns"])) == {"lo", "eth0"}
    # Nothing is lost with the daemon, and no address given twice.
    host.kill_plane()
    host.start_plane()
    if kind.driver == "overlay":
        network.make()
    assert set(host.call("sandboxes")) == {"c0", "c1", "c2"}
    check(one)
    three = sandbox("c3")
    assert network.of(three) not in (network.of(one), network.of(two))
    with pytest.raises(PlaneError):
        sandbox("c4", "1.2.3.4" if kind.four else "fd00:99::1") if kind.driver != "overlay" else host.create(
            SandboxSpec(id="c4", attachments=(Attachment("net"),))
        )
    # A crash in the middle.
    specs = [SandboxSpec(id=f"m{n}", attachments=(network.place(f"m{n}"),)) for n in range(6)]
    host.tell("create_many", msgspec.json.encode(specs).decode())
    host.kill_plane()
    host.start_plane()
    if kind.driver == "overlay":
        network.make()
    for id in list(host.call("sandboxes")):
        if id != "c0":
            host.call("remove", id)
    network.remove()
    assert traces(host) == clean


@pytest.mark.parametrize("mode", [Mode.HOST, Mode.NONE])
def test_modes_have_no_place_for_networks(lab: Lab, mode: Mode) -> None:
    host = lab.host("host1", "192.0.2.1")
    clean = traces(host)
    made = host.create(SandboxSpec(id="c1", hostname="c1", mode=mode))
    assert made["addresses"] == {}
    if mode is Mode.NONE:
        assert set(links(host, made["netns"])) == {"lo"}
    with pytest.raises(PlaneError, match=r"can.t be in other networks|cannot be connected"):
        host.call("attach", "c1", msgspec.json.encode(Attachment("bridge")).decode())
    host.kill_plane()
    host.start_plane()
    assert list(host.call("sandboxes")) == ["c1"]
    host.call("remove", "c1")
    assert traces(host) == clean


def test_passthru_gives_one_sandbox_the_device(lab: Lab, outside: int) -> None:
    host = lab.host("host1", "192.0.2.1")
    host.run("ip link add spare type veth peer name spare1 && ip link set spare up && ip link set spare1 up")
    mac = links(host)["spare"]["address"]
    options = {"parent": "spare", "macvlan_mode": "passthru"}
    create(host, name="net", driver="macvlan", options=options)
    one = host.create(SandboxSpec(id="c1", attachments=(Attachment("net"),)))
    assert links(host, one["netns"])["eth0"]["address"] == mac
    with pytest.raises(PlaneError, match="takes no more containers"):
        host.create(SandboxSpec(id="c2", attachments=(Attachment("net"),)))
    with pytest.raises(PlaneError, match="already using parent interface"):
        create(host, name="other", driver="macvlan", options={"parent": "spare"})
    host.call("remove", "c1")
    again = host.create(SandboxSpec(id="c2", attachments=(Attachment("net"),)))
    assert links(host, again["netns"])["eth0"]["address"] == mac


def test_swarm_networks_take_each_nodes_settings(lab: Lab, outside: int) -> None:
    host = lab.host("host1", "192.0.2.1")
    host.call("join", "node1", host.address, 4789)
    clean = traces(host)
    config = IPAM(config=[IPAMConfig(subnet=WIRE, ip_range="192.0.2.128/28", gateway=OUTSIDE)])
    record = NetworkRecord(id="net-id", name="net", driver="macvlan", config_from="wires")
    host.apply(DataplaneChanges(full=True, networks=(record,)))
    spec = SandboxSpec(id="c1", hostname="c1", attachments=(Attachment("net-id", names=("c1",)),))
    with pytest.raises(PlaneError, match='configuration network "wires" does not exist on this node'):
        host.create(spec)
    create(host, name="wires", config_only=True, ipam=config, options={"parent": "eth0"})
    one = host.create(spec)
    assert one["addresses"] == {"net-id": "192.0.2.128/24"}
    assert {each["name"] for each in host.call("networks").values()} == {"bridge", "host", "none", "wires"}
    (answer,) = lab.peer(host.pid, "ask", OUTSIDE, 80, 1, "tcp", 0, netns=one["netns"])
    assert answer.startswith("outside 192.0.2.128 ")
    with pytest.raises(PlaneError, match="is in use"):
        host.call("remove_network", "wires")
    host.kill_plane()
    host.start_plane()
    host.call("join", "node1", host.address, 4789)
    host.call("remove", "c1")  # and this node's part of the network with it
    host.call("remove_network", "wires")
    host.apply(DataplaneChanges(full=True))
    assert traces(host) == clean
    source = NetworkReference("wires")
    with pytest.raises(PlaneError, match='"wires" does not exist'):
        create(host, name="mine", driver="macvlan", config_from=source)


def _refusals() -> dict[str, tuple[str, dict[str, Any]]]:
    def ipam(subnet: str) -> IPAM:
        return IPAM(config=[IPAMConfig(subnet=subnet)])

    return {
        "missing parent": ("has these: br9,", {"driver": "macvlan", "options": {"parent": "eth9"}}),
        "loopback": ("can't be a parent", {"driver": "macvlan", "options": {"parent": "lo"}}),
        "parent in a bridge": ("part of a bridge", {"driver": "macvlan", "options": {"parent": "enslaved"}}),
        "parent down": ("is down", {"driver": "macvlan", "options": {"parent": "down0"}}),
        "MTU of the parent": (
            "more than that of the parent", {"driver": "macvlan", "options": {"parent": "eth0", MTU: "1501"}},
        ),
        "MTU below 68": ("from 68 to 65535", {"options": {MTU: "67"}}),
        "MTU above 65535": ("from 68 to 65535", {"options": {MTU: "65536"}}),
        "MTU without IPv6": ("IPv6 needs 1280", {"enable_ipv6": True, "options": {MTU: "1279"}}),
        "no family": ("must be enabled", {"enable_ipv4": False}),
        "subnet of a network": ("of network bridge", {"ipam": ipam("172.17.128.0/24")}),
        "subnet of a link": ("on its link eth0", {"ipam": ipam("192.0.2.64/26")}),
        "name": ("already exists", {"name": "taken"}),
        "gateway mode": ("unknown gateway mode", {"options": {f"{ICC[:26]}gateway_mode_ipv4": "open"}}),
    }  # fmt: skip


def test_what_cannot_be_is_refused_and_leaves_nothing(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    create(host, name="taken")
    host.run("ip link add down0 type veth peer name down1; ip link add br9 type bridge")
    host.run("ip link add enslaved type veth peer name e1; ip link set enslaved master br9 up")
    clean = traces(host)
    for case, (words, fields) in _refusals().items():
        with pytest.raises(PlaneError) as raised:
            create(host, **{"name": "new", **fields})
        assert words in str(raised.value), case
        assert traces(host) == clean, case


def test_one_subnet_on_two_links_is_refused(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    network = Network(host, KINDS["overlay"])
    create(host, name="mine", ipam=IPAM(config=[IPAMConfig(subnet=OWN)]))
    host.create(SandboxSpec(id="c1", attachments=(Attachment("mine"),)))
    host.run("ip addr flush dev shoal0")
    host.call("join", "node1", host.address, 4789)
    spec = SandboxSpec(id="c2", attachments=(Attachment("mine"), Attachment("net", address="10.66.0.9/24")))
    network.make()
    make: Callable[[], object]
    for make in (
        lambda: host.create(spec),
        lambda: host.call("attach", "c1", msgspec.json.encode(spec.attachments[1]).decode()),
    ):
        with pytest.raises(PlaneError, match="which the node has on its link"):
            make()


TRUSTED = "com.docker.network.bridge.trusted_host_interfaces"
MODE = "com.docker.network.bridge.gateway_mode_ipv"


@pytest.mark.parametrize("mode", ["nat", "nat-unprotected", "routed", "trusted"])
def test_gateway_modes_say_how_far_a_container_is_reached(lab: Lab, outside: int, mode: str) -> None:
    """By both IP versions, from a machine that has routes to the containers."""
    host = lab.host("host1", "192.0.2.1")
    host.run("ip addr add fd00:2::1/64 dev eth0 nodad")
    lab.run(outside, f"ip route add {OWN} via 192.0.2.1; ip route add {OWN6} via fd00:2::1")
    create(
        host,
        name="net",
        enable_ipv6=True,
        options={TRUSTED: "eth0:eth1"} if mode == "trusted" else {f"{MODE}4": mode, f"{MODE}6": mode},
        ipam=IPAM(config=[IPAMConfig(subnet=OWN), IPAMConfig(subnet=OWN6)]),
    )
    create(host, name="other")
    neighbour = host.create(SandboxSpec(id="c0", attachments=(Attachment("other"),)))
    clean = traces(host)
    ports = (HostPort(Protocol.TCP, 8080, 80), HostPort(Protocol.TCP, 0, 80))
    one = host.create(SandboxSpec(id="c1", attachments=(Attachment("net"),), host_ports=ports))
    for port in (80, 81):
        lab.serve(host.pid, "one", one["netns"], port=port)

    def reached(address: str, port: int, pid: int = outside, netns: str = "") -> bool:
        (answer,) = lab.peer(pid, "ask", address, port, 1, "tcp", 0, PATIENCE, netns=netns)
        return str(answer).startswith("one ")

    direct = {
        "nat": (False, False),
        "nat-unprotected": (True, True),
        "routed": (True, False),
        "trusted": (True, False),
    }[mode]
    cases: dict[tuple[Any, ...], bool] = {
        ("10.66.0.2", 81, host.pid, neighbour["netns"]): False,  # networks stay apart
        ("10.66.0.2", 80, host.pid, neighbour["netns"]): mode == "routed",
        ("192.0.2.1", 8080): mode != "routed",
        ("fd00:2::1", 8080): mode != "routed",
    }
    for own in ("10.66.0.2", "fd00:66::2"):
        cases |= {(own, 80): direct[0], (own, 81): direct[1]}
    found = at_once(*(functools.partial(reached, *case) for case in cases))
    assert dict(zip(cases, found, strict=True)) == cases
    # Who asks is seen as who it is, and leaves as itself only where the mode says so.
    for target, own in ((OUTSIDE, "10.66.0.2"), (OUTSIDE6, "fd00:66::2")):
        (answer,) = lab.peer(host.pid, "ask", target, 80, 1, "tcp", 0, netns=one["netns"])
        assert answer.startswith("outside ")
        assert (answer.split()[1] == own) is (mode == "routed"), answer
    assert one["ports"][0]["published"] == (0 if mode == "routed" else 8080)
    host.kill_plane()
    host.start_plane()
    assert reached("10.66.0.2", 80) is direct[0]
    host.call("remove", "c1")
    assert traces(host) == clean
