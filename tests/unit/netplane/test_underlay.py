"""Which overlays a host's own links allow."""

import ipaddress

import pytest

from cluster.dataplane import NetworkRecord
from cluster.objects import Subnet
from netplane.underlay import overlap

CONNECTED = [
    ("eth0", ipaddress.ip_network("192.0.2.0/24")),
    ("docker0", ipaddress.ip_network("172.17.0.0/16")),
    ("eth0", ipaddress.ip_network("2001:db8::/64")),
]


@pytest.mark.parametrize(
    ("subnet", "subnet6", "found"),
    [
        ("10.0.0.0/24", "fd00::/64", ""),
        ("192.0.2.0/24", "", "192.0.2.0/24, which the node has on its link eth0"),
        ("172.17.0.0/24", "", "172.17.0.0/16, which the node has on its link docker0"),
        ("172.16.0.0/12", "", "docker0"),
        ("10.0.0.0/24", "2001:db8::/80", "2001:db8::/64"),
        ("198.51.100.0/24", "", "198.51.100.7 in it is a node's own address"),
    ],
)
def test_what_an_overlay_would_take_is_named(subnet: str, subnet6: str, found: str) -> None:
    record = NetworkRecord(
        id="n",
        name="over",
        driver="overlay",
        subnets=(Subnet(subnet=subnet, gateway=""),),
        subnets6=(Subnet(subnet=subnet6, gateway=""),) if subnet6 else (),
    )
    said = overlap(record, ["198.51.100.7"], CONNECTED)
    assert found in said
    assert bool(found) == bool(said)
