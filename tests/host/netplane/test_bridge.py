"""The default bridge and users' bridges on a real kernel."""

import json

import msgspec
import pytest

from cluster.dataplane import Protocol
from cluster.spec import NetworkSpec
from netplane.ends import port_name
from netplane.model import DNS, Attachment, HostPort, Mode, SandboxSpec
from tests.support.network_lab import Lab, PlaneError, await_file

pytestmark = pytest.mark.host


def spec(sandbox_id: str, *networks: str, **options: object) -> SandboxSpec:
    attachments = tuple(Attachment(network) for network in networks or ("bridge",))
    return SandboxSpec(id=sandbox_id, hostname=sandbox_id, attachments=attachments, **options)  # type: ignore[arg-type]


def test_egress_is_masqueraded(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    outside = lab.namespace()
    lab.plug(outside, "192.0.2.9/24")
    lab.serve(outside, "outside")
    sandbox = host.create(spec("c1"))
    (answer,) = lab.peer(host.pid, "ask", "192.0.2.9", 80, 1, "tcp", 0, netns=sandbox["netns"])
    assert answer.split()[:2] == ["outside", "192.0.2.1"]
    assert list(sandbox["addresses"].values()) == ["172.17.0.2/16"]
    assert "nameserver" in sandbox["resolv_conf"]
    assert "172.17.0.2\tc1" in sandbox["hosts"]


def test_sandboxes_reach_each_other_at_once(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    one, two = host.create(spec("c1")), host.create(spec("c2"))
    lab.serve(host.pid, "two", two["netns"])
    (answer,) = lab.peer(host.pid, "ask", "172.17.0.3", 80, 1, "tcp", 0, netns=one["netns"])
    assert answer.split()[:2] == ["two", "172.17.0.2"]


def test_host_ports_lead_to_the_sandbox(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    outside = lab.namespace()
    lab.plug(outside, "192.0.2.9/24")
    ports = (
        HostPort(Protocol.TCP, 8080, 80),
        HostPort(Protocol.UDP, 8080, 80),
        HostPort(Protocol.TCP, 0, 80),
    )
    sandbox = host.create(spec("c1", host_ports=ports))
    lab.serve(host.pid, "c1", sandbox["netns"])
    chosen = sandbox["ports"][2]["published"]
    for pid, address in ((outside, "192.0.2.1"), (host.pid, "127.0.0.1"), (host.pid, "192.0.2.1")):
        for port, kind in ((8080, "tcp"), (8080, "udp"), (chosen, "tcp")):
            (answer,) = lab.peer(pid, "ask", address, port, 1, kind, 0)
            assert answer.startswith("c1 "), (pid, address, port, kind, answer)
    (seen,) = lab.peer(outside, "ask", "192.0.2.1", 8080, 1, "tcp", 0)
    assert seen.split()[1] == "192.0.2.9"
    # The sandbox itself, through its host's address.
    (hairpin,) = lab.peer(host.pid, "ask", "192.0.2.1", 8080, 1, "tcp", 0, netns=sandbox["netns"])
    assert hairpin.startswith("c1 ")
    with pytest.raises(PlaneError, match="already allocated"):
        host.create(spec("c2", host_ports=ports[:1]))
    assert list(host.call("sandboxes")) == ["c1"]
    host.call("remove", "c1")
    assert lab.peer(outside, "ask", "192.0.2.1", 8080, 1, "tcp", 0) == ["ConnectionRefusedError"]
    assert host.create(spec("c2", host_ports=ports[:1]))["ports"][0]["published"] == 8080


def test_networks_are_apart(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    for name, internal in (("one", False), ("two", True)):
        wanted = NetworkSpec(name=name, driver="bridge", internal=internal)
        host.call("create_network", msgspec.json.encode(wanted).decode())
    default = host.create(spec("c0"))
    one = host.create(spec("c1", "one"))
    two, also_two = host.create(spec("c2", "two")), host.create(spec("c3", "two"))
    addresses = {
        name: next(iter(box["addresses"].values())).partition("/")[0]
        for name, box in (("default", default), ("one", one), ("two", two), ("also", also_two))
    }
    outside = lab.namespace()
    lab.plug(outside, "192.0.2.9/24")
    lab.serve(outside, "outside")
    for name, box in (("default", default), ("one", one), ("also", also_two)):
        lab.serve(host.pid, name, box["netns"])

    def reach(box: dict[str, str], address: str) -> bool:
        (answer,) = lab.peer(host.pid, "ask", address, 80, 1, "tcp", 0, netns=box["netns"])
        return " " in answer

    assert not reach(one, addresses["default"])
    assert not reach(default, addresses["one"])
    assert not reach(two, addresses["one"])
    assert reach(two, addresses["also"])
    assert reach(one, "192.0.2.9")
    assert not reach(two, "192.0.2.9")
    assert lab.peer(host.pid, "resolve", "c3", "A", "udp", netns=two["netns"])["records"] == [
        addresses["also"]
    ]
    with pytest.raises(PlaneError, match="active endpoints"):
        host.call("remove_network", "one")
    host.call("remove", "c1")
    host.call("remove_network", "one")
    assert "one" not in {network["name"] for network in host.call("networks").values()}


def test_none_and_host_modes(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    alone = host.create(SandboxSpec(id="c1", hostname="c1", mode=Mode.NONE))
    assert [each["ifname"] for each in json.loads(host.run("ip -j link", alone["netns"]))] == ["lo"]
    shared = host.create(SandboxSpec(id="c2", hostname="c2", mode=Mode.HOST))
    assert shared["netns"] is None
    host.call("remove", "c1")
    host.call("remove", "c2")
    assert host.call("sandboxes") == {}


def test_many_cycles_leave_nothing(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    host.call("create_network", msgspec.json.encode(NetworkSpec(name="user")).decode())
    before = host.links(), host.run("nft list ruleset"), host.run("ip neigh")
    for batch in range(10):
        specs = [
            spec(f"c{batch}-{number}", "user" if number % 2 else "bridge", host_ports=ports)
            for number in range(20)
            for ports in [(HostPort(Protocol.TCP, 0, 80),)]
        ]
        host.call("create_many", msgspec.json.encode(specs).decode())
        host.call("remove_many", [each.id for each in specs])
    assert (host.links(), host.run("nft list ruleset"), host.run("ip neigh")) == before
    assert not list((host.directory / "run/netns").iterdir())
    assert not list((host.directory / "run/sandboxes").iterdir())
    assert "netns/c" not in host.run("cat /proc/self/mountinfo")


def test_a_failure_in_the_middle_leaves_nothing(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    host.call("create_network", msgspec.json.encode(NetworkSpec(name="user")).decode())
    before = host.links()
    taken = host.create(spec("c1", "bridge", host_ports=(HostPort(Protocol.TCP, 7000, 80),)))
    with_one = host.links()
    with pytest.raises(PlaneError, match="7000"):
        host.create(spec("c2", "bridge", "user", host_ports=(HostPort(Protocol.TCP, 7000, 80),)))
    # The kernel refuses the second veth: a link of that name is in the way.
    host.run(f"ip link add {port_name('c2', 1)} type bridge")
    with pytest.raises(PlaneError, match="File exists"):
        host.create(spec("c2", "bridge", "user"))
    assert host.links() == with_one
    assert host.run(f"ls {host.directory}/run/netns").split() == ["c1"]
    # Every address but c1's was given back.
    host.call(
        "create", json.dumps({"id": "c3", "attachments": [{"network_id": "bridge", "address": "172.17.0.3"}]})
    )
    host.call("remove", "c3")
    host.call("remove", taken["id"])
    assert host.links() == before


def test_a_cancelled_creation_leaves_nothing(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    host.call("create_network", msgspec.json.encode(NetworkSpec(name="user")).decode())
    before = host.links(), host.run("nft list ruleset"), host.run("ip neigh")
    wanted = spec("c1", "user", host_ports=(HostPort(Protocol.TCP, 7000, 80),))
    assert host.call("create_cancelled", msgspec.json.encode(wanted).decode()) > 0
    assert (host.links(), host.run("nft list ruleset"), host.run("ip neigh")) == before
    assert not list((host.directory / "run/netns").iterdir())
    assert host.call("sandboxes") == {}
    assert host.create(wanted)["netns"]


def test_other_names_are_asked_of_the_containers_own_servers(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    outside = lab.namespace()
    lab.plug(outside, "192.0.2.9/24")
    lab.serve(outside, "192.0.2.77", verb="name_server")
    host.call("create_network", msgspec.json.encode(NetworkSpec(name="user")).decode())
    good = host.create(spec("c1", "user", dns=DNS(servers=("192.0.2.9",))))
    dead = host.create(spec("c2", "user", dns=DNS(servers=("127.0.0.1",))))
    for over in ("udp", "tcp"):
        answer = lab.peer(host.pid, "resolve", "www.example.com", "A", over, netns=good["netns"])
        assert answer == {"code": "NOERROR", "records": ["192.0.2.77"]}
    answer = lab.peer(host.pid, "resolve", "www.example.com", "A", "udp", netns=dead["netns"])
    assert answer["code"] == "SERVFAIL"


def test_restart_keeps_sandboxes_and_their_traffic(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    outside = lab.namespace()
    lab.plug(outside, "192.0.2.9/24")
    host.call("create_network", msgspec.json.encode(NetworkSpec(name="user")).decode())
    sandbox = host.create(spec("c1", "user", host_ports=(HostPort(Protocol.TCP, 8080, 80),)))
    lab.serve(host.pid, "c1", sandbox["netns"])
    stop = lab.directory / "stop"
    load = lab.begin(outside, "load", "192.0.2.1", 8080, stop)
    hold = lab.begin(outside, "hold", "192.0.2.1", 8080, lab.directory / "stop")
    await_file(lab.directory / "stop.started")
    host.kill_plane()
    host.start_plane()
    assert list(host.call("sandboxes")) == ["c1"]
    assert lab.peer(host.pid, "resolve", "c1", "A", "udp", netns=sandbox["netns"])["code"] == "NOERROR"
    with pytest.raises(PlaneError, match="8080"):
        host.create(spec("c2", host_ports=(HostPort(Protocol.TCP, 8080, 80),)))
    other = host.create(spec("c3", "user"))
    assert other["addresses"] != sandbox["addresses"]
    stop.touch()
    loaded, held = json.loads(load.communicate()[0]), json.loads(hold.communicate()[0])
    assert loaded["bad"] == []
    assert not held["broken"]
    host.call("remove", "c1")
    host.call("remove", "c3")
    assert not any(name.startswith("shv") for name in host.links())
