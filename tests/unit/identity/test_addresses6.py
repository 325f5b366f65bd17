"""The IPv6 address that goes with an IPv4 one."""

from cluster.dataplane import address6_for


def test_the_last_four_bytes_are_the_ipv4_address() -> None:
    assert address6_for("fd12:3456:789a:1::/64", "10.0.1.5/24") == "fd12:3456:789a:1::a00:105/64"
    assert address6_for("2001:db8::/96", "10.0.1.255") == "2001:db8::a00:1ff/96"
