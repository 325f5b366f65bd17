"""Addresses of local networks."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplane.errors import AddressUnavailable, InvalidNetwork
from netplane.pool import AddressPool, free_subnet

_SUBNET = ipaddress.IPv4Network("10.1.0.0/28")


@given(st.lists(st.one_of(st.none(), st.integers(0, 20))))
def test_no_address_is_given_twice(steps: list[int | None]) -> None:
    pool = AddressPool(_SUBNET, reserved=["10.1.0.1"])
    held: list[str] = []
    for step in steps:
        if step is None:
            if len(held) == 13:
                with pytest.raises(AddressUnavailable):
                    pool.allocate()
                continue
            address = pool.allocate()
            assert address not in held
            assert ipaddress.IPv4Address(address) in list(_SUBNET.hosts())[1:]
            held.append(address)
        elif held:
            pool.release(held.pop(step % len(held)))


def test_an_address_just_given_back_rests() -> None:
    pool = AddressPool(_SUBNET)
    first = pool.allocate()
    pool.release(first)
    assert pool.allocate() != first


def test_wanted_addresses() -> None:
    pool = AddressPool(_SUBNET, ip_range="10.1.0.8/29")
    assert pool.allocate("10.1.0.5/28") == "10.1.0.5"
    assert pool.allocate() == "10.1.0.8"
    with pytest.raises(AddressUnavailable):
        pool.allocate("10.1.0.8")
    for wrong in ("10.2.0.1", "nonsense"):
        with pytest.raises(InvalidNetwork):
            pool.allocate(wrong)
    with pytest.raises(InvalidNetwork):
        AddressPool(_SUBNET, ip_range="10.2.0.0/29")


def test_free_subnet_avoids_what_is_used() -> None:
    used = [ipaddress.IPv4Network("172.17.5.0/24"), ipaddress.IPv4Network("172.18.0.0/15")]
    assert str(free_subnet(used)) == "172.20.0.0/16"
