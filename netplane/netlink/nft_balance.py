"""nf_tables messages that give a chain of a published port other backends, and touch nothing else.

nft(8)'s library reads all chains and sets of a table before each change, which takes milliseconds where there
are thousands; these few messages do not. They write what it would write, so that it can read it.
"""

import ipaddress
import socket
import struct
from collections.abc import Sequence

from netplane.netlink import nft_expressions as ex
from netplane.netlink.nft import IP, IP6, rule
from netplane.netlink.wire import CREATE, attribute, message, nested, text

FAMILIES = {"ip": IP, "ip6": IP6}
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}

_SUBSYSTEM = 10
_DELRULE, _NEWSET, _NEWSETELEM = 8, 9, 12
_ANONYMOUS, _CONSTANT, _MAP = 1, 2, 8
# Types that the kernel only hands on to nft(8): whole numbers, and an address with a port.
_INTEGER, _SERVICE, _BITS = 4, 13, 6
_ADDRESS_TYPE = {IP: 7, IP6: 8}
_ADDRESS_LENGTH = {IP: 4, IP6: 16}
_REG = 8
_HOST_ORDER = struct.pack("=BBI", 0, 4, 1)  # user data of a set: its keys are in the machine's byte order
_MAX_ELEMENTS = 600  # of one message: an attribute is at most 64 KiB


def rebalance(
    table: str, chain: str, family: int, protocol: int, backends: Sequence[tuple[str, int]], set_id: int
) -> list[bytes]:
    """Lead the chain's new connections to these addresses and ports in turn; without any, refuse them.

    Args: protocol: its IP number; set_id: of the sets that a batch makes, its own.
    """
    head = text(1, table)
    messages = [_message(_DELRULE, 0, family, head, text(2, chain))]
    if not backends:
        if protocol == socket.IPPROTO_TCP:
            refusal = ex.match_protocol(protocol) + ex.reject_reset()
        else:
            refusal = ex.reject_unreachable(family)
        return [*messages, rule(table, chain, refusal, family=family)]
    ways = [_way(address, port) for address, port in backends]
    name = text(2, "__map%d")
    messages.append(
        _message(
            _NEWSET,
            CREATE,
            family,
            head,
            name,
            _n32(3, _ANONYMOUS | _CONSTANT | _MAP),
            _n32(4, _INTEGER),
            _n32(5, 4),
            _n32(6, _ADDRESS_TYPE[family] << _BITS | _SERVICE),
            _n32(7, _ADDRESS_LENGTH[family] + 4),
            nested(9, _n32(1, len(ways))),
            _n32(10, set_id),
            attribute(13, _HOST_ORDER),
        )
    )
    for start in range(0, len(ways), _MAX_ELEMENTS):
        elements = [
            nested(1, nested(1, attribute(1, struct.pack("=I", start + i))), nested(2, attribute(1, way)))
            for i, way in enumerate(ways[start : start + _MAX_ELEMENTS])
        ]
        messages.append(
            _message(_NEWSETELEM, CREATE, family, head, name, _n32(4, set_id), nested(3, *elements))
        )
    only = ex.match_protocol(protocol)
    draw = _expression("numgen", _n32(1, _REG), _n32(2, len(ways)), _n32(3, 0), _n32(4, 0))
    find = _expression("lookup", text(1, "__map%d"), _n32(2, _REG), _n32(3, _REG), _n32(4, set_id))
    # For a packet that meets the rule above while its map is not in force.
    address, port = ways[0][:-4], ways[0][-4:-2]
    first = _immediate(_REG, address) + _immediate(_port_register(family), port)
    return [
        *messages,
        rule(table, chain, only, draw, find, _nat(family), family=family),
        rule(table, chain, only, first, _nat(family), family=family),
    ]


def _way(address: str, port: int) -> bytes:
    return ipaddress.ip_address(address).packed + struct.pack(">HH", port, 0)


def _port_register(family: int) -> int:
    return _REG + _ADDRESS_LENGTH[family] // 4


def _nat(family: int) -> bytes:
    destination = 1
    return _expression(
        "nat", _n32(1, destination), _n32(2, family), _n32(3, _REG), _n32(5, _port_register(family))
    )


def _immediate(register: int, value: bytes) -> bytes:
    return _expression("immediate", _n32(1, register), nested(2, attribute(1, value)))


def _expression(name: str, *data: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *data))


def _n32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _message(kind: int, flags: int, family: int, *body: bytes) -> bytes:
    return message((_SUBSYSTEM << 8) | kind, flags, struct.pack(">BBH", family, 0, 0) + b"".join(body))
