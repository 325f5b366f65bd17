"""What nf_tables rules are made of: each function gives the bytes of one or more expressions.

Registers are the 32-bit ones: an expression loads into them from the first on, and the next ones use what is
there. Constants are those of linux/netfilter/nf_tables.h.
"""

import socket
import struct

from netplane.netlink.nft import IP
from netplane.netlink.wire import attribute, nested, text

DNS_PORT = 53
_REG = 8  # the first 32-bit register
_VERDICT = 0
_META_MARK, _META_IIF, _META_L4PROTO = 3, 4, 16
_CT_STATE, _CT_DIRECTION, _CT_MARK, _CT_ZONE = 0, 1, 3, 17
_LINK, _NETWORK, _TRANSPORT = 0, 1, 2
_STATE_NEW = 8
_RANDOM = 1


def _n32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _expression(name: str, *data: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *data))


def _load(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", _n32(1, _REG), _n32(2, base), _n32(3, offset), _n32(4, length))


def _compare(value: bytes, *, equal: bool = True) -> bytes:
    return _expression("cmp", _n32(1, _REG), _n32(2, 0 if equal else 1), nested(3, attribute(1, value)))


def match_input(index: int) -> bytes:
    """The packet came in through link `index`."""
    return _expression("meta", _n32(1, _REG), _n32(2, _META_IIF)) + _compare(struct.pack("=I", index))


def match_destination(ip: str) -> bytes:
    """The packet goes to an address."""
    return _load(_NETWORK, 16, 4) + _compare(socket.inet_aton(ip))


def match_protocol(number: int) -> bytes:
    """The packet is of an IP protocol."""
    return _expression("meta", _n32(1, _REG), _n32(2, _META_L4PROTO)) + _compare(bytes([number]))


def match_destination_port(port: int) -> bytes:
    """The packet goes to a port; match the protocol first."""
    return _load(_TRANSPORT, 2, 2) + _compare(struct.pack(">H", port))


def match_new() -> bytes:
    """The packet begins a connection."""
    load = _expression("ct", _n32(1, _REG), _n32(2, _CT_STATE))
    mask = _expression(
        "bitwise",
        _n32(1, _REG),
        _n32(2, _REG),
        _n32(3, 4),
        nested(4, attribute(1, struct.pack("=I", _STATE_NEW))),
        nested(5, attribute(1, bytes(4))),
    )
    return load + mask + _compare(bytes(4), equal=False)


def match_reply() -> bytes:
    """The packet answers."""
    return _expression("ct", _n32(1, _REG), _n32(2, _CT_DIRECTION)) + _compare(b"\x01")


def load_connection_mark() -> bytes:
    """Load the connection's mark, and go on only if it is set."""
    return _expression("ct", _n32(1, _REG), _n32(2, _CT_MARK)) + _compare(bytes(4), equal=False)


def load_packet_mark() -> bytes:
    """Load the packet's mark, and go on only if it is set."""
    return _expression("meta", _n32(1, _REG), _n32(2, _META_MARK)) + _compare(bytes(4), equal=False)


def load_frame(offset: int, length: int) -> bytes:
    """Load bytes of the Ethernet header."""
    return _load(_LINK, offset, length)


def set_connection_mark() -> bytes:
    """The connection's mark becomes what was loaded."""
    return _expression("ct", _n32(2, _CT_MARK), _n32(4, _REG))


def set_original_zone() -> bytes:
    """The zone of the connection's original direction becomes what was loaded."""
    return _expression("ct", _n32(2, _CT_ZONE), attribute(3, b"\x00"), _n32(4, _REG))


def set_packet_mark() -> bytes:
    """The packet's mark becomes what was loaded."""
    return _expression("meta", _n32(2, _META_MARK), _n32(3, _REG))


def write_frame(offset: int, length: int) -> bytes:
    """Write what was loaded into the Ethernet header. nft(8) refuses this, the kernel does not."""
    return _expression(
        "payload",
        _n32(2, _LINK),
        _n32(3, offset),
        _n32(4, length),
        _n32(5, _REG),
        _n32(6, 0),
        _n32(7, 0),
    )


def _destination(family: int) -> tuple[bytes, int]:
    """Load the packet's destination; and the first register after it."""
    if family == IP:
        return _load(_NETWORK, 16, 4), _REG + 1
    return _load(_NETWORK, 24, 16), _REG + 4


def destination_value(map_name: str, family: int = IP) -> bytes:
    """Load what a map has for the packet's destination, and go on only if it has something."""
    return _destination(family)[0] + _find(map_name, _REG)


def go_by_value(map_name: str) -> bytes:
    """Go where a map of chains says for what was loaded."""
    return _find(map_name, _VERDICT)


def pick(modulus: int, map_name: str, family: int = IP) -> bytes:
    """Load what a map has for the packet's destination with a random number below `modulus`."""
    load, after = _destination(family)
    number = _expression("numgen", _n32(1, after), _n32(2, modulus), _n32(3, _RANDOM), _n32(4, 0))
    return load + number + _find(map_name, _REG)


def pick_first(map_name: str, family: int = IP) -> bytes:
    """Load what a map has for the packet's destination with the number 0."""
    load, after = _destination(family)
    zero = _expression("immediate", _n32(1, after), nested(2, attribute(1, bytes(4))))
    return load + zero + _find(map_name, _REG)


def _find(map_name: str, to: int) -> bytes:
    return _expression("lookup", text(1, map_name), _n32(2, _REG), _n32(3, to))


def nat_to_loaded(family: int = IP) -> bytes:
    """Send the connection to the address that was loaded, at the same port."""
    return _expression("nat", _n32(1, 1), _n32(2, family), _n32(3, _REG))


def note_destination(set_name: str, family: int = IP) -> bytes:
    """Add the packet's destination to a set."""
    return _destination(family)[0] + _expression("dynset", text(1, set_name), _n32(3, 0), _n32(4, _REG))


def go_to(chain_name: str) -> bytes:
    """Go to a chain."""
    goto = -4
    verdict = nested(2, nested(2, _n32(1, goto), text(2, chain_name)))
    return _expression("immediate", _n32(1, _VERDICT), verdict)


def destination_nat(ip: str, port: int) -> bytes:
    """Send the connection to an address and port instead."""
    port_register = _REG + 1
    return (
        _expression("immediate", _n32(1, _REG), nested(2, attribute(1, socket.inet_aton(ip))))
        + _expression("immediate", _n32(1, port_register), nested(2, attribute(1, struct.pack(">H", port))))
        + _expression("nat", _n32(1, 1), _n32(2, IP), _n32(3, _REG), _n32(5, port_register))
    )


def reject_reset() -> bytes:
    """Answer with a TCP reset."""
    return _expression("reject", _n32(1, 1), attribute(2, b"\x00"))


def reject_unreachable(family: int = IP) -> bytes:
    """Answer with ICMP port unreachable."""
    return _expression("reject", _n32(1, 0), attribute(2, b"\x03" if family == IP else b"\x04"))
