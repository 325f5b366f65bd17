"""Reserves ports of the host, so that no process and no other sandbox takes them."""

import errno
import socket
from collections.abc import Sequence

from msgspec.structs import replace

from cluster.dataplane import Protocol
from netplane.errors import NetworkError, PortUnavailable
from netplane.model import HostPort

_WILDCARDS = ("", "0.0.0.0", "::")
_KINDS = {
    Protocol.TCP: (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    Protocol.UDP: (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    Protocol.SCTP: (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}


class HostPorts:
    """Ports held by a bound socket each, which never listens: rules lead their packets elsewhere."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[tuple[HostPort, ...], list[socket.socket]]] = {}

    def reserve(
        self, sandbox_id: str, ports: Sequence[HostPort], *, ipv6: bool = False
    ) -> tuple[HostPort, ...]:
        """Reserve all or none; returns them with the ports that were chosen for 0.

        Args: ipv6: the sandbox has IPv6; those that name no address are then open by it too.
        """
        sockets: list[socket.socket] = []
        bound: list[HostPort] = []
        try:
            for port in ports:
                for holder, (held, _) in self._held.items():
                    if any(_clash(port, other) for other in held):
                        raise PortUnavailable(f"{_name(port)} is already allocated (by sandbox {holder})")
                if any(_clash(port, other) for other in bound):
                    raise PortUnavailable(f"{_name(port)} is asked for twice")
                if port.direct:
                    bound.append(port)
                    continue
                for family in _families(port, ipv6=ipv6):
                    sock, number = _bind(port, family)
                    port = replace(port, published=number)
                    if sock is not None:
                        sockets.append(sock)
                bound.append(port)
        except NetworkError:
            for sock in sockets:
                sock.close()
            raise
        if bound:
            self._held[sandbox_id] = (tuple(bound), sockets)
        return tuple(bound)

    def release(self, sandbox_id: str) -> None:
        """Give a sandbox's ports back."""
        _, sockets = self._held.pop(sandbox_id, ((), []))
        for sock in sockets:
            sock.close()

    def close(self) -> None:
        """Give all ports back."""
        for sandbox_id in list(self._held):
            self.release(sandbox_id)


def _families(port: HostPort, *, ipv6: bool) -> list[socket.AddressFamily]:
    """By which kinds of address a port is to be open."""
    if port.host_ip:
        return [socket.AF_INET6 if ":" in port.host_ip else socket.AF_INET]
    return [socket.AF_INET, socket.AF_INET6] if ipv6 else [socket.AF_INET]


def _clash(one: HostPort, other: HostPort) -> bool:
    if one.published == 0 or (one.protocol, one.published) != (other.protocol, other.published):
        return False
    common = {*_families(one, ipv6=True)} & {*_families(other, ipv6=True)}
    wild = one.host_ip in _WILDCARDS or other.host_ip in _WILDCARDS
    return bool(common) and (wild or one.host_ip == other.host_ip)


def _bind(port: HostPort, family: socket.AddressFamily) -> tuple[socket.socket | None, int]:
    kind, protocol = _KINDS[port.protocol]
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        if port.protocol is Protocol.SCTP and port.published:  # no SCTP sockets here; none can take the port
            return None, port.published
        raise PortUnavailable(f"{_name(port)}: {error.strerror}") from error
    try:
        if port.protocol is not Protocol.UDP:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((port.host_ip, port.published))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortUnavailable(f"{_name(port)} is in use by a process of the host") from error
        raise PortUnavailable(f"{_name(port)}: {error.strerror}") from error
    return sock, int(sock.getsockname()[1])


def _name(port: HostPort) -> str:
    address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip or "0.0.0.0"
    return f"host port {address}:{port.published}/{port.protocol}"
