"""The text of the host's rules and the messages of a sandbox's: only what changed is written."""

import ipaddress
import struct

from cluster.dataplane import Protocol
from netplane import host_rules
from netplane.builder import mesh_mark
from netplane.ends import port_name
from netplane.host_rules import Published
from netplane.model import HostPort, Segment


def published(port: int, *backends: str, protocol: Protocol = Protocol.TCP) -> Published:
    return Published(protocol, port, 80, backends)


def test_publish_writes_only_what_changed() -> None:
    one, two = published(1, "10.0.0.1"), published(2, "10.0.0.2")
    before = {(each.protocol, each.port): each for each in (one, two)}
    assert host_rules.publish(before, before) == ""
    changed = published(2, "10.0.0.2", "10.0.0.3")
    assert host_rules.publish(before, before | {(Protocol.TCP, 2): changed}) == (
        "flush chain ip shoal port_tcp_2\n"
        "add rule ip shoal port_tcp_2 meta l4proto tcp dnat ip addr . port to "
        "numgen inc mod 2 map { 0 : 10.0.0.2 . 80, 1 : 10.0.0.3 . 80 }\n"
        "add rule ip shoal port_tcp_2 meta l4proto tcp dnat to 10.0.0.2:80\n"
    )
    assert host_rules.publish(before, {(Protocol.TCP, 1): one}) == (
        "delete element ip shoal ports { tcp . 2 }\n"
        "flush chain ip shoal port_tcp_2\n"
        "delete chain ip shoal port_tcp_2\n"
    )


def test_a_port_may_be_open_at_some_places_only() -> None:
    def rules(*at: str) -> str:
        return host_rules.publish({}, {(Protocol.TCP, 1): Published(Protocol.TCP, 1, 80, ("10.0.0.1",), at)})

    chain = "add rule ip shoal port_tcp_1 "
    assert f"{chain}ip daddr != {{ 192.0.2.1, 10.0.0.0/8 }} return\n{chain}meta" in rules(
        "192.0.2.1", "10.0.0.0/8"
    )
    assert f'{chain}iifname != {{ "eth1" }} return\n{chain}meta' in rules("eth1")
    assert f'{chain}ip daddr != {{ 192.0.2.1 }} iifname != {{ "eth1" }} return\n' in rules(
        "eth1", "192.0.2.1"
    )
    assert " return\n" not in rules()


def test_without_backends_clients_are_refused() -> None:
    tcp, udp = published(1), published(1, protocol=Protocol.UDP)
    text = host_rules.publish({}, {(each.protocol, each.port): each for each in (tcp, udp)})
    assert "port_tcp_1 meta l4proto tcp reject with tcp reset\n" in text
    assert "port_udp_1 reject\n" in text


def test_host_ports() -> None:
    ports = [HostPort(Protocol.TCP, 8080, 80), HostPort(Protocol.UDP, 53, 53, "192.0.2.1")]
    assert host_rules.open_host_ports("172.17.0.2", ports) == (
        "add element ip shoal host_ports { tcp . 8080 : 172.17.0.2 . 80 }\n"
        "add element ip shoal host_ports_at { 192.0.2.1 . udp . 53 : 172.17.0.2 . 53 }\n"
    )
    assert "delete element ip shoal host_ports { tcp . 8080 }\n" in host_rules.close_host_ports(ports)


def test_internal_networks_are_not_masqueraded() -> None:
    def segment(name: str, subnet: str, *, internal: bool) -> Segment:
        return Segment(name, name, 1, 1500, ipaddress.IPv4Network(subnet), "", internal=internal)

    text = host_rules.networks(
        [segment("one", "10.1.0.0/24", internal=False), segment("two", "10.2.0.0/24", internal=True)]
    )
    assert 'add element ip shoal bridges { "one", "two" }\n' in text
    assert 'add element ip shoal internal { "two" }\n' in text
    assert "ip saddr 10.1.0.0/24 oifname != @bridges masquerade" in text
    assert "ip saddr 10.2.0.0/24 oifname != @bridges masquerade" not in text


def test_the_mesh_mark_is_the_networks_part_of_a_mac() -> None:
    segment = Segment("i", "b", 1, 1450, ipaddress.IPv4Network("10.255.0.0/16"), "10.255.0.1", ingress=True)
    mark, mask = mesh_mark(segment)
    entry_node = struct.unpack("=I", bytes([10, 255, 3, 7]))[0]
    assert entry_node & mask == mark


def test_port_names_fit_and_stay() -> None:
    names = {port_name(f"box{i}", number) for i in range(100) for number in range(3)}
    assert len(names) == 300
    assert all(len(name) <= 15 for name in names)
    assert port_name("box1", 0) == port_name("box1", 0)
