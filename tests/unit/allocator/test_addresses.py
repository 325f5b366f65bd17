"""Subnets, addresses and VNIs: plain arithmetic."""

from ipaddress import IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.objects import Subnet
from manager.allocator.addresses import (
    AddressPool,
    address_number,
    first_address,
    lowest_free_subnet,
    lowest_free_vni,
    overlapping,
)


def test_the_lowest_free_subnet() -> None:
    assert lowest_free_subnet(["10.0.0.0/8"], 24, []) == "10.0.0.0/24"
    assert lowest_free_subnet(["10.0.0.0/8"], 24, ["10.0.0.0/24", "10.0.2.0/24"]) == "10.0.1.0/24"
    assert lowest_free_subnet(["10.0.0.0/8"], 24, ["10.0.0.0/16"]) == "10.1.0.0/24"
    assert lowest_free_subnet(["10.0.0.0/8"], 24, ["10.0.0.77/32"]) == "10.0.1.0/24"
    assert lowest_free_subnet(["10.0.0.0/8", "172.16.0.0/16"], 24, ["10.0.0.0/8"]) == "172.16.0.0/24"
    assert lowest_free_subnet(["192.168.7.0/24"], 25, ["192.168.7.0/25"]) == "192.168.7.128/25"
    assert lowest_free_subnet(["192.168.7.0/24"], 25, ["192.168.0.0/16"]) is None
    assert lowest_free_subnet(["10.0.0.0/28"], 24, []) == "10.0.0.0/28"


cidrs = st.builds(
    lambda offset, prefix: str(IPv4Network(((10 << 24) + offset, prefix), strict=False)),
    st.integers(0, (1 << 16) - 1),
    st.integers(16, 30),
)


@settings(deadline=None)
@given(st.lists(cidrs, max_size=12), st.integers(20, 28))
def test_a_free_subnet_overlaps_nothing_and_no_lower_one_is_free(taken: list[str], size: int) -> None:
    found = lowest_free_subnet(["10.0.0.0/16"], size, taken)
    candidates = [str(subnet) for subnet in IPv4Network("10.0.0.0/16").subnets(new_prefix=size)]
    free = [candidate for candidate in candidates if overlapping(candidate, taken) is None]
    assert found == (free[0] if free else None)


def test_the_lowest_free_vni() -> None:
    assert lowest_free_vni(set()) == 4096
    assert lowest_free_vni({4096, 4097, 4099}) == 4098


def test_the_gateway_is_the_first_address() -> None:
    assert first_address("10.0.3.0/24") == "10.0.3.1"


def test_addresses_are_handed_out_in_turn_without_the_reserved_ones() -> None:
    pool = AddressPool([Subnet(subnet="10.0.0.0/29", gateway="10.0.0.1", reserved={"printer": "10.0.0.3"})])
    assert pool.size == 4
    used: set[int] = set()
    given_out = []
    for _ in range(4):
        address = pool.next_free(used)
        used.add(address_number(address))
        given_out.append(address)
    assert given_out == ["10.0.0.2/29", "10.0.0.4/29", "10.0.0.5/29", "10.0.0.6/29"]
    assert pool.next_free(used) is None


def test_a_freed_address_is_not_the_next_one() -> None:
    pool = AddressPool([Subnet(subnet="10.0.0.0/29", gateway="10.0.0.1")])
    first = pool.next_free(set())
    assert (first, pool.next_free(set())) == ("10.0.0.2/29", "10.0.0.3/29")
    pool.went_to(address_number("10.0.0.6"))
    assert pool.next_free(set()) == "10.0.0.2/29"


def test_addresses_come_from_the_range_only() -> None:
    pool = AddressPool(
        [
            Subnet(subnet="10.0.0.0/24", gateway="10.0.0.1", ip_range="10.0.0.128/30"),
            Subnet(subnet="10.1.0.0/30"),
        ]
    )
    used: set[int] = set()
    found = []
    while (address := pool.next_free(used)) is not None:
        used.add(address_number(address))
        found.append(address)
    assert found == [f"10.0.0.{last}/24" for last in range(128, 132)] + ["10.1.0.1/30", "10.1.0.2/30"]


def test_addresses_that_are_used_beside_the_range_do_not_fill_it() -> None:
    pool = AddressPool([Subnet(subnet="10.0.0.0/24", gateway="10.0.0.1", ip_range="10.0.0.128/30")])
    wanted = {address_number(f"10.0.0.{last}") for last in range(10, 20)}
    assert pool.next_free(wanted) == "10.0.0.128/24"
    within = {address_number(f"10.0.0.{last}") for last in range(128, 132)}
    assert pool.next_free(wanted | within) is None


@pytest.mark.parametrize("taken", [["10.0.0.0/24"], ["10.0.0.128/25"], ["10.0.0.0/8"]])
def test_overlaps(taken: list[str]) -> None:
    assert overlapping("10.0.0.0/24", ["10.9.0.0/24", *taken]) == taken[0]
    assert overlapping("10.0.1.0/24", ["10.0.0.0/24"]) is None
