"""Whatever users and tasks do: no two hold one address, nothing leaks, the state follows from the view."""

import asyncio
from ipaddress import IPv4Address, ip_network
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.objects import ContainerAttachment, Network, Node, Service, Task, TaskStatus
from cluster.seams import SECOND
from cluster.states import TaskState
from manager.allocator import Allocations
from manager.allocator.claims import ADDRESS, claims
from manager.allocator.resting import REST
from tests.unit.allocator.world import World, network, port, running_world, service, task

NETWORKS = ["small", "net", "bridge", "missing"]
WANTED = ["", "", "10.9.0.3", "10.9.0.1", "10.77.0.1"]
ports_lists = st.lists(
    st.builds(
        port,
        st.just(80),
        st.sampled_from([0, 0, 8080, 30000]),
        st.sampled_from(["ingress", "ingress", "host"]),
        st.sampled_from(["tcp", "udp"]),
    ),
    max_size=2,
    unique_by=lambda one: (one.protocol, one.published_port),
)
services = st.builds(
    lambda number, networks, ports, mode: service(
        f"s{number}", "", *networks, ports=None if mode == "dnsrr" else ports or None, mode=mode
    ),
    st.integers(0, 3),
    st.lists(st.sampled_from(NETWORKS), max_size=2, unique=True),
    ports_lists,
    st.sampled_from(["", "vip", "dnsrr"]),
)
steps = st.one_of(
    st.tuples(st.just("service"), services),
    st.tuples(st.just("delete service"), st.integers(0, 3)),
    st.tuples(st.just("task"), st.tuples(st.integers(0, 14), st.integers(0, 3))),
    st.tuples(st.just("end task"), st.integers(0, 14)),
    st.tuples(st.just("delete task"), st.integers(0, 14)),
    st.tuples(st.just("node"), st.integers(0, 3)),
    st.tuples(st.just("delete node"), st.integers(0, 3)),
    st.tuples(st.just("network"), st.sampled_from(["missing", "extra"])),
    st.tuples(st.just("delete network"), st.just("extra")),
    st.tuples(st.just("attach"), st.tuples(st.integers(0, 3), st.integers(0, 9), st.sampled_from(WANTED))),
    st.tuples(st.just("wait"), st.sampled_from([1, 10, 29, 30])),
    st.tuples(st.just("detach"), st.tuples(st.integers(0, 3), st.integers(0, 9))),
)


async def do(world: World, what: str, argument: object) -> None:
    view = world.store.view()
    match what, argument:
        case "service", Service() as wanted:
            if view.get(Service, wanted.id) is None:
                await world.create(wanted)
            else:
                await world.change(Service, wanted.id, spec=wanted.spec)
        case "task", (number, of):
            owner = view.get(Service, f"s{of}")
            if owner is not None and view.get(Task, f"t{number}") is None:
                await world.create(task(f"t{number}", owner))
        case "end task", number:
            ended = view.get(Task, f"t{number}")
            if ended is not None:
                await world.change(
                    Task, ended.id, status=replace(ended.status, state=TaskState.FAILED), desired_state=576
                )
        case "node", number:
            if view.get(Node, f"n{number}") is None:
                await world.create(Node(id=f"n{number}"))
        case "attach", (number, container, wanted):
            node = view.get(Node, f"n{number}")
            if node is not None and all(each.container_id != f"c{container}" for each in node.containers):
                place = ContainerAttachment(container_id=f"c{container}", network_id="small", wanted=wanted)
                await world.change(Node, node.id, containers=(*node.containers, place))
        case "detach", (number, container):
            node = view.get(Node, f"n{number}")
            if node is not None:
                left = tuple(each for each in node.containers if each.container_id != f"c{container}")
                await world.change(Node, node.id, containers=left)
        case "network", name:
            if view.by_name(Network, name) is None:
                await world.create(network(name, enable_ipv6=name == "extra"))
        case "wait", seconds:
            await world.clock.advance(seconds * SECOND)
        case _:
            cls, id = {
                "delete service": (Service, f"s{argument}"),
                "delete task": (Task, f"t{argument}"),
                "delete node": (Node, f"n{argument}"),
                "delete network": (Network, str(argument)),
            }[what]
            if view.get(cls, id) is not None:
                await world.delete(cls, id)


Given = dict[int, tuple[str, int]]
"""Address → who had it last, and until when at least."""


def check(world: World, given: Given) -> None:
    view = world.store.view()
    holders: dict[object, str] = {}
    wanted = {
        f"{node.id}/{each.wanted}" for node in view.all(Node) for each in node.containers if each.wanted
    }
    for cls in (Network, Node, Service, Task):
        for obj in view.all(cls):
            for claim in claims(obj):
                assert claim not in holders, f"{claim} is held by {holders[claim]} and {obj.id}"
                holders[claim] = obj.id
                what, _, number = claim
                if what == ADDRESS:
                    address = str(IPv4Address(number))
                    holder = f"tasks of {obj.service_id}" if isinstance(obj, Task) else obj.id
                    last, until = given.get(number, (holder, 0))
                    rested = last == holder or until + REST <= world.clock.monotonic()
                    assert rested or f"{obj.id}/{address}" in wanted, f"{address} did not rest"
                    given[number] = holder, world.clock.monotonic()
    subnets = [ip_network(each.subnet) for one in view.all(Network) for each in (*one.subnets, *one.subnets6)]
    for one, other in combinations(subnets, 2):
        assert one.version != other.version or not one.overlaps(other)
    for waiting in view.all(Task):
        if waiting.status.state is TaskState.NEW and view.get(Service, waiting.service_id) is not None:
            assert waiting.status.error, f"{waiting.id} waits without a word"
    for node in view.all(Node):
        assert node.attachments
        for container in node.containers:
            assert bool(container.address) != bool(container.error), container
            assert not container.address or container.wanted in ("", container.address.partition("/")[0])
    assert world.allocator._state == Allocations.of(view)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=40))
def test_churn(sequence: list[tuple[str, object]]) -> None:
    async def run() -> None:
        async with running_world() as world:
            small = network("small", subnet="10.9.0.0/29", enable_ipv6=True)
            await world.create(small, network("net"))
            given: Given = {}
            for what, argument in sequence:
                await do(world, what, argument)
                check(world, given)
            for cls in (Task, Service, Node):
                for obj in list(world.store.view().all(cls)):
                    await world.delete(cls, obj.id)
            held = [claim for claim in world.allocator._state._claims.values()]
            assert all(what == "vni" for one in held for what, _, _ in one), "something leaked"

    asyncio.run(run())


def test_a_restarted_allocator_finishes_what_was_left() -> None:
    async def run() -> None:
        world = World()
        web = service("s", "web", "net", ports=[port(80, 8080)])
        async with running_world() as first:
            await first.create(network("net"), web, task("t1", web))
            chunks = list(first.store.snapshot())
            index = first.store.view().index
        world.store.restore(index, iter(chunks))
        await world.create(task("t2", web), replace(task("t3", web), status=TaskStatus(state=TaskState.NEW)))
        running = asyncio.ensure_future(world.allocator.run())
        await world.create(Node(id="n"))
        addresses = [world.addresses(id)["net"] for id in ("t1", "t2", "t3")]
        assert addresses == ["10.0.1.3/24", "10.0.1.4/24", "10.0.1.5/24"]
        check(world, {})
        running.cancel()

    asyncio.run(run())
