"""The filters of lists and prunes of local networks."""

import pytest

from cluster.errors import InvalidArgument
from cluster.spec import IPAM, IPAMConfig, NetworkReference, NetworkSpec
from netplane.model import LocalNetwork
from shoal.daemon.network_filters import check_filters, kept, listed
from shoal.daemon.networks_json import network_json

SHOP = LocalNetwork(
    id="abc123",
    name="shop",
    driver="bridge",
    created_at=0,
    spec=NetworkSpec(name="shop", labels={"tier": "gold"}),
    subnet="172.18.0.0/16",
    gateway="172.18.0.1",
    bridge="shb1",
)
BRIDGE = LocalNetwork(
    "def456", "bridge", "bridge", 0, NetworkSpec(name="bridge"), bridge="shoal0", predefined=True
)


@pytest.mark.parametrize(
    ("wanted", "shop", "bridge"),
    [
        ({}, True, True),
        ({"name": ["sho"]}, True, False),
        ({"name": ["^shop$", "nosuch"]}, True, False),
        ({"id": ["abc"]}, True, False),
        ({"id": ["c1", "f4"]}, True, True),
        ({"driver": ["bridge"]}, True, True),
        ({"driver": ["overlay"]}, False, False),
        ({"scope": ["local"]}, True, True),
        ({"scope": ["swarm"]}, False, False),
        ({"type": ["custom"]}, True, False),
        ({"type": ["builtin"]}, False, True),
        ({"label": ["tier"]}, True, False),
        ({"label": ["tier=gold"]}, True, False),
        ({"label": ["tier=tin"]}, False, False),
        ({"dangling": ["true"]}, True, False),
        ({"dangling": ["0"]}, False, True),
        ({"name": ["shop"], "driver": ["host"]}, False, False),
    ],
)
def test_lists(wanted: dict[str, list[str]], shop: bool, bridge: bool) -> None:
    check_filters(wanted)
    assert listed(SHOP, wanted, in_use=False) == shop
    assert listed(BRIDGE, wanted, in_use=False) == bridge


def test_prunes_may_spare_labels() -> None:
    shown = network_json(SHOP)
    assert kept(shown, {"label!": ["owner"]}, in_use=False)
    assert not kept(shown, {"label!": ["tier=gold"]}, in_use=False)
    assert not kept(shown, {"label": ["tier"], "label!": ["tier"]}, in_use=False)


@pytest.mark.parametrize("wanted", [{"type": ["mine"]}, {"dangling": ["maybe"]}, {"name": ["("]}])
def test_values_that_cannot_be_meant(wanted: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidArgument):
        check_filters(wanted)


def test_a_network_shows_what_was_asked_for_and_what_was_given() -> None:
    four = IPAMConfig(
        subnet="172.18.0.0/16", ip_range="172.18.5.0/24", auxiliary_addresses={"a": "172.18.1.5"}
    )
    network = LocalNetwork(
        id="x",
        name="six",
        driver="bridge",
        created_at=0,
        spec=NetworkSpec(
            name="six", enable_ipv6=True, ipam=IPAM(config=[four]), config_from=NetworkReference("plan")
        ),
        subnet="172.18.0.0/16",
        gateway="172.18.5.0",
        subnet6="fd00::/64",
        gateway6="fd00::1",
    )
    shown = network_json(network)
    assert shown["IPAM"]["Config"] == [
        {
            "Subnet": "172.18.0.0/16",
            "IPRange": "172.18.5.0/24",
            "Gateway": "172.18.5.0",
            "AuxiliaryAddresses": {"a": "172.18.1.5"},
        },
        {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
    ]
    assert (shown["EnableIPv6"], shown["ConfigFrom"]) == (True, {"Network": "plan"})
    assert network_json(BRIDGE)["Options"]["com.docker.network.bridge.name"] == "shoal0"
