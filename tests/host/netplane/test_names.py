"""Names on a real kernel: never staler than the node's records, and asked of nobody that is out of reach."""

import ipaddress

import msgspec
import pytest

from cluster.spec import NetworkSpec
from netplane.model import DNS, Attachment, SandboxSpec
from tests.host.netplane.test_cluster import VIP, Cluster, six
from tests.support.network_lab import Lab

pytestmark = pytest.mark.host


def test_names_follow_the_records_at_once(lab: Lab) -> None:
    cluster = Cluster(lab, 1)
    for number in (10, 11, 12):
        cluster.task(f"t{number}", 1, number)
    both = {"10.0.1.10", "10.0.1.11", "10.0.1.12"}
    for serving in (False, True, False, True):  # right after apply has returned
        cluster.serving("t11", serving=serving)
        wanted = sorted(both if serving else both - {"10.0.1.11"})
        assert cluster.resolve("t10", "tasks.web")["records"] == wanted
        assert cluster.resolve("t10", "web.1.t11")["records"] == (["10.0.1.11"] if serving else [])
    assert cluster.resolve("t10", "_80._tcp.web", "SRV") == {
        "code": "NOERROR",
        "records": ["0 0 80 web.app."],
    }
    assert cluster.resolve("t10", "_80._udp.tasks.web.app", "SRV")["records"] == [
        f"0 0 80 web.1.t{number}.app." for number in (10, 11, 12)
    ]
    assert cluster.resolve("t10", "_80._tcp.web", "A") == {"code": "NOERROR", "records": []}
    for address, name in ((VIP, "web.app."), (six(VIP), "web.app."), (six("10.0.1.11"), "web.1.t11.app.")):
        pointer = cluster.resolve("t10", ipaddress.ip_address(address).reverse_pointer, "PTR")
        assert pointer["records"] == [name]
    assert cluster.resolve("t10", "web", "TYPE65") == {"code": "NOERROR", "records": []}


def test_other_servers(lab: Lab) -> None:
    host = lab.host("host1", "192.0.2.1")
    outside = lab.namespace()
    lab.plug(outside, "192.0.2.9/24")
    lab.serve(outside, "192.0.2.77", verb="name_server")
    host.call("create_network", msgspec.json.encode(NetworkSpec(name="open")).decode())
    host.call("create_network", msgspec.json.encode(NetworkSpec(name="closed", internal=True)).decode())
    dns = DNS(servers=("192.0.2.8", "192.0.2.9"))  # nobody is at the first
    for name in ("open", "closed"):
        host.create(SandboxSpec(id=name, attachments=(Attachment(name, names=(name,)),), dns=dns))
    sandboxes = host.call("sandboxes")
    spaces = {name: sandboxes[name]["netns"] for name in ("open", "closed")}
    found = {"code": "NOERROR", "records": ["192.0.2.77"]}

    def ask(space: str, over: str = "udp") -> object:
        return lab.peer(host.pid, "resolve", "www.example.com", "A", over, netns=spaces[space])

    assert ask("open") == found
    assert ask("open", "tcp") == found
    # What its packets can't do, its questions don't do either.
    assert ask("closed") == {"code": "SERVFAIL", "records": []}
    assert lab.peer(host.pid, "resolve", "closed", "A", "udp", netns=spaces["closed"])["records"]
    lab.run(outside, "ip link set eth0 down")
    assert ask("open") == found  # it was told for how long it holds
    # Nobody but the container itself can ask its server.
    listening = host.run("cat /proc/net/udp", spaces["open"]).splitlines()[1:]
    assert listening
    assert all(line.split()[1].startswith("0B00007F:") for line in listening)


def test_servers_behind_walls(lab: Lab) -> None:
    """A name server in a network that the container is not in gets no question, as no other packet of it."""
    host = lab.host("host1", "192.0.2.1")
    for name in ("mine", "tenant"):
        host.call("create_network", msgspec.json.encode(NetworkSpec(name=name)).decode())
    secret = host.create(SandboxSpec(id="secret", attachments=(Attachment("tenant", names=("secret",)),)))
    (address,) = (each.partition("/")[0] for each in secret["addresses"].values())
    lab.serve(host.pid, "192.0.2.77", verb="name_server", netns=secret["netns"])

    def ask(name: str, network: str, server: str) -> object:
        attachment = Attachment(network, names=(name,))
        box = host.create(SandboxSpec(id=name, attachments=(attachment,), dns=DNS(servers=(server,))))
        return lab.peer(host.pid, "resolve", "www.example.com", "A", "udp", netns=box["netns"])

    assert ask("neighbour", "tenant", address) == {"code": "NOERROR", "records": ["192.0.2.77"]}
    assert ask("stranger", "mine", address) == {"code": "SERVFAIL", "records": []}
