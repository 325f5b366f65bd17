"""nf_tables messages by hand, as few as a sandbox's rules need; one prebuilt batch serves many namespaces.

The host's own table is written as text through libnftables (`netplane.libnftables`). Constants are those
of linux/netfilter/nf_tables.h.
"""

import socket
import struct
from collections.abc import Iterable, Sequence

from netplane.netlink.wire import APPEND, CREATE, NetlinkSocket, attribute, attributes, message, nested, text

IP, NETDEV = 2, 5
PREROUTING, INPUT, OUTPUT = 0, 1, 3
EGRESS = 1
DNS_PORT = 53

_NEWTABLE, _DELTABLE, _NEWCHAIN, _DELCHAIN, _NEWRULE, _DELRULE = 0, 2, 3, 5, 6, 8
_NEWSET, _NEWSETELEM, _GETSETELEM, _DELSETELEM = 9, 12, 13, 14
_SUBSYSTEM = 10
_GOTO = -4
_VERDICT_TYPE = 0xFFFFFF00
_ANONYMOUS, _CONSTANT, _MAP = 1, 2, 8
_REG = 8  # the first 32-bit register
_META_MARK, _META_IIF, _META_L4PROTO = 3, 4, 16
_CT_STATE, _CT_DIRECTION, _CT_MARK, _CT_ZONE = 0, 1, 3, 17
_LINK, _NETWORK, _TRANSPORT = 0, 1, 2
_STATE_NEW = 8
_MAX_ELEMENTS = 800  # of one message: an attribute is at most 64 KiB


def _be(value: int) -> bytes:
    return struct.pack(">I", value & 0xFFFFFFFF)


def _n32(kind: int, value: int) -> bytes:
    return attribute(kind, _be(value))


def _message(kind: int, flags: int, family: int, *body: bytes) -> bytes:
    return message((_SUBSYSTEM << 8) | kind, flags, struct.pack(">BBH", family, 0, 0) + b"".join(body))


def _expression(name: str, *data: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *data))


_BEGIN = message(16, 0, struct.pack(">BBH", 0, 0, _SUBSYSTEM))
_END = message(17, 0, struct.pack(">BBH", 0, 0, _SUBSYSTEM))


def commit(sock: NetlinkSocket, messages: Sequence[bytes]) -> None:
    """Carry out all messages as one transaction in the socket's namespace."""
    sock.transaction(_BEGIN, messages, _END, "nf_tables")


# --- tables, chains, maps -----------------------------------------------------------------------------


def table(name: str, family: int = IP) -> bytes:
    """Make a table, or keep the one there is."""
    return _message(_NEWTABLE, CREATE, family, text(1, name))


def delete_table(name: str, family: int = IP) -> bytes:
    """Delete a table with all it holds."""
    return _message(_DELTABLE, 0, family, text(1, name))


def chain(table_name: str, name: str) -> bytes:
    """A chain that others go to."""
    return _message(_NEWCHAIN, CREATE, IP, text(1, table_name), text(3, name))


def base_chain(
    table_name: str, name: str, kind: str, hook: int, priority: int, *, family: int = IP, device: str = ""
) -> bytes:
    """A chain at a hook."""
    at = [_n32(1, hook), _n32(2, priority)]
    if device:
        at.append(text(3, device))
    return _message(
        _NEWCHAIN, CREATE, family, text(1, table_name), text(3, name), nested(4, *at), text(7, kind)
    )


def delete_chain(table_name: str, name: str) -> bytes:
    """Delete an empty chain that nothing refers to."""
    return _message(_DELCHAIN, 0, IP, text(1, table_name), text(3, name))


def flush_chain(table_name: str, name: str) -> bytes:
    """Delete the rules of a chain."""
    return _message(_DELRULE, 0, IP, text(1, table_name), text(2, name))


def verdict_map(table_name: str, name: str) -> bytes:
    """A named map from IPv4 address to verdict."""
    ipv4_type = 7
    return _message(
        _NEWSET,
        CREATE,
        IP,
        text(1, table_name),
        text(2, name),
        _n32(3, _MAP),
        _n32(4, ipv4_type),
        _n32(5, 4),
        _n32(6, _VERDICT_TYPE),
        _n32(7, 0),
        _n32(10, 1),
    )


def address_set(table_name: str, name: str, size: int) -> bytes:
    """A named set of IPv4 addresses that rules may add to until it is full."""
    dynamic, ipv4_type = 0x20, 7
    return _message(
        _NEWSET,
        CREATE,
        IP,
        text(1, table_name),
        text(2, name),
        _n32(3, dynamic),
        _n32(4, ipv4_type),
        _n32(5, 4),
        _n32(10, 2),
        nested(9, _n32(1, size)),
    )


def members(sock: NetlinkSocket, table_name: str, name: str) -> set[str]:
    """The addresses in a set."""
    found: set[str] = set()
    for body in sock.dump(_message(_GETSETELEM, 0, IP, text(1, table_name), text(2, name))):
        elements = attributes(body[4:]).get(3, b"")
        while len(elements) >= 4:
            length = struct.unpack_from("=H", elements)[0]
            key = attributes(attributes(elements[4:length])[1])[1]
            found.add(socket.inet_ntoa(key))
            elements = elements[(length + 3) & ~3 :]
    return found


def map_goto(table_name: str, map_name: str, targets: Iterable[tuple[str, str]]) -> bytes:
    """Map addresses to chains: (address, chain)."""
    elements = [
        nested(
            1,
            nested(1, attribute(1, socket.inet_aton(address))),
            nested(2, nested(2, _n32(1, _GOTO), text(2, target))),
        )
        for address, target in targets
    ]
    return _message(_NEWSETELEM, CREATE, IP, text(1, table_name), text(2, map_name), nested(3, *elements))


def unmap(table_name: str, map_name: str, addresses: Iterable[str]) -> bytes:
    """Take addresses out of a map."""
    elements = [nested(1, nested(1, attribute(1, socket.inet_aton(address)))) for address in addresses]
    return _message(_DELSETELEM, 0, IP, text(1, table_name), text(2, map_name), nested(3, *elements))


# --- rules --------------------------------------------------------------------------------------------


def rule(table_name: str, chain_name: str, *expressions: bytes, family: int = IP) -> bytes:
    """Append a rule."""
    return _message(
        _NEWRULE, CREATE | APPEND, family, text(1, table_name), text(2, chain_name), nested(4, *expressions)
    )


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


def lookup_destination(map_name: str) -> bytes:
    """Look the packet's destination up in a verdict map."""
    return _load(_NETWORK, 16, 4) + _expression("lookup", text(1, map_name), _n32(2, _REG), _n32(3, 0))


def note_destination(set_name: str) -> bytes:
    """Add the packet's destination to a set."""
    return _load(_NETWORK, 16, 4) + _expression("dynset", text(1, set_name), _n32(3, 0), _n32(4, _REG))


def destination_nat_address(ip: str) -> bytes:
    """Send the connection to an address instead, at the same port."""
    return _expression("immediate", _n32(1, _REG), nested(2, attribute(1, socket.inet_aton(ip)))) + (
        _expression("nat", _n32(1, 1), _n32(2, IP), _n32(3, _REG))
    )


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


def reject_unreachable() -> bytes:
    """Answer with ICMP port unreachable."""
    return _expression("reject", _n32(1, 0), attribute(2, b"\x03"))


def spread(table_name: str, chain_name: str, addresses: Sequence[str], set_id: int) -> list[bytes]:
    """Messages that append a rule: new connections go to the addresses in turn. `set_id`: the batch's own."""
    count = len(addresses)
    name = "__map%d"
    messages = [
        _message(
            _NEWSET,
            CREATE,
            IP,
            text(1, table_name),
            text(2, name),
            _n32(3, _ANONYMOUS | _CONSTANT | _MAP),
            _n32(4, 4),
            _n32(5, 4),
            _n32(6, 7),
            _n32(7, 4),
            _n32(10, set_id),
            nested(9, _n32(1, count)),
        )
    ]
    for start in range(0, count, _MAX_ELEMENTS):
        elements = b"".join(
            nested(
                1,
                nested(1, attribute(1, struct.pack("=I", start + i))),
                nested(2, attribute(1, socket.inet_aton(ip))),
            )
            for i, ip in enumerate(addresses[start : start + _MAX_ELEMENTS])
        )
        messages.append(
            _message(
                _NEWSETELEM,
                CREATE,
                IP,
                text(1, table_name),
                text(2, name),
                _n32(4, set_id),
                nested(3, elements),
            )
        )
    pick = _expression("numgen", _n32(1, _REG), _n32(2, count), _n32(3, 0), _n32(4, 0))
    find = _expression("lookup", text(1, name), _n32(2, _REG), _n32(3, _REG), _n32(4, set_id))
    nat = _expression("nat", _n32(1, 1), _n32(2, IP), _n32(3, _REG))
    messages.append(rule(table_name, chain_name, pick, find, nat))
    return messages
