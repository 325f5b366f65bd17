"""Traces on what a node knows, with a kernel that agrees or not."""

import ipaddress
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest

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
from cluster.encryption import tunnel_address
from cluster.errors import NotFound
from cluster.objects import Subnet
from netplane.dns.zone import build_zone
from netplane.doctor import Dropping
from netplane.errors import InvalidNetwork
from netplane.links import Link
from netplane.model import Attachment, HostPort, Interface, Mode, Sandbox, SandboxRecord, SandboxSpec, Segment
from netplane.records import ClusterRecords
from netplane.trace.kernel import SystemKernel, associations, destinations, listeners, slots
from netplane.trace.model import Scene, Target, Trace, parse_target
from netplane.trace.walk import trace

FORWARD = Dropping("inet", "other", "f", "forward")
INPUT = Dropping("ip", "other", "i", "input")
VIP, HERE, THERE = "10.0.1.2", "10.0.1.10", "10.0.1.11"


@dataclass
class FakeKernel:
    """Holds what it should, until a test changes that."""

    up: dict[str, Link] = field(
        default_factory=lambda: {
            name: Link(index, name, "", 1450)
            for index, name in enumerate(("p-client", "p-web", "br-app", "vx-app", "br-ing", "vx-ing"), 1)
        }
    )
    vips: dict[str, Sequence[str]] = field(default_factory=lambda: {VIP: (HERE, THERE)})
    programs: dict[str, Sequence[str]] = field(default_factory=dict)
    ports: dict[int, Sequence[str]] = field(default_factory=lambda: {8080: ("10.9.0.10",)})
    ports6: dict[int, Sequence[str]] = field(default_factory=dict)
    entries: dict[str, str] = field(default_factory=lambda: {THERE: "192.0.2.2"})
    open: dict[int, Collection[str] | None] = field(default_factory=lambda: {80: {"0.0.0.0"}})
    open_on_host: dict[int, Collection[str]] = field(default_factory=dict)
    mtu: int = 1500
    connected: list[tuple[Path | None, str, int]] = field(default_factory=list)

    async def links(self) -> Mapping[str, Link]:
        return self.up

    async def addresses(self) -> Collection[str]:
        return {"127.0.0.1", "192.0.2.1", "2001:db8::1"}

    async def mtu_of(self, address: str) -> int:
        return self.mtu

    async def backends(self, netns: Path, address: str) -> Sequence[str] | None:
        return self.vips.get(address)

    async def at_connect(self, network_id: str, address: str) -> Sequence[str] | None:
        return self.programs.get(address) if network_id == "app" else None

    async def published(self, protocol: str, port: int, *, ipv6: bool = False) -> Sequence[str] | None:
        return (self.ports6 if ipv6 else self.ports).get(port)

    async def tunnels(self, index: int) -> Mapping[str, str]:
        return self.entries

    async def listening(self, netns: Path | None, protocol: str, port: int) -> Collection[str] | None:
        return (self.open if netns is not None else self.open_on_host).get(port, ())

    async def connect(self, netns: Path | None, address: str, port: int) -> str:
        self.connected.append((netns, address, port))
        return "Connection refused" if port != 80 else ""


def sandbox(name: str, *places: tuple[str, str, str], task: str = "", **ports: int) -> SandboxRecord:
    interfaces = tuple(
        Interface(network, f"eth{n}", 11 + n, port, 1450, address, 24, "", gateway="10.0.1.1")
        for n, (network, address, port) in enumerate(places)
    )
    bound = tuple(HostPort(Protocol.TCP, published, target) for published, target in ((9000, 80),) if ports)
    mode = Mode.PRIVATE if places else Mode.NONE
    attachments = tuple(Attachment(network, names=() if task else (name,)) for network, *_ in places)
    return SandboxRecord(
        SandboxSpec(f"{name}-id", mode=mode, attachments=attachments, task_id=task, service_id=task and "s"),
        Sandbox(f"{name}-id", Path(f"/run/{name}"), ports=bound),
        interfaces,
        dns_port=4242 if any(network != "bridge" for network, *_ in places) else 0,
        upstreams=("192.0.2.53",),
    )


def endpoint(
    task: str, node: str, address: str, network: str = "app", *, serving: bool = True
) -> EndpointRecord:
    return EndpointRecord(network, task, f"web.1.{task}", "s", node, f"{address}/24", serving=serving)


def scene(*endpoints: EndpointRecord, firewalls: Sequence[Dropping] = ()) -> Scene:
    records = ClusterRecords()
    port = PublishedPort(Protocol.TCP, 8080, 80)
    records.apply(
        DataplaneChanges(
            full=True,
            networks=(
                NetworkRecord("app", "app", "overlay", (Subnet("10.0.1.0/24", "10.0.1.1"),), vni=4097),
                NetworkRecord("red", "red", "overlay", (Subnet("10.0.2.0/24", "10.0.2.1"),), vni=4098),
                NetworkRecord(
                    "ing", "ingress", "overlay", (Subnet("10.9.0.0/24", "10.9.0.1"),), vni=4096, ingress=True
                ),
            ),
            peers=(PeerRecord("node1", "192.0.2.1"), PeerRecord("node2", "192.0.2.2")),
            services=(
                ServiceRecord("app", "s", "web", vip=f"{VIP}/24"),
                ServiceRecord("ing", "s", "web", vip="10.9.0.2/24", ports=(port,)),
                ServiceRecord("red", "r", "far", vip="10.0.2.2/24"),
            ),
            endpoints=endpoints
            or (
                endpoint("t1", "node1", HERE),
                endpoint("t2", "node2", THERE),
                endpoint("t1", "node1", "10.9.0.10", "ing"),
            ),
        )
    )
    sandboxes = {
        each.sandbox.id: each
        for each in (
            sandbox("client", ("app", "10.0.1.20", "p-client")),
            sandbox("alone", ("bridge", "172.17.0.2", "p-client"), ports=1),
            sandbox("none"),
            sandbox("web", ("app", HERE, "p-web"), ("ing", "10.9.0.10", "p-web"), task="t1"),
        )
    }

    def segment(network: str, subnet: str, bridge: str) -> Segment:
        net = ipaddress.IPv4Network(subnet)
        return Segment(network, bridge, 1, 1450, net, str(net[1]), ingress=network == "ing")

    return Scene(
        node="host1",
        node_id="node1",
        tunnel_address="192.0.2.1",
        records=records,
        sandboxes=sandboxes,
        segments={
            "app": segment("app", "10.0.1.0/24", "br-app"),
            "ing": segment("ing", "10.9.0.0/24", "br-ing"),
            "bridge": segment("bridge", "172.17.0.0/16", "br-app"),
        },
        local={},
        zone_of=lambda network: build_zone(
            network,
            records.services(network),
            records.endpoints(network),
            (),
            lambda service: records.serving(network, service),
        ),
        firewalls=firewalls,
        device_names=lambda network: (f"br-{network}", f"vx-{network}"),
    )


SUBNETS6 = {"app": "fd00:1::/64", "ing": "fd00:9::/64"}


def six_of(address: str, network: str = "app") -> str:
    return address6_for(SUBNETS6[network], address).partition("/")[0]


def with_ipv6(at: Scene) -> Scene:
    """The same with IPv6 in the networks app and ingress."""
    for network, subnet in SUBNETS6.items():
        record = at.records.networks[network]
        wider = msgspec.structs.replace(record, subnets6=(Subnet(subnet, ""),))
        at.records.apply(DataplaneChanges(networks=(wider,)))
    sandboxes = {
        sandbox_id: msgspec.structs.replace(
            record,
            interfaces=tuple(
                msgspec.structs.replace(each, address6=six_of(each.address, each.network_id))
                if each.network_id in SUBNETS6
                else each
                for each in record.interfaces
            ),
        )
        for sandbox_id, record in at.sandboxes.items()
    }
    return replace(at, sandboxes=sandboxes)


async def walked(
    source: str, destination: str, kernel: FakeKernel | None = None, at: Scene | None = None, **options: bool
) -> Trace:
    return await trace(at or scene(), kernel or FakeKernel(), source, parse_target(destination), **options)


def stops(found: Trace) -> str:
    """Where it stops, and what it said."""
    assert not found.arrives
    assert found.advice
    first = next(step for step in found.steps if not step.good)
    assert first.text in found.summary
    return f"{first.stage}: {first.text}"


async def test_the_whole_way() -> None:
    found = await walked("client", "web:80")
    assert found.arrives, found.summary
    assert [step.stage for step in found.steps] == [
        "source", "name", "balance", "way", "way", "arrival", "way", "arrival",
    ]  # fmt: skip
    told = "\n".join(step.text for step in found.steps)
    for part in (
        f"web → {VIP}",
        f"{HERE}, {THERE}",
        "p-client → br-app",
        "VNI 4097",
        "→ 192.0.2.2",
        "listens on",
    ):
        assert part in told


async def test_names_that_lead_nowhere() -> None:
    assert "share none" in stops(await walked("client", "far:80"))
    assert "nobody is called nowhere" in stops(await walked("client", "nowhere"))
    assert "default bridge" in stops(await walked("alone", "other"))
    assert "is in no network" in stops(await walked("none", "web"))
    waiting = scene(endpoint("t1", "node1", HERE, serving=False))
    assert stops(await walked("client", "tasks.web", at=waiting)).startswith("name: tasks.web is known")
    assert "none of its 1 tasks serves" in stops(await walked("client", "web", at=waiting))
    with pytest.raises(NotFound, match="stranger"):
        await walked("stranger", "web")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vips": {}}, "don't know it"),
        ({"vips": {VIP: (HERE, "10.0.1.99")}}, "still sends connections to 10.0.1.99"),
        ({"programs": {VIP: (HERE, "10.0.1.98")}}, "by its program at connect() the kernel still sends"),
        ({"up": {}}, "p-client, by which packets leave, is gone"),
        ({"entries": {}}, "does not know it"),
        ({"entries": {THERE: "192.0.2.9"}}, "sends it to 192.0.2.9"),
        ({"mtu": 1400}, "small ones pass, large ones don't"),
        ({"open": {}}, "nothing listens on port 80/tcp in web.1.t1"),
        ({"open": {80: {"127.0.0.1"}}}, "only at 127.0.0.1"),
    ],
)
async def test_a_kernel_that_does_not_agree(change: dict[str, object], said: str) -> None:
    assert said in stops(await walked("client", "web:80", replace(FakeKernel(), **change)))  # type: ignore[arg-type]


async def test_addresses() -> None:
    assert (await walked("client", f"{HERE}:80")).arrives
    assert "nobody has 10.0.1.77" in stops(await walked("client", "10.0.1.77"))
    assert "networks don't reach each other" in stops(await walked("client", "10.0.2.7"))
    assert "is outside: eth0 → gateway" in (await walked("client", "203.0.113.1")).steps[-1].text
    assert "only in containers" in stops(await walked("host", f"{VIP}:80"))
    blocked = scene(firewalls=(FORWARD,))
    assert "table inet other" in stops(await walked("client", "203.0.113.1", at=blocked))


async def test_ports_published_at_some_addresses_only() -> None:
    def at(*places: str) -> Scene:
        before = scene()
        boxes = {}
        for number, place in enumerate(places):
            box = before.sandboxes["alone-id"]
            (port,) = box.sandbox.ports
            held = msgspec.structs.replace(
                box.sandbox, id=f"box{number}", ports=(msgspec.structs.replace(port, host_ip=place),)
            )
            boxes[held.id] = msgspec.structs.replace(box, sandbox=held)
        return replace(before, sandboxes=boxes)

    for place in ("127.0.0.1", "::"):
        assert f"at {place} only, not at 192.0.2.1" in stops(
            await walked("outside", "192.0.2.1:9000", at=at(place))
        )
    assert "at 0.0.0.0 only" in stops(await walked("outside", "[2001:db8::1]:9000", at=at("0.0.0.0")))
    assert (await walked("outside", "192.0.2.1:9000", at=at("127.0.0.1", "192.0.2.1"))).arrives


async def test_foreign_firewalls() -> None:
    blocked = scene(firewalls=(FORWARD, INPUT))
    for target in ("192.0.2.1:8080", "192.0.2.1:9000", "web:80"):
        assert "the chain f of the nftables table inet other drops what" in stops(
            await walked("outside", target, at=blocked)
        )
    assert (
        await walked("host", "192.0.2.1:9000", at=blocked)
    ).arrives  # what the host sends, it does not forward
    assert (await walked("outside", "192.0.2.1:9000", at=scene(firewalls=(INPUT,)))).arrives  # led elsewhere
    ipv6 = scene(firewalls=(replace(FORWARD, family="ip6"),))
    assert (await walked("outside", "192.0.2.1:9000", at=ipv6)).arrives


async def test_foreign_firewalls_before_the_host_itself_and_its_tunnels() -> None:
    kernel, at = FakeKernel(open_on_host={22: {"0.0.0.0"}}), scene(firewalls=(INPUT,))
    found = await walked("outside", "192.0.2.1:22", kernel, at)
    assert found.arrives
    assert "the chain i of the nftables table ip other, which drops what it has no rule for" in found.summary
    shut = scene(firewalls=(replace(INPUT, empty=True),))
    assert "drops all that comes to this host" in stops(await walked("outside", "192.0.2.1:22", kernel, shut))
    assert (await walked("host", "192.0.2.1:22", kernel, shut)).arrives
    far = await walked("client", f"{THERE}:80", at=at)
    assert "accepts what other nodes send on the data path" in far.summary
    assert "drops all that comes" in stops(await walked("client", f"{THERE}:80", at=shut))


async def test_published_ports() -> None:
    for source, target in (("outside", "192.0.2.1:8080"), ("outside", "web:80"), ("host", "web:8080")):
        found = await walked(source, target)
        assert found.arrives, found.summary
        assert "port 8080/tcp of every node leads to service web" in found.steps[1].text
    assert "is no published port; there are 8080/tcp" in stops(await walked("outside", "192.0.2.1:81"))
    assert "is node node2, not this one" in stops(await walked("outside", "192.0.2.2:8080"))
    assert "can't be reached from outside" in stops(await walked("outside", HERE))
    assert "this node's rules don't know it" in stops(
        await walked("outside", "192.0.2.1:8080", FakeKernel(ports={}))
    )
    local = stops(await walked("outside", "192.0.2.1:8080", FakeKernel(ports={8080: ()})))
    assert "shoal.publish.policy" in (await walked("outside", "web:80", FakeKernel(ports={8080: ()}))).advice
    assert "leads to none of its tasks" in local
    assert (await walked("outside", "192.0.2.1:9000")).steps[1].text.endswith("leads to alone, port 80")


async def test_a_task_on_the_same_wire() -> None:
    at = scene()
    (before,) = (each for each in at.records.networks.values() if each.id == "app")
    at.records.apply(DataplaneChanges(networks=(msgspec.structs.replace(before, driver="macvlan"),)))
    found = await walked("client", f"{THERE}:80", FakeKernel(entries={}), at)
    assert found.arrives, found.summary
    assert "on the wire of this node's network app" in found.steps[-2].text


async def test_an_encrypted_network() -> None:
    at = scene()
    (before,) = (each for each in at.records.networks.values() if each.id == "app")
    at.records.apply(DataplaneChanges(networks=(msgspec.structs.replace(before, options={"encrypted": ""}),)))
    found = await walked("client", f"{THERE}:80", FakeKernel(entries={THERE: tunnel_address("node2")}), at)
    assert found.arrives, found.summary
    assert found.steps[-2].text.endswith(f"→ {tunnel_address('node2')}, encrypted, to 192.0.2.2")
    assert "sends it to 192.0.2.2" in stops(await walked("client", f"{THERE}:80", at=at))  # plain: not so


async def test_from_a_task_of_another_node() -> None:
    found = await walked("web.1.t2", "web")
    assert found.arrives
    assert "runs on node node2 (192.0.2.2)" in found.steps[0].text
    assert "as this node's records say" in found.steps[2].text


async def test_a_probe_connects_from_the_source() -> None:
    kernel = FakeKernel()
    found = await walked("client", f"{HERE}:80", kernel, probe=True)
    assert kernel.connected == [(Path("/run/client"), HERE, 80)]
    assert found.steps[-1].stage == "probe"
    kernel.open[81] = {"0.0.0.0"}
    assert "Connection refused" in stops(await walked("client", f"{HERE}:81", kernel, probe=True))


async def test_a_probe_from_outside_is_not_claimed() -> None:
    kernel = FakeKernel()
    found = await walked("outside", "192.0.2.1:9000", kernel, probe=True)
    assert kernel.connected == []
    assert found.arrives
    assert "this node can't try from outside" in found.summary


def test_destinations_are_read() -> None:
    assert parse_target("web") == Target("web")
    assert parse_target("[fd00::1]:80") == Target("fd00::1", 80)
    assert str(parse_target("[fd00::1]:80")) == "[fd00::1]:80"
    assert parse_target("fd00::1").address == "fd00::1"
    assert parse_target("[fd00::1]") == Target("fd00::1")
    for wrong in ("", ":80", "web:", "[fd00::1]:"):
        with pytest.raises(InvalidNetwork, match="write NAME"):
            parse_target(wrong)
    for port in ("0", "http", "65536", "70000", "-1", "9" * 5000, "٣"):
        for host in ("web", "[fd00::1]", "192.0.2.1"):
            with pytest.raises(InvalidNetwork, match="from 1 to 65535"):
                parse_target(f"{host}:{port}")
    for wrong in ("[fd00::1", "[fd00::1]80", "[web]:80", "fd00::zz:80", "fd00::1]:80"):
        with pytest.raises(InvalidNetwork, match=r"\[ADDRESS\]:PORT"):
            parse_target(wrong)


async def test_listeners_are_those_of_the_address_family() -> None:
    at = with_ipv6(scene())
    six = f"[{six_of(HERE)}]:80"
    assert "only at 0.0.0.0, not at" in stops(await walked("client", six, FakeKernel(), at))
    assert (await walked("client", six, FakeKernel(open={80: {"::"}}), at)).arrives
    assert "only at ::" in stops(await walked("client", f"{HERE}:80", FakeKernel(open={80: {"::"}}), at))
    untold = await walked("client", six, FakeKernel(open={80: None}), at)
    assert untold.arrives
    assert "this kernel does not tell" in untold.summary


async def test_a_name_that_has_ipv6_alone() -> None:
    at = with_ipv6(scene())
    six = socket.inet_pton(socket.AF_INET6, six_of(HERE))
    zone = replace(at.zone_of("app"), names={}, names6={b"six": (six,)})
    found = await walked(
        "client", "six:80", FakeKernel(open={80: {"::"}}), replace(at, zone_of=lambda _: zone)
    )
    assert found.arrives, found.summary
    assert f"six → {six_of(HERE)}" in found.steps[1].text


async def test_a_published_port_by_ipv6() -> None:
    kernel = FakeKernel(ports6={8080: ("fd00:9::a09:a",)}, open={80: {"::", "0.0.0.0"}})
    found = await walked("outside", "[2001:db8::1]:8080", kernel, with_ipv6(scene()))
    assert found.arrives, found.summary
    told = "\n".join(step.text for step in found.steps)
    assert "here to fd00:9::a09:a" in told
    assert "10.9.0.10" not in told
    assert "by IPv4 only" in stops(await walked("outside", "[2001:db8::1]:8080", kernel))
    flushed = await walked("outside", "[2001:db8::1]:8080", FakeKernel(), with_ipv6(scene()))
    assert "nft list table ip6 shoal" in flushed.advice


async def test_what_a_node_elsewhere_knows_is_not_claimed() -> None:
    at, kernel = with_ipv6(scene()), FakeKernel(open={80: {"::"}})
    far = six_of(THERE)
    found = await walked("client", f"[{far}]:80", kernel, at)
    assert found.arrives
    assert f"`shoal network trace host [{far}]:80`" in found.steps[-1].text
    assert "Nothing in the way" not in found.summary
    assert "not checked: whether port 80 is listened on" in found.summary
    assert "Nothing in the way" in (await walked("client", f"{HERE}:80")).summary
    for source, target in (("client", HERE), ("client", "203.0.113.1:80"), ("host", "203.0.113.1:80")):
        looked = await walked(source, target)
        assert looked.arrives
        assert "as far as this node could look" in looked.summary


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("alone", [0, 1])
async def test_an_ipv6_socket_takes_ipv4_unless_it_says_otherwise(kind: int, alone: int) -> None:
    with socket.socket(socket.AF_INET6, kind) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, alone)
        sock.bind(("::", 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()

        async def at_connect(network_id: str, address: str) -> None:
            return None

        protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
        found = await SystemKernel(at_connect).listening(None, protocol, sock.getsockname()[1])
        assert found == ({"::"} if alone else {"::", "0.0.0.0"})


def test_what_the_kernel_prints() -> None:
    text = "elements = { 10.0.1.2 . 0x00000000 : 10.0.1.10, 10.0.1.2 . 0x00000001 : 10.0.1.11,\n"
    text += "110.0.1.2 . 0x00000000 : 10.0.1.12 }"
    assert slots(text, VIP) == (HERE, THERE)
    chain = "dnat ip to numgen inc mod 2 map { 0 : 10.9.0.10 . 80, 1 : 10.9.0.11 . 80 }\ndnat to 10.9.0.10:80"
    assert destinations(f"ip daddr != {{ 192.0.2.1 }} return\n{chain}") == ("10.9.0.10", "10.9.0.11")
    six = "dnat ip6 to numgen inc mod 2 map { 0 : fd00::a . 80, 1 : fd00::b . 80 }\ndnat to [fd00::a]:80"
    assert destinations(six) == ("fd00::a", "fd00::b")
    table = (
        "  sl  local_address rem_address   st\n"
        "   0: 0100007F:0050 00000000:0000 0A\n"
        "   1: 00000000000000000000000000000000:0050 0:0 0A\n"
        "   2: 00000000:0051 00000000:0000 01\n"
    )
    assert listeners(table, 80, "0A") == {"127.0.0.1", "::"}
    assert listeners(table, 81, "0A") == set()
    mapped = "sl\n 0: 0000000000000000FFFF00000100007F:0050 0:0 0A\n"
    assert listeners(mapped, 80, "0A") == {"127.0.0.1"}
    ends = " ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS\n e s 2 10 29 80 0 7 *10.0.1.10 10.0.2.10 \n"
    assert associations(ends, 80) == {"10.0.1.10", "10.0.2.10"}
    assert associations(ends, 81) == set()
