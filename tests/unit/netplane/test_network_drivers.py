"""What drivers decide before they touch the kernel, and what follows from it."""

import ipaddress

import pytest

from cluster.errors import Forbidden, NotFound
from cluster.spec import IPAM, IPAMConfig, NetworkSpec
from netplane import gateway_modes, host_rules
from netplane.bridge_options import read_mtu, read_options
from netplane.drivers import DRIVERS, PluginNotFound, chosen
from netplane.drivers.addressing import mac_of, pools
from netplane.drivers.children import IpvlanNetworks, MacvlanNetworks, most
from netplane.drivers.parents import _users, _vlan, mtu_of, own_device
from netplane.errors import AddressUnavailable, InvalidNetwork
from netplane.links import Link
from netplane.model import HostPort, Interface, LocalNetwork, Segment, way_out, way_out6
from netplane.planning import check_apart

MODE = "com.docker.network.bridge.gateway_mode_ipv"


def segment(id: str, subnet: str, **fields: object) -> Segment:
    return Segment(id, f"br-{id}", 1, 1500, ipaddress.IPv4Network(subnet), "", **fields)  # type: ignore[arg-type]


def interface(id: str = "n", **fields: object) -> Interface:
    base = {
        "device": "eth0",
        "index": 11,
        "port": "shv0",
        "mtu": 1500,
        "prefix": 24,
        "mac": "02:42:0a:00:00:02",
    }
    return Interface(network_id=id, **{"address": "10.0.0.2", **base, **fields})  # type: ignore[arg-type]


def network(**options: str) -> LocalNetwork:
    ipam = IPAM(config=[IPAMConfig(subnet="10.0.0.0/24", auxiliary_addresses={"a": "10.0.0.2"})])
    spec = NetworkSpec(name="n", ipam=ipam, options=options)
    return LocalNetwork("id", "n", "macvlan", 0, spec, subnet="10.0.0.0/24", gateway="10.0.0.1")


def test_drivers_are_found_by_name() -> None:
    assert set(DRIVERS) == {"bridge", "host", "ipvlan", "macvlan", "null", "overlay"}
    assert chosen("") == "bridge"
    for name, error in (("host", Forbidden), ("null", Forbidden), ("nosuch", PluginNotFound)):
        with pytest.raises(error):
            chosen(name)
    assert PluginNotFound("x").status == NotFound.status


def test_modes_of_links_on_a_device() -> None:
    parent = Link(7, "eth0", "", 1500, "aa:bb:cc:dd:ee:ff")
    macvlan, ipvlan = MacvlanNetworks(), IpvlanNetworks()
    assert [macvlan._child({"macvlan_mode": each}, parent).mode for each in ("", "private", "vepa")] == [
        4,
        1,
        2,
    ]
    assert macvlan._child({}, parent).mac == ""
    assert macvlan._child({"macvlan_mode": "passthru"}, parent).mac == parent.mac
    for mode, number, routed in (("", 0, False), ("l2", 0, False), ("l3", 1, True), ("l3s", 2, True)):
        found = ipvlan._child({"ipvlan_mode": mode, "ipvlan_flag": "vepa"}, parent)
        assert (found.mode, found.routed, found.flags, found.mac) == (number, routed, 2, parent.mac)
    for driver, options in (
        (macvlan, {"macvlan_mode": "source"}),
        (ipvlan, {"ipvlan_mode": "l4"}),
        (ipvlan, {"ipvlan_flag": "x"}),
    ):
        with pytest.raises(InvalidNetwork, match="is not valid"):
            driver._child(options, None)


def test_parents_that_are_offered_are_the_users() -> None:
    own = ("lo", "shoal0", "shs3f8a1e4", "sho1", "shx1", "shv1", "shb1", "shp1", own_device("n"))
    assert [name for name in (*own, "eth0", "wlan0", "docker0") if _users(name)] == [
        "eth0",
        "wlan0",
        "docker0",
    ]


def test_parents_that_are_vlans() -> None:
    assert _vlan("eth0") is None
    assert _vlan("eth0.50") == ("eth0", 50)
    assert _vlan("bond0.10.7") == ("bond0.10", 7)
    for wrong in ("eth0.0", "eth0.4095", "a-long-device.100"):
        with pytest.raises(InvalidNetwork):
            _vlan(wrong)
    assert len(own_device("x")) == 13


def test_mtu_of_links_on_a_device() -> None:
    parent = Link(7, "eth0", "", 1400)
    assert mtu_of(0, parent, ipv6=True) == 1400
    assert mtu_of(1300, parent, ipv6=True) == 1300
    for mtu, ipv6, words in ((1401, False, "more than that of the parent"), (1279, True, "IPv6 needs 1280")):
        with pytest.raises(InvalidNetwork, match=words):
            mtu_of(mtu, parent, ipv6=ipv6)
    assert read_mtu({}) == 0


def test_passthru_has_one_place() -> None:
    assert most(network()) == 0
    whole = network(macvlan_mode="passthru")
    pool, pool6 = pools(whole, most(whole))
    assert pool6 is None
    assert pool is not None
    first = pool.allocate()
    assert first == "10.0.0.3"  # gateway and auxiliary address are taken
    for wanted in ("", "10.0.0.9"):
        with pytest.raises(AddressUnavailable, match="takes no more containers"):
            pool.allocate(wanted)
    pool.release(first)
    assert pool.allocate("10.0.0.9") == "10.0.0.9"


def test_macs_follow_from_addresses() -> None:
    assert mac_of("10.0.0.2/24", "fd00::2") == "02:42:0a:00:00:02"
    six = mac_of("", "fd00::2")
    assert six.startswith("02:42:")
    assert six == mac_of("", "fd00:0::2") != mac_of("", "fd00::3")


def test_subnets_on_two_links() -> None:
    one = segment("one", "10.0.0.0/24", subnet6=ipaddress.IPv6Network("fd00::/64"))
    check_apart([one, one, segment("two", "10.0.1.0/24")])
    for other in (
        segment("two", "10.0.0.128/25"),
        segment("two", "10.0.1.0/24", subnet6=ipaddress.IPv6Network("fd00::/56")),
    ):
        with pytest.raises(InvalidNetwork, match="can be in one of them only"):
            check_apart([one, other])


def test_the_way_out_may_need_no_gateway() -> None:
    plain, routed = interface(), interface("r", routed=True, address6="fd00::2")
    assert way_out([plain]) is None
    assert way_out([plain, routed]) is routed
    assert way_out6([plain, routed]) is routed
    assert way_out([interface("six", routed=True, address="")]) is None


def test_gateway_modes() -> None:
    options = read_options({f"{MODE}4": "routed", f"{MODE}6": "nat-unprotected"}, internal=False)
    assert (options.gateway_mode, options.gateway_mode6) == ("routed", "nat-unprotected")
    six = ipaddress.IPv6Network("fd00::/64")
    held = host_rules.networks(
        [segment("a", "10.0.0.0/24", subnet6=six, gateway_mode="routed", gateway_mode6="nat-unprotected")]
    ).elements
    assert held["ip", "routed"] == held["ip6", "unprotected"] == {'"br-a"': ""}
    assert held["ip6", "routed"] == held["ip", "unprotected"] == {}
    assert held["ip", "masqueraded"] == {}
    assert list(held["ip6", "masqueraded"]) == ["fd00::/64"]


def test_ports_of_routed_networks_are_open_at_the_containers_address() -> None:
    direct = interface(gateway="10.0.0.1", direct=True, address6="fd00::2", gateway6="fd00::1")
    ports = [HostPort("tcp", 8080, 80), HostPort("tcp", 8081, 80), HostPort("udp", 53, 53)]  # type: ignore[arg-type]
    assert gateway_modes.open_ports("add", [direct], ports) == (
        "add element ip shoal routed_ports { 10.0.0.2 . tcp . 80 }\n"
        "add element ip shoal routed_ports { 10.0.0.2 . udp . 53 }\n"
    )
    assert gateway_modes.translated([direct], "10.0.0.2", "fd00::2") == ("", "fd00::2")
    assert not gateway_modes.without_host_ports(direct)
    assert gateway_modes.without_host_ports(interface(direct=True))
    assert gateway_modes.open_ports("add", [interface(gateway="10.0.0.1")], ports) == ""
