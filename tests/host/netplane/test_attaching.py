"""Sandboxes that change their networks while they live, on a real kernel."""

import msgspec
import pytest

from cluster.dataplane import Protocol
from cluster.spec import NetworkSpec
from netplane.ends import port_name
from netplane.model import Attachment, HostPort, SandboxSpec
from tests.support.network_lab import Host, Lab, PlaneError

pytestmark = pytest.mark.host


def network(host: Host, name: str, **fields: object) -> str:
    spec = NetworkSpec(name=name, driver="bridge", **fields)  # type: ignore[arg-type]
    made: dict[str, str] = host.call("create_network", msgspec.json.encode(spec).decode())
    return made["id"]


def attach(host: Host, sandbox: str, to: str, **fields: object) -> dict[str, dict[str, str]]:
    attachment = Attachment(to, **fields)  # type: ignore[arg-type]
    found: dict[str, dict[str, str]] = host.call("attach", sandbox, msgspec.json.encode(attachment).decode())
    return found


def test_coming_and_going_leaves_nothing(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    ids = [network(host, name, enable_ipv6=name == "six") for name in ("one", "six")]
    ports = (HostPort(Protocol.TCP, 8080, 80),)
    host.create(SandboxSpec(id="c1", hostname="c1", attachments=(Attachment("bridge"),), host_ports=ports))
    before = host.links(), host.run("nft list ruleset"), host.run("ip neigh")
    for _ in range(3):
        for id in ids:
            attach(host, "c1", id, aliases=("x",))
        for id in ids:
            host.call("detach", "c1", id)
    assert (host.links(), host.run("nft list ruleset"), host.run("ip neigh")) == before
    with pytest.raises(PlaneError, match="is not connected"):
        host.call("detach", "c1", ids[0])
    host.call("remove", "c1")
    for id in ids:
        host.call("remove_network", id)
    assert not any(name.startswith(("shv", "shb")) for name in host.links())


def test_a_failure_leaves_the_sandbox_as_it_was(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    user = network(host, "user")
    sandbox = host.create(SandboxSpec(id="c1", hostname="c1", attachments=(Attachment("bridge"),)))
    before = host.links(), host.run("ip route", sandbox["netns"])
    host.run(f"ip link add {port_name('c1', 1)} type bridge")  # in the way of the second veth
    with pytest.raises(PlaneError, match="File exists"):
        attach(host, "c1", user, address="172.18.0.77")
    host.run(f"ip link del {port_name('c1', 1)} || true")
    assert (host.links(), host.run("ip route", sandbox["netns"])) == before
    assert attach(host, "c1", user, address="172.18.0.77")["addresses"][user] == "172.18.0.77/16"
    with pytest.raises(PlaneError, match="already exists"):
        attach(host, "c1", user)


def test_what_was_attached_is_there_after_a_restart(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    outside = lab.namespace()
    lab.plug(outside, "192.0.2.9/24")
    user = network(host, "user", enable_ipv6=True)
    ports = (HostPort(Protocol.TCP, 8080, 80),)
    sandbox = host.create(
        SandboxSpec(id="c1", hostname="c1", attachments=(Attachment("bridge"),), host_ports=ports)
    )
    host.create(SandboxSpec(id="c2", hostname="c2", attachments=(Attachment(user, names=("two",)),)))
    attached = attach(host, "c1", user, names=("one",), links=("two:friend",))
    bridge = next(id for id in attached["addresses"] if id != user)
    host.call("detach", "c1", bridge)
    lab.serve(host.pid, "c1", sandbox["netns"])
    host.kill_plane()
    host.start_plane()
    assert list(host.call("sandboxes")["c1"]["addresses"]) == [user]
    for name in ("two", "friend", "two.user"):
        asked = lab.peer(host.pid, "resolve", name, "A", "udp", netns=sandbox["netns"])
        assert asked["records"] == ["172.18.0.2"], name
    assert lab.peer(host.pid, "resolve", "two", "AAAA", "udp", netns=sandbox["netns"])["records"]
    (answer,) = lab.peer(outside, "ask", "192.0.2.1", 8080, 1, "tcp", 0)
    assert answer.startswith("c1 ")
    taken = attached["addresses"][user].partition("/")[0]
    with pytest.raises(PlaneError, match="in use"):
        attach(host, "c2", "bridge", address="172.17.0.1")
    other = {"id": "c3", "attachments": [{"network_id": user, "address": taken}]}
    with pytest.raises(PlaneError, match="in use"):
        host.call("create", msgspec.json.encode(other).decode())
