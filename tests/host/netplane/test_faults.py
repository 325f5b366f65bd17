"""A kernel that refuses at any step, a daemon killed at any moment, two daemons, storms: nothing is left."""

import json
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import msgspec
import pytest

from cluster.dataplane import DataplaneChanges, EndpointRecord, NetworkRecord, PeerRecord, ServiceRecord
from cluster.objects import Subnet
from cluster.spec import NetworkSpec
from netplane.model import Attachment, SandboxSpec
from tests.host.netplane.test_cluster import APP, INGRESS, Cluster
from tests.support.network_lab import Host, Lab, PlaneError

pytestmark = pytest.mark.host

LEFT = r"""
ip -o link | cut -d' ' -f2 | sort; ip address | grep inet | grep -v fe80; nft list ruleset
for each in $(ls /sys/class/net); do bridge fdb show dev $each; done | grep -v '^33:33\|^01:00'
ip -4 neigh show nud permanent; ip -6 neigh show nud permanent
ls {directory}/run/netns {directory}/run/sandboxes 2>/dev/null
"""
_COUNTED = re.compile(r"tentative|packets \d+ bytes \d+|# handle \d+|@if\d+|dev veth\w+")
SPEC = SandboxSpec(
    id="box",
    hostname="box",
    attachments=(Attachment(APP, "10.0.1.20/24"), Attachment(INGRESS, "10.0.0.20/24")),
    task_id="t9",
    service_id="web",
)
MORE = NetworkRecord(
    id="more-id",
    name="more",
    driver="overlay",
    subnets=(Subnet(subnet="10.0.2.0/24", gateway="10.0.2.1"),),
    subnets6=(Subnet(subnet="fd00:0:0:1002::/64", gateway="fd00:0:0:1002::1"),),
    vni=4098,
)


def left(host: Host, *sandboxes: str) -> Counter[str]:
    """What of the kernel's state a plane may change, on its host and in sandboxes, as words."""
    found = host.run(LEFT.format(directory=host.directory))
    for netns in sandboxes:
        found += host.run("nft list ruleset; ip neigh; ip route", netns)
    return Counter(re.split(r"[\s,]+", _COUNTED.sub("", found)))


def changed(base: DataplaneChanges) -> DataplaneChanges:
    """Another network, a new peer, a task elsewhere and a service more."""
    return msgspec.structs.replace(
        base,
        networks=(*base.networks, MORE),
        peers=(
            *base.peers,
            PeerRecord(node_id="node3", address="192.0.2.3", addresses={INGRESS: "10.0.0.103/24"}),
        ),
        endpoints=(
            *base.endpoints,
            EndpointRecord(
                network_id=APP,
                task_id="t7",
                task_name="web.7.t7",
                service_id="web",
                node_id="node3",
                address="10.0.1.17/24",
            ),
            EndpointRecord(
                network_id=INGRESS,
                task_id="t7",
                task_name="web.7.t7",
                service_id="web",
                node_id="node3",
                address="10.0.0.17/24",
            ),
        ),
        services=(
            *base.services,
            ServiceRecord(network_id="more-id", service_id="db", name="db", vip="10.0.2.2/24"),
        ),
    )


def attempt(host: Host, verb: str, *arguments: Any) -> bool:
    """Call the plane; False when the kernel refused."""
    try:
        host.call(verb, *arguments)
    except PlaneError as error:
        if "injected" not in str(error) and "No buffer space" not in str(error):
            raise
        return False
    return True


def json_of(value: object) -> str:
    return msgspec.json.encode(value).decode()


def test_a_batch_that_the_kernel_refuses_at_any_step_is_complete_after_the_next_try(lab: Lab) -> None:
    cluster = Cluster(lab, 1)
    (host,) = cluster.hosts
    netns = cluster.task("t1", 1, 10)
    base = msgspec.structs.replace(cluster.base, endpoints=tuple(cluster.endpoints.values()))
    states = [base, changed(base)]
    wanted = []
    for state in states * 2:  # the second time round: how it is between the two
        host.apply(state)
        wanted.append(left(host, netns))
    wanted = wanted[2:]
    assert wanted[0] != wanted[1]
    refused = 0
    for step in count(1):
        reached = False
        for state, there in ((states[0], wanted[0]), (states[1], wanted[1])):
            host.call("fail_at", step)
            attempt(host, "apply", json_of(state))
            fired = host.call("fail_at", 0)
            reached, refused = reached or fired, refused + fired
            host.apply(state)
            assert left(host, netns) == there, f"step {step}"
        if not reached:
            break
    assert refused >= 6, "or it fails nowhere"


def test_a_sandbox_that_the_kernel_refuses_at_any_step_leaves_nothing(lab: Lab) -> None:
    cluster = Cluster(lab, 1)
    (host,) = cluster.hosts
    cluster.task("t1", 1, 10)
    host.create(SPEC)
    host.call("remove", SPEC.id)
    empty = left(host)
    refused = 0
    for step in count(1):
        host.call("fail_at", step)
        made = attempt(host, "create", json_of(SPEC))
        reached = host.call("fail_at", 0)
        refused += not made
        if not made:
            assert left(host) == empty, f"making it, step {step}"
            host.create(SPEC)
        host.call("fail_at", step)
        attempt(host, "remove", SPEC.id)
        reached |= host.call("fail_at", 0)
        host.call("remove", SPEC.id)
        assert left(host) == empty, f"removing it, step {step}"
        if not reached:
            break
    assert refused >= 3, "or it fails nowhere"


def test_a_daemon_that_is_killed_while_it_plugs_a_sandbox_leaves_nothing(lab: Lab) -> None:
    cluster = Cluster(lab, 1)
    (host,) = cluster.hosts
    host.create(SPEC)
    host.call("remove", SPEC.id)
    empty = left(host)
    for milliseconds in (1, 2, 3, 5, 8, 13):
        assert host._plane is not None
        assert host._plane.stdin is not None
        host._plane.stdin.write(json.dumps(["create", json_of(SPEC)]).encode() + b"\n")
        host._plane.stdin.flush()
        time.sleep(milliseconds / 1000)
        host.kill_plane()
        host.start_plane()
        host.call("join", "node1", host.address, 4789)
        host.apply(cluster.base)
        survived = SPEC.id in host.call("sandboxes")
        host.create(SPEC)
        host.call("remove", SPEC.id)
        assert left(host) == empty, f"killed after {milliseconds} ms, survived: {survived}"


def test_a_network_that_the_kernel_refuses_keeps_nothing_else_back(lab: Lab) -> None:
    """Neither balancers nor other networks; its own tasks hear why, until the kernel lets it be."""
    cluster = Cluster(lab, 1)
    (host,) = cluster.hosts
    cluster.task("t1", 1, 10)
    cluster.task("t2", 1, 11)
    gone = msgspec.structs.replace(cluster.endpoints[f"t2/{APP}"], serving=False)
    other = msgspec.structs.replace(
        MORE,
        id="other-id",
        name="other",
        subnets=(Subnet(subnet="10.0.3.0/24", gateway="10.0.3.1"),),
        subnets6=(),
        vni=4099,
    )
    # Somebody else's tunnel has the identifier: the kernel takes no second one.
    taken = f"ip link add theirs type vxlan id {MORE.vni} dstport 4789 local {host.address}"
    host.run(taken)
    host.apply(DataplaneChanges(networks=(MORE, other), endpoints=(gone,)))
    assert {answer.split()[0] for answer in cluster.ask("t1", "10.0.1.2", count=6)} == {"t1"}

    def create(network: NetworkRecord, address: str) -> None:
        attachment = Attachment(network.id, address)
        host.create(
            SandboxSpec(id=network.name, hostname="box", attachments=(attachment,), task_id=network.name)
        )

    create(other, "10.0.3.5/24")
    with pytest.raises(PlaneError, match=r"network more can't be made on this node: .*VXLAN.*exists"):
        create(MORE, "10.0.2.5/24")
    host.apply(DataplaneChanges(removed_networks=(MORE.id,)))
    assert "10.0.2.1" not in host.run("ip address"), "nothing of it is left"
    host.apply(DataplaneChanges(networks=(MORE,)))
    host.run("ip link del theirs")
    create(MORE, "10.0.2.5/24")


def test_connections_through_a_services_address_choose_again_when_a_task_vanished(lab: Lab) -> None:
    """The client's second attempt, a second after its first, reaches a task that is there."""
    cluster = Cluster(lab, 2)
    netns = cluster.task("t1", 1, 10)
    client = cluster.task("client", 2, 30, service="other")
    cluster.hosts[0].run("for i in eth0 eth1; do ip link set $i down; done", netns)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(cluster.ask, "client", "10.0.1.2")
        waiting = "conntrack -L -p tcp --dport 80 2>/dev/null"
        while "UNREPLIED" not in cluster.hosts[1].run(waiting, client):
            assert not answer.done(), answer.result()
        cluster.task("t2", 2, 11)
        cluster.serving("t1", serving=False)
        assert answer.result()[0].startswith("t2 ")


def test_a_second_daemon_in_the_same_network_namespace_refuses_and_disturbs_nothing(lab: Lab) -> None:
    cluster = Cluster(lab, 1)
    (host,) = cluster.hosts
    cluster.task("t1", 1, 10)
    before = left(host)
    other = Host.__new__(Host)
    other.__dict__.update(host.__dict__, directory=host.directory / "other", name="other")
    with pytest.raises(PlaneError, match="another shoald runs in this network namespace") as refused:
        other.start_plane()
    assert refused.value.kind == "NamespaceTaken"
    assert left(host) == before
    assert cluster.ask("t1", "10.0.1.10")[0].startswith("t1 ")
    host.kill_plane()
    host.start_plane()


def test_sandboxes_and_networks_come_and_go_and_nothing_is_left(lab: Lab) -> None:
    cluster = Cluster(lab, 1)
    (host,) = cluster.hosts
    bridge = NetworkSpec(name="mine")

    def storms(sandboxes: int, networks: int) -> None:
        host.call("storm", json_of(SPEC), sandboxes)
        host.call("network_storm", json_of(bridge), networks)

    def overlays(times: int) -> None:
        for number in range(times):
            more = msgspec.structs.replace(MORE, id=f"more-{number}", vni=5000 + number % 50)
            host.apply(DataplaneChanges(networks=(more,)))
            host.apply(DataplaneChanges(removed_networks=(more.id,)))

    storms(20, 5)
    overlays(5)
    before, held = left(host), host.call("census")
    storms(120, 20)
    overlays(20)
    assert left(host) == before
    now = host.call("census")
    assert now["files"] == held["files"]
    assert now["objects"] < held["objects"] + 100, "less than one object a cycle"
    assert int(host.run("cat /proc/sys/net/netfilter/nf_conntrack_count")) < 50
