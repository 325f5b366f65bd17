"""Traces in networks that are a wire outside: macvlan and ipvlan."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from cluster.dataplane import DataplaneChanges, NetworkRecord, PeerRecord
from cluster.spec import NetworkSpec
from netplane.drivers import parents
from netplane.links import Link
from netplane.model import Attachment, Interface, LocalNetwork, Sandbox, SandboxRecord, SandboxSpec
from netplane.trace.model import Scene
from tests.unit.netplane.test_trace import FORWARD, FakeKernel, endpoint, scene, stops, walked


def box(name: str, address: str, address6: str) -> SandboxRecord:
    interface = Interface(
        "mm", "eth0", 11, "", 1500, address, 24, "", gateway="198.51.100.1", kind="macvlan",
        address6=address6, prefix6=64, gateway6="2001:db8:5::1",
    )  # fmt: skip
    spec = SandboxSpec(f"{name}-id", attachments=(Attachment("mm", names=(name,)),))
    return SandboxRecord(spec, Sandbox(f"{name}-id", Path(f"/run/{name}")), (interface,), dns_port=4242)


def wire(driver: str = "macvlan", parent: str = "eth7", **options: str) -> Scene:
    """Two containers, mm1 and mm2, on the wire of a device of this node."""
    network = LocalNetwork(
        "mm", "mmnet", driver, 0, NetworkSpec("mmnet", driver=driver, options=options), "198.51.100.0/24",
        "198.51.100.1", "2001:db8:5::/64", "2001:db8:5::1", parent=parent,
    )  # fmt: skip
    boxes = (box("mm1", "198.51.100.10", "2001:db8:5::a"), box("mm2", "198.51.100.11", "2001:db8:5::b"))
    before = scene(firewalls=(FORWARD,))
    return replace(before, local={"mm": network}, sandboxes={each.sandbox.id: each for each in boxes})


class WireKernel(FakeKernel):
    """The host has an address on the wire, and one elsewhere."""

    async def addresses(self) -> set[str]:
        return {"198.51.100.5", "192.0.2.1", "127.0.0.1"}


def kernel(*, up: bool = True, parent: str = "eth7") -> WireKernel:
    return WireKernel(up={parent: Link(7, parent, "", 1500, up=up)}, open={81: {"0.0.0.0", "::"}})


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
@pytest.mark.parametrize("address", ["198.51.100.11", "[2001:db8:5::b]"])
async def test_a_neighbour_on_the_same_wire(driver: str, address: str) -> None:
    found = await walked("mm1", f"{address}:81", kernel(), wire(driver))
    assert found.arrives, found.summary
    assert "Nothing in the way" in found.summary
    assert [step.stage for step in found.steps] == ["source", "way", "way", "arrival"]
    assert "is mm2 on this node, on the wire of eth7: a neighbour" in found.steps[2].text
    assert "nothing listens on port 82/tcp in mm2" in stops(
        await walked("mm1", f"{address}:82", kernel(), wire(driver))
    )


async def test_modes_that_keep_neighbours_apart() -> None:
    for at in (wire(macvlan_mode="private"), wire("ipvlan", ipvlan_flag="private")):
        assert "in mode private" in stops(await walked("mm1", "198.51.100.11:81", kernel(), at))
    found = await walked("mm1", "198.51.100.11:81", kernel(), wire(macvlan_mode="vepa"))
    assert found.arrives
    assert "not checked: whether the switch outside sends back" in found.summary
    itself = await walked("mm1", "198.51.100.10:81", kernel(), wire(macvlan_mode="private"))
    assert itself.arrives, itself.summary


async def test_a_parent_that_is_down_or_gone() -> None:
    assert "eth7, which network mmnet is on, is down" in stops(
        await walked("mm1", "198.51.100.11:81", kernel(up=False), wire())
    )
    assert "is gone" in stops(await walked("mm1", "198.51.100.11:81", kernel(parent="eth8"), wire()))


async def test_the_host_and_its_own_wire() -> None:
    to_host = stops(await walked("mm1", "198.51.100.5:22", kernel(), wire()))
    assert "198.51.100.5 is this node itself" in to_host
    assert "carries nothing between macvlan links and the host" in to_host
    from_host = stops(await walked("host", "198.51.100.11:81", kernel(), wire("ipvlan")))
    assert "carries nothing between ipvlan links and the host" in from_host
    around = await walked("mm1", "192.0.2.1:8080", kernel(), wire())
    assert any("whether the wire's router leads from eth0 to 192.0.2.1" in each.text for each in around.steps)


async def test_what_is_outside_of_what_is_known() -> None:
    for address, said in (
        ("198.51.100.77", "whether anything has 198.51.100.77 on the wire of eth7"),
        ("198.51.100.1", "198.51.100.1 is the router of network mmnet"),
        ("203.0.113.9", "203.0.113.9 is outside: eth0 → this node's eth7 → router 198.51.100.1 of that wire"),
    ):
        found = await walked("mm1", address, kernel(), wire())
        assert found.arrives  # what this host's firewall forwards does not matter here
        assert said in found.steps[-1].text
        assert "Nothing in the way" not in found.summary
        assert "outside what Shoal knows" in found.summary
    own = parents.own_device("mm")
    nobody = await walked("mm1", "198.51.100.77", kernel(parent=own), wire(parent=own))
    assert "has no wire outside" in stops(nobody)


async def test_from_outside_a_container_on_the_wire_is_reached_by_its_own_address() -> None:
    found = await walked("outside", "198.51.100.11:81", kernel(), wire())
    assert found.arrives, found.summary
    assert found.steps[-1].text == "mm2 listens on port 81/tcp"


async def test_the_wire_is_the_hosts_too() -> None:
    """What is not a container of this node is reached over it as over any device."""
    at = wire()
    at = replace(at, sandboxes={**at.sandboxes, **scene().sandboxes}, firewalls=())
    for source in ("host", "client"):
        found = await walked(source, "198.51.100.77:80", kernel(), at)
        assert found.arrives, found.summary
        assert "outside what Shoal knows" in found.summary
    assert "networks don't reach each other" in stops(
        await walked("client", "198.51.100.11:81", kernel(), at)
    )
    published = await walked("outside", "198.51.100.5:9000", kernel(), at)
    assert "leads to alone, port 80" in published.steps[1].text
    assert "is no address of this node" in stops(await walked("outside", "198.51.100.77:80", kernel(), at))
    at.records.apply(DataplaneChanges(peers=(PeerRecord("node2", "198.51.100.6"),)))
    assert "is node node2, not this one" in stops(await walked("outside", "198.51.100.6:80", kernel(), at))
    assert (
        "198.51.100.6 is node node2" in (await walked("mm1", "198.51.100.6:80", kernel(), at)).steps[-1].text
    )


async def test_a_task_of_another_node_on_the_wire() -> None:
    at = wire()
    far = msgspec.structs.replace(endpoint("t9", "node2", "198.51.100.20"), network_id="mm")
    record = NetworkRecord("mm", "mmnet", "macvlan", ())
    at.records.apply(DataplaneChanges(networks=(record,), endpoints=(far,)))
    found = await walked("mm1", "198.51.100.20:81", kernel(), at)
    assert found.arrives, found.summary
    assert "on the wire of this node's network mmnet" in found.steps[-2].text
    assert "`shoal network trace web.1.t9 198.51.100.20:81`" in found.steps[-1].text
