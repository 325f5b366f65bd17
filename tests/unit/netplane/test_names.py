"""Zones that are kept in parts are what they would be if put together from nothing; what a sandbox sees."""

import ipaddress
import socket
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.dataplane import (
    DataplaneChanges,
    EndpointRecord,
    NetworkRecord,
    PeerRecord,
    Protocol,
    PublishedPort,
    ServiceRecord,
)
from cluster.objects import Subnet
from netplane.model import Interface, Sandbox, SandboxRecord, SandboxSpec, Segment
from netplane.names import Names, servers_of
from netplane.records import ClusterRecords

NETWORKS = ("app", "ing")


def names_of(records: ClusterRecords, withdrawn: Iterable[str]) -> Names:
    return Names(records, {}, lambda network_id: network_id, set(withdrawn))


def full() -> DataplaneChanges:
    return DataplaneChanges(
        full=True,
        networks=tuple(
            NetworkRecord(
                id,
                id,
                "overlay",
                (Subnet(f"10.{n}.0.0/16", f"10.{n}.0.1"),),
                subnets6=(Subnet(f"fd00:{n}::/64"),) if n else (),
                ingress=id == "ing",
            )
            for n, id in enumerate(NETWORKS)
        ),
        peers=(PeerRecord("a", "192.0.2.1"), PeerRecord("b", "192.0.2.2")),
    )


@st.composite
def batches(draw: st.DrawFn) -> DataplaneChanges:
    network = draw(st.sampled_from(NETWORKS))
    number = draw(st.integers(1, 4))
    service = draw(st.sampled_from(["s1", "s2", ""]))
    flag = draw(st.booleans())
    match draw(st.sampled_from(["endpoint", "no endpoint", "service", "no service", "silent", "network"])):
        case "endpoint":
            address = f"10.{NETWORKS.index(network)}.1.{number}/16"
            aliases = ("alias",) if number == 3 else ()
            return DataplaneChanges(
                endpoints=(
                    EndpointRecord(
                        network,
                        f"t{number}",
                        f"n.{number}",
                        service,
                        "ab"[number % 2],
                        address,
                        aliases,
                        flag,
                    ),
                )
            )
        case "no endpoint":
            return DataplaneChanges(removed_endpoints=((network, f"t{number}"),))
        case "service":
            port = PublishedPort(Protocol.TCP, 8000 + number, 80, name="http")
            owner = service or "s1"
            vip = f"10.{NETWORKS.index(network)}.0.{number + 10 * int(owner[1])}/16" if flag else ""
            ports = (port,) if network == "ing" and number > 1 else ()
            return DataplaneChanges(
                services=(ServiceRecord(network, owner, f"web-{owner}", vip=vip, ports=ports),)
            )
        case "no service":
            return DataplaneChanges(removed_services=((network, service or "s1"),))
        case "silent":
            return DataplaneChanges(peers=(PeerRecord("b", "192.0.2.2", silent=flag),))
        case _:
            subnets6 = (Subnet("fd00:9::/64"),) if flag else ()
            return DataplaneChanges(
                networks=(
                    NetworkRecord("app", "app", "overlay", (Subnet("10.0.0.0/16", "10.0.0.1"),), subnets6),
                )
            )


@settings(max_examples=40)
@given(st.lists(st.tuples(batches(), st.sets(st.sampled_from(["t1", "t2"]))), max_size=12))
def test_zones_in_parts(steps: list[tuple[DataplaneChanges, set[str]]]) -> None:
    records = ClusterRecords()
    withdrawn: set[str] = set()
    names = Names(records, {}, lambda network_id: network_id, withdrawn)
    for changes, taken in [(full(), set[str]()), *steps]:
        touched = records.apply(changes)
        moved = withdrawn ^ taken
        withdrawn.clear()
        withdrawn.update(taken)
        touched.add_services(records.services_of(moved))
        names.forget(touched.networks, touched)
        for network in NETWORKS:
            assert comparable(names, network) == comparable(names_of(records, withdrawn), network)


def comparable(names: Names, network: str) -> tuple[object, ...]:
    """A zone without the order of its addresses, which means nothing."""
    zone = names.zone(network)
    return (
        {name: sorted(listed) for name, listed in zone.names.items()},
        {name: sorted(listed) for name, listed in zone.names6.items()},
        zone.services,
        zone.pointers,
    )


def sandbox(*upstreams: str, gateway: str = "", network: str = "app") -> SandboxRecord:
    interface = Interface(network, "eth0", 11, "p", 1450, "10.0.1.2", 16, "", gateway=gateway)
    return SandboxRecord(SandboxSpec("box"), Sandbox("box", Path("/run/box")), (interface,), 42, upstreams)


def test_whom_a_sandbox_may_ask() -> None:
    servers = ("192.0.2.1", "10.0.9.9", "fe80::1%eth0", "nonsense")
    assert servers_of(sandbox(*servers, gateway="10.0.0.1")) == servers
    assert servers_of(sandbox(*servers)) == ("10.0.9.9",)  # nothing leads out: only its neighbours
    sight = names_of(ClusterRecords(), ()).sight(sandbox(*servers, gateway="10.0.0.1"))
    assert sight.inside
    assert sight.networks == ("app",)
    assert not names_of(ClusterRecords(), ()).sight(sandbox("192.0.2.1", gateway="10.0.0.1")).inside


async def test_servers_in_networks_of_others_are_not_asked(caplog: pytest.LogCaptureFixture) -> None:
    records = ClusterRecords()
    records.apply(full())
    bridge = Segment("local", "br", 7, 1500, ipaddress.IPv4Network("172.18.0.0/16"), "172.18.0.1")
    names = Names(records, {}, lambda network_id: network_id, (), lambda: [bridge])
    make_socket = names.sight(sandbox("10.1.0.9", gateway="10.0.0.1")).make_socket
    for server in ("10.1.0.9", "10.1.0.9", "fd00:1::9", "172.18.0.9"):
        with pytest.raises(OSError, match="not in"):
            await make_socket(server, socket.AF_INET, socket.SOCK_DGRAM)
    assert len(caplog.records) == 3, "said once of each"
    assert "name server 172.18.0.9 of container box is not asked: it is in network local" in caplog.text
    for server in ("172.18.0.1", "192.0.2.53"):  # the host itself; the world
        (await make_socket(server, socket.AF_INET, socket.SOCK_DGRAM)).close()
