"""The allocator over a store: what each object is given, keeps, loses and waits for."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from msgspec.structs import replace

from cluster.errors import InvalidArgument
from cluster.objects import Cluster, Network, Node, NodeStatus, Service, Subnet, Task
from cluster.spec import IPAM, EndpointSpec, IPAMConfig, NetworkAttachmentConfig, NetworkSpec
from cluster.states import TaskState
from manager.allocator import check_conflicts
from manager.allocator.resting import REST
from manager.store import Transaction
from tests.fakes.clock import settle
from tests.unit.allocator.world import World, network, port, running_world, service, task

_VNI = "com.docker.network.driver.overlay.vxlanid_list"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as world:
        yield world


async def test_a_new_cluster_gets_ingress_and_the_predefined_networks(world: World) -> None:
    ingress = world.network("ingress")
    assert ingress.spec.ingress
    assert (ingress.subnets[0].subnet, ingress.subnets[0].gateway, ingress.vni) == (
        "10.0.0.0/24",
        "10.0.0.1",
        4096,
    )
    predefined = {one.spec.name: one for one in world.store.view().all(Network) if one.predefined}
    assert {name: one.driver for name, one in predefined.items()} == {
        "bridge": "bridge",
        "host": "host",
        "none": "null",
    }
    assert not any(one.subnets or one.vni for one in predefined.values())


async def test_a_removed_ingress_network_stays_removed(world: World) -> None:
    await world.create(Node(id="n1"))
    assert world.node("n1").attachments
    await world.delete(Network, world.network("ingress").id)
    assert world.network("ingress") is None
    assert world.node("n1").attachments == {}
    published = service("s", ports=[port(80, 8080)])
    await world.create(published, task("t", published))
    assert "the ingress network was removed" in world.task("t").status.error
    await world.create(network("mesh", ingress=True))
    assert world.task("t").status.state is TaskState.PENDING
    assert list(world.node("n1").attachments) == ["mesh"]


async def test_networks_are_numbered_in_turn_and_numbers_are_free_again(world: World) -> None:
    await world.create(network("a"), network("b"), network("own", subnet="10.0.3.0/24"), network("c"))
    found = {name: (world.network(name).subnets[0].subnet, world.network(name).vni) for name in "abc"}
    assert found == {"a": ("10.0.1.0/24", 4097), "b": ("10.0.2.0/24", 4098), "c": ("10.0.4.0/24", 4100)}
    await world.delete(Network, "a")
    await world.create(network("d"))
    assert (world.network("d").subnets[0].subnet, world.network("d").vni) == ("10.0.5.0/24", 4097)
    await world.clock.advance(REST)
    await world.create(network("e"))
    assert world.network("e").subnets[0].subnet == "10.0.1.0/24"


async def test_no_chosen_subnet_contains_a_nodes_address(world: World) -> None:
    await world.create(Node(id="n1", status=NodeStatus(address="10.0.1.9"), data_path_address="10.0.2.9"))
    await world.create(network("a"))
    assert world.network("a").subnets[0].subnet == "10.0.3.0/24"


async def test_a_network_with_ipv6_gets_a_subnet_of_the_clusters(world: World) -> None:
    six = IPAM(config=[IPAMConfig(subnet="fd00:1::/80", gateway="fd00:1::a0a:a02")])
    four = IPAM(config=[IPAMConfig(subnet="10.10.10.0/24")])
    both = IPAM(config=[*four.config, *six.config])
    spec = NetworkSpec(name="own", driver="overlay", enable_ipv6=True, ipam=both)
    web = service("s", "web", "own")
    await world.create(
        network("a", enable_ipv6=True), network("b"), Network(id="own", spec=spec), web, task("t", web)
    )
    found = {name: [each.subnet for each in world.network(name).subnets6] for name in ("ingress", "a", "b")}
    prefix = found["ingress"][0].removesuffix("1000::/64")
    assert prefix.startswith("fd")
    assert found == {"ingress": [f"{prefix}1000::/64"], "a": [f"{prefix}1001::/64"], "b": []}
    assert world.network("a").subnets6[0].gateway == f"{prefix}1001::1"
    # An IPv4 address whose IPv6 address is the gateway's is not given.
    assert world.network("own").subnets6 == (Subnet(subnet="fd00:1::/80", gateway="fd00:1::a0a:a02"),)
    assert world.vips("s") == {"own": "10.10.10.3/24"}
    assert world.addresses("t") == {"own": "10.10.10.4/24"}


async def test_an_ipv6_subnet_overlaps_no_other() -> None:
    """Not even a user's network that took the place of the next one, nor one 65,536 networks on."""
    async with running_world() as world:
        await world.create(network("a", enable_ipv6=True))
        taken = world.network("a").subnets6[0].subnet.replace("1001::", "1002::")
        ipam = IPAM(config=[IPAMConfig(subnet=taken)])
        spec = NetworkSpec(name="own", driver="overlay", enable_ipv6=True, ipam=ipam, options={_VNI: "5000"})
        await world.create(
            Network(id="own", spec=spec),
            network("next", enable_ipv6=True),
            network("far", enable_ipv6=True, options={_VNI: str((1 << 16) + 0x1001)}),
            network("same", enable_ipv6=True, options={_VNI: "4200"}),
        )
        found = [world.network(name).subnets6[0].subnet for name in ("a", "own", "next", "far", "same")]
        assert [each.removeprefix(taken.removesuffix("1002::/64")) for each in found] == [
            "1001::/64",
            "1002::/64",
            "1003::/64",
            "1004::/64",
            "1068::/64",
        ]


async def test_a_cluster_whose_kernel_has_no_ipv6() -> None:
    async with running_world(ipv6=False) as world:
        assert world.network("ingress").subnets6 == ()
        assert world.network("ingress").spec.enable_ipv6 is False


async def test_several_subnets_are_used_one_after_the_other(world: World) -> None:
    """And what is still held in a removed network is not given in another that has its subnet."""
    configs = [IPAMConfig(subnet=f"10.9.{number}.0/30") for number in range(3)]
    spec = NetworkSpec(name="net", driver="overlay", ipam=IPAM(config=configs))
    web = service("s", "web", "net", mode="dnsrr")
    await world.create(Network(id="old", spec=spec), web, *(task(f"t{n}", web, n) for n in range(4)))
    given = [world.addresses(f"t{n}")["net"] for n in range(3)]
    assert given == ["10.9.0.2/30", "10.9.1.2/30", "10.9.2.2/30"]
    assert "all 3 of 10.9.0.0/30, 10.9.1.0/30, 10.9.2.0/30 are in use" in world.task("t3").status.error
    await world.end("t1")
    await world.clock.advance(REST)
    assert world.addresses("t3") == {"net": "10.9.1.2/30"}
    await world.delete(Network, "old")  # as when a stack is removed and deployed again
    await world.create(Network(id="new", spec=spec), task("t4", web))
    assert world.task("t4").status.state is TaskState.NEW
    await world.end("t0")
    await world.clock.advance(REST)
    assert world.addresses("t4") == {"net": "10.9.0.2/30"}


async def test_a_users_settings_are_kept(world: World) -> None:
    config = IPAMConfig(
        subnet="172.20.0.0/16",
        ip_range="172.20.5.0/30",
        gateway="172.20.0.9",
        auxiliary_addresses={"x": "172.20.5.1"},
    )
    spec = NetworkSpec(
        name="own",
        ipam=IPAM(config=[config]),
        options={"com.docker.network.driver.overlay.vxlanid_list": "5000"},
    )
    web = service("s", "web", "own")
    await world.create(Network(id="own", spec=spec), web, task("t", web))
    own = world.network("own")
    assert own.subnets[0].gateway == "172.20.0.9"
    assert own.vni == 5000
    assert world.vips("s") == {"own": "172.20.5.0/16"}
    assert world.addresses("t") == {"own": "172.20.5.2/16"}


async def test_every_node_has_an_ingress_address(world: World) -> None:
    await world.create(Node(id="n1"), Node(id="n2"))
    ingress = world.network("ingress").id
    assert world.node("n1").attachments == {ingress: "10.0.0.2/24"}
    assert world.node("n2").attachments == {ingress: "10.0.0.3/24"}
    await world.delete(Node, "n1")
    await world.create(Node(id="n3"))
    assert world.node("n3").attachments == {ingress: "10.0.0.4/24"}


async def test_a_service_in_a_network_and_its_tasks(world: World) -> None:
    web = service("s", "web", "net", ports=[port(80, 8080)])
    await world.create(network("net"), web, task("t1", web, 1), task("t2", web, 2))
    assert world.vips("s") == {"ingress": "10.0.0.2/24", "net": "10.0.1.2/24"}
    assert world.service("s").endpoint.spec == web.spec.endpoint_spec
    assert world.addresses("t1") == {"ingress": "10.0.0.3/24", "net": "10.0.1.3/24"}
    assert world.addresses("t2") == {"ingress": "10.0.0.4/24", "net": "10.0.1.4/24"}
    first = world.task("t1")
    assert first.status.state is TaskState.PENDING
    assert first.status.message == "pending task scheduling"
    assert first.networks[1].aliases == ("alias",)
    assert first.endpoint == world.service("s").endpoint


async def test_a_service_without_networks_needs_no_address(world: World) -> None:
    plain = service("s")
    await world.create(plain, task("t", plain))
    assert world.task("t").networks == ()
    assert world.task("t").status.state is TaskState.PENDING
    assert world.service("s").endpoint.virtual_ips == ()


@pytest.mark.parametrize("name", ["bridge", "host", "none"])
async def test_predefined_networks_by_name(world: World, name: str) -> None:
    plain = service("s", "web", name)
    await world.create(plain, task("t", plain))
    assert world.addresses("t") == {name: ""}
    assert world.vips("s") == {}


async def test_dnsrr_has_no_virtual_address(world: World) -> None:
    web = service("s", "web", "net", mode="dnsrr")
    await world.create(network("net"), web, task("t", web))
    assert world.vips("s") == {"net": ""}
    assert world.addresses("t") == {"net": "10.0.1.2/24"}


async def test_networks_of_the_service_spec_serve_old_clients(world: World) -> None:
    old = Service(id="s", spec=replace(service("s").spec, networks=[NetworkAttachmentConfig(target="net")]))
    await world.create(network("net"), old, task("t", old))
    assert world.vips("s") == {"net": "10.0.1.2/24"}
    assert world.addresses("t") == {"net": "10.0.1.3/24"}


async def test_virtual_addresses_survive_updates_and_follow_the_networks(world: World) -> None:
    web = service("s", "web", "a", ports=[port(80)])
    await world.create(network("a"), network("b"), web)
    before = world.vips("s")
    assert world.service("s").endpoint.ports[0].published_port == 30000
    both = service("s", "web", "a", "b", ports=[port(80), port(443)])
    await world.change(Service, "s", spec=both.spec)
    assert world.vips("s") == {**before, "b": "10.0.2.2/24"}
    assert [one.published_port for one in world.service("s").endpoint.ports] == [30000, 30001]
    one_port = service("s", "web", "a", "b", ports=[port(443)])
    await world.change(Service, "s", spec=one_port.spec)
    assert [one.published_port for one in world.service("s").endpoint.ports] == [30001]
    only_b = service("s", "web", "b")
    await world.change(Service, "s", spec=only_b.spec)
    assert world.vips("s") == {"b": "10.0.2.2/24"}
    assert world.service("s").endpoint.ports == ()


async def test_ports_are_chosen_per_protocol_and_free_again(world: World) -> None:
    await world.create(
        service("a", ports=[port(80), port(53, protocol="udp"), port(81, 30001)]),
        service("b", ports=[port(80)]),
    )
    assert [one.published_port for one in world.service("a").endpoint.ports] == [30000, 30000, 30001]
    assert [one.published_port for one in world.service("b").endpoint.ports] == [30002]
    await world.delete(Service, "a")
    await world.create(service("c", ports=[port(80)]))
    assert [one.published_port for one in world.service("c").endpoint.ports] == [30000]


async def test_host_mode_ports_are_the_nodes_own(world: World) -> None:
    web = service("s", ports=[port(80, mode="host"), port(81, 8081, mode="host")])
    await world.create(web, task("t", web))
    assert [one.published_port for one in world.service("s").endpoint.ports] == [0, 8081]
    assert world.task("t").networks == ()


async def test_a_taken_port_is_explained_and_taken_over_when_it_is_free(world: World) -> None:
    second = service("second", "two", ports=[port(80, 8080)])
    await world.create(service("first", "one", ports=[port(80, 8080)]), second, task("t", second))
    waiting = world.task("t")
    assert waiting.status.state is TaskState.NEW
    assert waiting.status.error == "port '8080' is already in use by service 'one' (first) as an ingress port"
    assert world.service("second").endpoint is None
    entries = len(world.proposer.entries)
    await settle()
    assert len(world.proposer.entries) == entries
    await world.delete(Service, "first")
    assert world.task("t").status.state is TaskState.PENDING
    assert world.task("t").status.error == ""


@pytest.mark.parametrize(
    ("taken", "wanted", "message"),
    [
        (
            port(80, 8080),
            port(81, 8080),
            "port '8080' is already in use by service 'one' (a) as an ingress port",
        ),
        (
            port(80, 8080),
            port(81, 8080, mode="host"),
            "port '8080' is already in use by service 'one' (a) as an ingress port",
        ),
        (
            port(80, 8080, mode="host"),
            port(81, 8080),
            "port '8080' is already in use by service 'one' (a) as a host-published port",
        ),
        (port(80, 8080, mode="host"), port(81, 8080, mode="host"), ""),
        (port(80, 8080), port(81, 8080, protocol="udp"), ""),
        (port(80), port(81, 30000), "port '30000' is already in use by service 'one' (a) as an ingress port"),
    ],
)
async def test_conflicts_as_the_api_checks_them(
    world: World, taken: object, wanted: object, message: str
) -> None:
    await world.create(service("a", "one", ports=[taken]))
    spec = EndpointSpec(ports=[wanted])
    check_conflicts(world.store.view(), spec, "a")
    if not message:
        check_conflicts(world.store.view(), spec)
        return
    with pytest.raises(InvalidArgument) as refused:
        check_conflicts(world.store.view(), spec)
    assert str(refused.value) == message


async def test_an_overlap_that_the_api_missed_is_explained(world: World) -> None:
    web = service("s", "web", "b")
    await world.create(
        network("a", subnet="10.5.0.0/24"), network("b", subnet="10.5.0.0/16"), web, task("t", web)
    )
    assert world.task("t").status.error == (
        "network b has no subnet yet: its subnet 10.5.0.0/16 overlaps 10.5.0.0/24"
    )
    await world.delete(Network, "a")
    assert world.addresses("t") == {"b": "10.5.0.3/16"}


@pytest.mark.parametrize("wanted", ["0", "16777216", "9" * 5000, "\u00b2"])
async def test_an_identifier_that_is_none_stops_nobody_else(world: World, wanted: str) -> None:
    spec = NetworkSpec(name="odd", options={_VNI: wanted})
    await world.create(Network(id="odd", spec=spec), network("next"))
    assert not world.network("odd").subnets
    assert world.network("next").subnets


async def test_a_network_that_does_not_exist_yet(world: World) -> None:
    web = service("s", "web", "later")
    await world.create(web, task("t", web))
    assert world.task("t").status.error == "network later not found"
    await world.create(network("id", "later"))
    assert world.addresses("t") == {"later": "10.0.1.3/24"}


async def test_a_full_network_is_explained_and_used_again_when_something_is_free(world: World) -> None:
    web, other = service("s", "web", "small"), service("o", "other", "small", mode="dnsrr")
    await world.create(network("small", subnet="10.9.0.0/29"), web, other)
    await world.create(*(task(f"t{number}", web, number) for number in range(4)))
    await world.create(*(task(f"t{number}", other, number) for number in (4, 5)))
    states = [world.task(f"t{number}").status.state for number in range(6)]
    assert states == [TaskState.PENDING] * 4 + [TaskState.NEW] * 2
    assert world.task("t5").status.error == (
        "network small has no free address: all 5 of 10.9.0.0/29 are in use; remove or scale down what is in "
        "it, or use a network with a larger subnet"
    )
    await world.end("t1")
    assert "are in use, or were until 30 s ago" in world.task("t4").status.error
    await world.clock.advance(REST)
    assert world.addresses("t4") == {"small": world.addresses("t1")["small"]}
    assert world.task("t5").status.state is TaskState.NEW
    await world.delete(Task, "t0")
    await world.clock.advance(REST - 1)
    assert world.task("t5").status.state is TaskState.NEW
    await world.clock.advance(1)
    assert world.task("t5").status.state is TaskState.PENDING


async def test_a_service_that_fails_again_and_again_uses_up_no_network(world: World) -> None:
    """Its tasks get addresses of their predecessors when others become few; others have theirs at once."""
    crashing, other = service("s", "crashing", "small"), service("o", "other", "small")
    await world.create(network("small", subnet="10.9.0.0/28"), crashing)
    seen = set()
    for number in range(100):
        await world.create(task(f"t{number}", crashing))
        assert world.task(f"t{number}").status.state is TaskState.PENDING
        seen.add(world.addresses(f"t{number}")["small"])
        await world.end(f"t{number}")
    assert len(seen) == 10  # of 13; one is its virtual address
    await world.create(other, task("a", other, 1))
    assert world.addresses("a")["small"] not in seen


async def test_an_address_rests_also_for_a_new_leader_and_in_a_new_network(world: World) -> None:
    web, other = (service(id, id, "small", mode="dnsrr") for id in ("web", "other"))
    await world.create(network("small", subnet="10.9.0.0/30"), web, other, task("t1", web))
    assert world.addresses("t1") == {"small": "10.9.0.2/30"}
    await world.end("t1")
    successor = World()
    successor.store.restore(world.store.view().index, world.store.snapshot())
    running = asyncio.ensure_future(successor.allocator.run())
    await successor.create(task("t2", other))
    assert "were until 30 s ago" in successor.task("t2").status.error
    await successor.clock.advance(REST)
    assert successor.addresses("t2") == {"small": "10.9.0.2/30"}
    # In another network with the subnet they rest, too; but for tasks of the same service.
    await successor.end("t2")
    await successor.delete(Network, "small")
    await successor.create(network("small", subnet="10.9.0.0/30"), task("t3", web))
    assert "were until 30 s ago" in successor.task("t3").status.error
    await successor.create(task("t4", other))
    assert successor.addresses("t4") == {"small": "10.9.0.2/30"}
    await successor.end("t4")
    await successor.clock.advance(REST)
    assert successor.addresses("t3") == {"small": "10.9.0.2/30"}
    running.cancel()


async def test_an_exhausted_address_pool_is_explained() -> None:
    cluster = Cluster(id="c", default_address_pool=("10.0.0.0/23",))
    async with running_world(cluster) as world:
        web = service("s", "web", "b")
        await world.create(network("a"), network("b"), web, task("t", web))
        assert world.task("t").status.error == (
            "network b has no subnet yet: no subnet of size /24 is left in the address pool "
            "10.0.0.0/23; remove a network or give a subnet"
        )
        await world.delete(Network, "a")
        assert world.task("t").status.state is TaskState.PENDING


async def test_a_freed_address_is_not_reused_at_once_nor_by_a_new_leader(world: World) -> None:
    web = service("s", "web", "net")
    await world.create(network("net"), web, task("t1", web))
    assert world.addresses("t1") == {"net": "10.0.1.3/24"}
    await world.end("t1")
    await world.create(task("t2", web))
    assert world.addresses("t2") == {"net": "10.0.1.4/24"}
    await world.end("t2")
    successor = World()
    successor.store.restore(world.store.view().index, world.store.snapshot())
    running = asyncio.ensure_future(successor.allocator.run())
    await successor.create(task("t3", web))
    assert successor.addresses("t3") == {"net": "10.0.1.5/24"}
    running.cancel()


async def test_a_hundred_tasks_take_one_entry(world: World) -> None:
    web = service("s", "web", "net", ports=[port(80, 8080)])
    await world.create(network("net"), web)
    entries = len(world.proposer.entries)
    await world.create(*(task(f"t{number}", web, number) for number in range(100)))
    assert len(world.proposer.entries) == entries + 2
    assert len({world.addresses(f"t{number}")["net"] for number in range(100)}) == 100


async def test_tasks_nobody_wants_are_left_alone(world: World) -> None:
    web = service("s", "web", "net")
    unwanted = replace(task("t", web), desired_state=TaskState.SHUTDOWN)
    await world.create(network("net"), web, unwanted, task("orphan", service("gone")))
    assert world.task("t").networks == ()
    assert world.task("orphan").status.state is TaskState.NEW


async def overtaken(world: World, created: list[object], other: Callable[[Transaction], None]) -> None:
    """Create these while the allocator runs, and commit `other` before what it decides then."""
    world.proposer.hold()
    creation = asyncio.ensure_future(world.create(*created))
    await settle()
    world.proposer.release()
    world.proposer.hold()
    await settle()
    change = asyncio.ensure_future(world.store.update(other))
    await settle()
    assert world.proposer.held == 2
    world.proposer.release(lambda numbers: numbers[::-1])
    await asyncio.gather(creation, change)


async def test_a_service_updated_meanwhile_gets_what_its_new_spec_asks_for(world: World) -> None:
    await world.create(network("a"), network("b"))
    wanted = service("s", "web", "b", ports=[port(80, 8080)])
    _, watch = world.store.watch(Service)
    await overtaken(
        world,
        [service("s", "web", "a")],
        lambda tx: tx.update(replace(tx.get(Service, "s"), spec=wanted.spec)),
    )
    assert world.vips("s") == {"ingress": "10.0.0.2/24", "b": "10.0.2.2/24"}
    states = [event.new for events in watch.pending() for event in events]
    assert len(states) == 3
    assert [one.endpoint.spec for one in states if one.endpoint] == [wanted.spec.endpoint_spec]


async def test_a_task_stopped_meanwhile_gets_no_address(world: World) -> None:
    web = service("s", "web", "net")
    await world.create(network("net"), web)
    await overtaken(
        world,
        [task("t", web)],
        lambda tx: tx.update(replace(tx.get(Task, "t"), desired_state=TaskState.REMOVE)),
    )
    assert world.task("t").networks == ()
    assert world.task("t").status.state is TaskState.NEW
    assert world.consistent()


async def test_an_object_deleted_meanwhile_holds_nothing(world: World) -> None:
    web = service("s", "web", "net")
    await world.create(network("net"), web)
    await overtaken(world, [task("t", web)], lambda tx: tx.delete(Task, "t"))
    assert world.task("t") is None
    assert world.consistent()
