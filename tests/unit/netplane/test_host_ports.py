"""Ports of the host are reserved for one sandbox each, by IPv4 and IPv6."""

import socket
from collections.abc import Iterator

import pytest

from cluster.dataplane import Protocol
from netplane.errors import PortUnavailable
from netplane.host_ports import HostPorts
from netplane.model import HostPort


@pytest.fixture
def ports() -> Iterator[HostPorts]:
    made = HostPorts()
    yield made
    made.close()


def free() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_port_is_one_sandboxs(ports: HostPorts) -> None:
    number = free()
    ports.reserve("a", [HostPort(Protocol.TCP, number, 80, "127.0.0.1")])
    ports.reserve("udp", [HostPort(Protocol.UDP, number, 80, "127.0.0.1")])
    for address in ("", "0.0.0.0", "127.0.0.1"):
        with pytest.raises(PortUnavailable, match="already allocated"):
            ports.reserve("b", [HostPort(Protocol.TCP, number, 80, address)])
    ports.reserve("six", [HostPort(Protocol.TCP, number, 80, "::1")], ipv6=True)
    with pytest.raises(PortUnavailable, match="already allocated"):
        ports.reserve("every", [HostPort(Protocol.TCP, number, 80, "::")], ipv6=True)
    ports.release("a")
    ports.reserve("b", [HostPort(Protocol.TCP, number, 80, "127.0.0.1")])


def test_one_that_is_chosen_is_free_by_both(ports: HostPorts) -> None:
    (port,) = ports.reserve("a", [HostPort(Protocol.TCP, 0, 80)], ipv6=True)
    assert port.published
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as sock, pytest.raises(OSError, match="in use"):
            sock.bind((address, port.published))
