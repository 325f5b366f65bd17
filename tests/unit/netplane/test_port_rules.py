"""The text of the rules of published ports: IPv4 and IPv6, only what changed."""

from dataclasses import replace

from cluster.dataplane import Protocol
from netplane import port_rules
from netplane.model import HostPort
from netplane.port_rules import Published


def published(port: int, *backends: str, protocol: Protocol = Protocol.TCP) -> Published:
    return Published(protocol, port, 80, backends)


def test_publish_writes_only_what_changed() -> None:
    one, two = published(1, "10.0.0.1"), published(2, "10.0.0.2")
    before = {(each.protocol, each.port): each for each in (one, two)}
    assert port_rules.publish(before, before) == ""
    changed = published(2, "10.0.0.2", "10.0.0.3")
    assert port_rules.publish(before, before | {(Protocol.TCP, 2): changed}) == (
        "flush chain ip shoal port_tcp_2\n"
        "add rule ip shoal port_tcp_2 meta l4proto tcp dnat ip addr . port to "
        "numgen inc mod 2 map { 0 : 10.0.0.2 . 80, 1 : 10.0.0.3 . 80 }\n"
        "add rule ip shoal port_tcp_2 meta l4proto tcp dnat to 10.0.0.2:80\n"
    )
    assert port_rules.publish(before, {(Protocol.TCP, 1): one}) == (
        "delete element ip shoal ports { tcp . 2 }\n"
        "flush chain ip shoal port_tcp_2\n"
        "delete chain ip shoal port_tcp_2\n"
    )


def test_ipv6_follows_from_ipv4() -> None:
    four = published(1, "10.0.0.1")
    six = replace(four, subnet6="fd00:1::/64")
    key = (Protocol.TCP, 1)
    text = port_rules.publish({key: four}, {key: six})
    assert "ip shoal" not in text
    assert "numgen inc mod 1 map { 0 : fd00:1::a00:1 . 80 }\n" in text
    assert "dnat to [fd00:1::a00:1]:80\n" in text
    assert "add element ip6 shoal ports { tcp . 1 : goto port_tcp_1 }\n" in text
    assert port_rules.publish({key: six}, {key: four}) == (
        "delete element ip6 shoal ports { tcp . 1 }\n"
        "flush chain ip6 shoal port_tcp_1\n"
        "delete chain ip6 shoal port_tcp_1\n"
    )


def test_a_port_may_be_open_at_some_places_only() -> None:
    def rules(*at: str, family: str = "ip") -> str:
        port = Published(Protocol.TCP, 1, 80, ("10.0.0.1",), at, "fd00:1::/64")
        text = port_rules.publish({}, {(Protocol.TCP, 1): port})
        return "".join(line for line in text.splitlines(keepends=True) if f" {family} shoal" in line)

    chain = "add rule ip shoal port_tcp_1 "
    assert f"{chain}ip daddr != {{ 192.0.2.1, 10.0.0.0/8 }} return\n{chain}meta" in rules(
        "192.0.2.1", "10.0.0.0/8"
    )
    assert f'{chain}iifname != {{ "eth1" }} return\n{chain}meta' in rules("eth1")
    assert f'{chain}ip daddr != {{ 192.0.2.1 }} iifname != {{ "eth1" }} return\n' in rules(
        "eth1", "192.0.2.1", "2001:db8::1"
    )
    assert " return\n" not in rules()
    # At addresses of one family it is not open by the other.
    assert rules("192.0.2.1", family="ip6") == ""
    assert rules("2001:db8::/32") == ""
    assert "ip6 daddr != { 2001:db8::/32 } return\n" in rules("2001:db8::/32", family="ip6")
    assert 'iifname != { "eth1" } return\n' in rules("eth1", family="ip6")
    # Masks, which nft does not read, and zones, which may be any text, come from older versions only.
    assert "ip daddr != { 10.0.0.0/8 } return\n" in rules("10.1.2.3/255.0.0.0")
    assert rules("fe80::1%x }\nflush ruleset\n#", family="ip6") == ""


def test_without_backends_clients_are_refused() -> None:
    tcp, udp = published(1), published(1, protocol=Protocol.UDP)
    text = port_rules.publish({}, {(each.protocol, each.port): each for each in (tcp, udp)})
    assert "port_tcp_1 meta l4proto tcp reject with tcp reset\n" in text
    assert "port_udp_1 reject\n" in text


def test_host_ports() -> None:
    ports = [
        HostPort(Protocol.TCP, 8080, 80),
        HostPort(Protocol.UDP, 53, 53, "192.0.2.1"),
        HostPort(Protocol.TCP, 81, 80, "::"),
        HostPort(Protocol.TCP, 82, 80, "2001:db8::1"),
        HostPort(Protocol.TCP, 83, 80, "0.0.0.0"),
    ]
    opened = port_rules.open_host_ports("172.17.0.2", "fd00::2", ports)
    assert opened == (
        "add element ip shoal host_ports { tcp . 8080 : 172.17.0.2 . 80 }\n"
        "add element ip6 shoal host_ports { tcp . 8080 : fd00::2 . 80 }\n"
        "add element ip shoal host_ports_at { 192.0.2.1 . udp . 53 : 172.17.0.2 . 53 }\n"
        "add element ip6 shoal host_ports { tcp . 81 : fd00::2 . 80 }\n"
        "add element ip6 shoal host_ports_at { 2001:db8::1 . tcp . 82 : fd00::2 . 80 }\n"
        "add element ip shoal host_ports { tcp . 83 : 172.17.0.2 . 80 }\n"
    )
    closed = port_rules.close_host_ports("172.17.0.2", "fd00::2", ports)
    assert [line.split(" : ")[0].removeprefix("add").rstrip(" }") for line in opened.splitlines()] == [
        line.removeprefix("delete").rstrip(" }") for line in closed.splitlines()
    ]
    assert "ip6" not in port_rules.open_host_ports("172.17.0.2", "", ports)


def test_other_backends_alone_are_written_as_messages() -> None:
    key = (Protocol.TCP, 1)
    one, two = published(1, "10.0.0.1"), published(1, "10.0.0.1", "10.0.0.2")
    assert port_rules.rebalance({key: one}, {key: two})
    assert port_rules.rebalance({}, {key: two}) is None
    assert port_rules.rebalance({key: one}, {key: replace(two, target=81)}) is None
    assert port_rules.rebalance({key: one}, {key: replace(two, subnet6="fd00::/64")}) is None
    at = replace(one, at=("lo",))
    assert port_rules.rebalance({key: at}, {key: replace(at, backends=())}) is None


def test_connections_go_through_the_proxy_first() -> None:
    port = replace(published(1, "10.0.0.1"), proxy="v2", at=("192.0.2.1",))
    text = port_rules.publish({}, {(Protocol.TCP, 1): port})
    assert text.index("ip daddr") < text.index("port_tcp_1 jump proxy_v2\n") < text.index("dnat ip addr")
    other = replace(port, at=(), backends=())
    assert port_rules.rebalance({(Protocol.TCP, 1): replace(port, at=())}, {(Protocol.TCP, 1): other}) is None
