"""Marks and names that follow from addresses and ids."""

import ipaddress
import struct

from netplane.builder import mesh_mark
from netplane.ends import port_name
from netplane.model import Segment


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
