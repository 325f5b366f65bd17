"""What users write of local networks: options, subnets, settings taken from others."""

import random

import pytest

from cluster.errors import Forbidden, InvalidArgument, NotFound, ShoalError
from cluster.spec import IPAM, IPAMConfig, NetworkReference, NetworkSpec
from cluster.validate_ipam import check_ipam
from netplane.bridge_options import BridgeOptions, read_options
from netplane.config_networks import check_settings_only, completed
from netplane.model import Attachment, LocalNetwork
from netplane.planning import _sysctls
from netplane.pool import AddressPool, unique_local_subnet
from worker.interface_options import interface_options

BRIDGE = "com.docker.network.bridge."


def test_options_have_dockers_defaults() -> None:
    assert read_options({}, internal=False) == BridgeOptions()
    assert read_options({"some.other": "x"}, internal=False) == BridgeOptions()


def test_options_are_read() -> None:
    options = {
        f"{BRIDGE}name": "br0",
        f"{BRIDGE}enable_icc": "false",
        f"{BRIDGE}enable_ip_masquerade": "0",
        f"{BRIDGE}host_binding_ipv4": "127.0.0.1",
        "com.docker.network.driver.mtu": "9000",
        "com.docker.network.container_iface_prefix": "net",
    }
    assert read_options(options, internal=False) == BridgeOptions(
        device="br0",
        mtu=9000,
        masquerade=False,
        containers_talk=False,
        host_address="127.0.0.1",
        interface_prefix="net",
    )
    assert not read_options({f"{BRIDGE}gateway_mode_ipv4": "isolated"}, internal=True).address_on_bridge
    assert not read_options({f"{BRIDGE}inhibit_ipv4": "true"}, internal=False).address_on_bridge


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        (f"{BRIDGE}enable_icc", "maybe", InvalidArgument),
        (f"{BRIDGE}name", "a-name-that-is-too-long", InvalidArgument),
        (f"{BRIDGE}name", "a b", InvalidArgument),
        (f"{BRIDGE}name", 'a"}', InvalidArgument),
        (f"{BRIDGE}name", "..", InvalidArgument),
        (f"{BRIDGE}host_binding_ipv4", "here", InvalidArgument),
        (f"{BRIDGE}gateway_mode_ipv4", "isolated", InvalidArgument),
        (f"{BRIDGE}gateway_mode_ipv4", "nosuch", InvalidArgument),
        ("com.docker.network.driver.mtu", "many", InvalidArgument),
        ("com.docker.network.driver.mtu", "10", InvalidArgument),
        ("com.docker.network.driver.mtu", "9" * 5000, InvalidArgument),
        ("com.docker.network.container_iface_prefix", "../x", InvalidArgument),
    ],
)
def test_options_that_cannot_be_meant(name: str, value: str, kind: type[ShoalError]) -> None:
    with pytest.raises(kind):
        read_options({name: value}, internal=False)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (IPAMConfig(subnet="10.1.0.1/24"), "it should be 10.1.0.0/24"),
        (IPAMConfig(subnet="10.1.0.0"), "invalid CIDR block notation"),
        (IPAMConfig(subnet="0.0.0.0/0"), "can't have these addresses"),
        (IPAMConfig(subnet="127.0.0.0/8"), "can't have these addresses"),
        (IPAMConfig(subnet="ff00::/8"), "can't have these addresses"),
        (IPAMConfig(subnet="10.1.0.0/31"), "no address for a container"),
        (IPAMConfig(subnet="fd00::/127"), "no address for a container"),
        (IPAMConfig(gateway="10.1.0.1"), "invalid subnet : invalid CIDR block notation"),
        (IPAMConfig(subnet="10.1.0.0/24", ip_range="10.2.0.0/25"), "doesn't contain ip-range"),
        (IPAMConfig(subnet="10.1.0.0/24", ip_range="10.1.0.0/16"), "bigger than its parent subnet"),
        (IPAMConfig(subnet="10.1.0.0/24", gateway="10.2.0.1"), "doesn't contain this address"),
        (IPAMConfig(subnet="10.1.0.0/24", gateway="fd00::1"), "parent subnet is an IPv4 block"),
        (IPAMConfig(subnet="fd00::/64", auxiliary_addresses={"a": "x"}), "address a: invalid address"),
    ],
)
def test_subnets_that_do_not_fit(config: IPAMConfig, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid network config") as raised:
        check_ipam(IPAM(config=[config]), ipv6=True)
    assert complaint in str(raised.value)


def test_subnets_that_fit() -> None:
    four = IPAMConfig(subnet="10.1.0.0/24", ip_range="10.1.0.128/25", gateway="10.1.0.254")
    six = IPAMConfig(subnet="fd00::/64", gateway="fd00::ffff", auxiliary_addresses={"a": "fd00::2"})
    check_ipam(IPAM(config=[four, six, IPAMConfig()]), ipv6=True)
    check_ipam(IPAM(config=[IPAMConfig(subnet="fd00::1/64")]), ipv6=False)  # left out, so not looked at
    with pytest.raises(Forbidden, match="Pool overlaps"):
        check_ipam(IPAM(config=[four, IPAMConfig(subnet="10.1.0.0/16")]), ipv6=False)


def test_ipv6_pools() -> None:
    subnet = unique_local_subnet(random.Random(1))
    assert (subnet.prefixlen, subnet.is_private, str(subnet)[:2]) == (64, True, "fd")
    pool = AddressPool(subnet, reserved=[str(subnet[1])])
    assert pool.allocate() == str(subnet[2])
    assert pool.allocate(str(subnet[77])) == str(subnet[77])


def _holder(spec: NetworkSpec) -> LocalNetwork:
    return LocalNetwork("id", spec.name, "null" if spec.config_only else "bridge", 0, spec)


def test_settings_come_from_another_network() -> None:
    ipam = IPAM(config=[IPAMConfig(subnet="10.1.0.0/24")])
    plan = NetworkSpec(name="plan", config_only=True, ipam=ipam, options={"a": "b"}, labels={"x": "1"})
    made = completed(
        NetworkSpec(name="made", config_from=NetworkReference("plan"), labels={"y": "2"}),
        lambda name: _holder(plan) if name == "plan" else None,
    )
    assert (made.ipam, made.options, made.labels) == (ipam, {"a": "b"}, {"x": "1", "y": "2"})
    assert not made.config_only


def test_settings_that_cannot_be_taken() -> None:
    wanted = NetworkSpec(name="made", config_from=NetworkReference("plan"))
    with pytest.raises(NotFound):
        completed(wanted, lambda _: None)
    with pytest.raises(Forbidden, match="not a configuration network"):
        completed(wanted, lambda _: _holder(NetworkSpec(name="plan")))
    own = NetworkSpec(name="made", config_from=NetworkReference("plan"), options={"a": "b"})
    with pytest.raises(Forbidden, match="user specified configurations"):
        completed(own, lambda _: _holder(NetworkSpec(name="plan", config_only=True)))
    with pytest.raises(Forbidden, match="operator fields"):
        check_settings_only(NetworkSpec(name="plan", config_only=True, internal=True))


def test_options_of_a_place_in_a_network() -> None:
    endpoint = "com.docker.network.endpoint."
    sysctls = "net.ipv4.conf.IFNAME.log_martians=1, net.ipv6.conf.ifname.accept_ra=0"
    options = {f"{endpoint}ifname": "lan0", f"{endpoint}sysctls": sysctls, "other": "x"}
    found = interface_options(options)
    assert found == {
        "device": "lan0",
        "sysctls": (("net.ipv4.conf.IFNAME.log_martians", "1"), ("net.ipv6.conf.ifname.accept_ra", "0")),
    }
    assert [name for name, _ in _sysctls(Attachment("n", **found), "lan0")] == [
        "net/ipv4/conf/lan0/log_martians",
        "net/ipv6/conf/lan0/accept_ra",
    ]
    for wrong in ({f"{endpoint}ifname": "../x"}, {f"{endpoint}sysctls": "net.ipv4.conf.IFNAME.x"}):
        with pytest.raises(InvalidArgument):
            interface_options(wrong)
    for name in ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "net.ipv4.conf.IFNAME.../x"):
        with pytest.raises(InvalidArgument):
            _sysctls(Attachment("n", sysctls=((name, "1"),)), "eth0")
