"""nf_tables messages by hand, as few as a sandbox's rules need; one prebuilt batch serves many namespaces.

The host's own table is written as text through libnftables (`netplane.libnftables`). Constants are those
of linux/netfilter/nf_tables.h. What rules are made of is in `nft_expressions`.
"""

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence

from netplane.netlink.wire import APPEND, CREATE, NetlinkSocket, attribute, attributes, message, nested, text

IP, NETDEV, IP6 = 2, 5, 10
PREROUTING, INPUT, OUTPUT = 0, 1, 3
EGRESS = 1

_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_NEWSET, _NEWSETELEM, _GETSETELEM, _DELSETELEM = 9, 12, 13, 14
_SUBSYSTEM = 10
_GOTO = -4
_VERDICT_TYPE = 0xFFFFFF00
_MAP, _DYNAMIC = 8, 0x20
_MAX_ELEMENTS = 600  # of one message: an attribute is at most 64 KiB
# Types of keys and values, which the kernel only hands on to nft(8), with their lengths in bytes.
_TYPES = {"ipv4_addr": (7, 4), "ipv6_addr": (8, 16), "mark": (19, 4)}


def _n32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _message(kind: int, flags: int, family: int, *body: bytes) -> bytes:
    return message((_SUBSYSTEM << 8) | kind, flags, struct.pack(">BBH", family, 0, 0) + b"".join(body))


_BEGIN = message(16, 0, struct.pack(">BBH", 0, 0, _SUBSYSTEM))
_END = message(17, 0, struct.pack(">BBH", 0, 0, _SUBSYSTEM))


def commit(sock: NetlinkSocket, messages: Sequence[bytes]) -> None:
    """Carry out all messages as one transaction in the socket's namespace."""
    sock.transaction(_BEGIN, messages, _END, "nf_tables")


# --- tables, chains, rules ----------------------------------------------------------------------------


def table(name: str, family: int = IP) -> bytes:
    """Make a table, or keep the one there is."""
    return _message(_NEWTABLE, CREATE, family, text(1, name))


def delete_table(name: str, family: int = IP) -> bytes:
    """Delete a table with all it holds."""
    return _message(_DELTABLE, 0, family, text(1, name))


def chain(table_name: str, name: str, family: int = IP) -> bytes:
    """A chain that others go to."""
    return _message(_NEWCHAIN, CREATE, family, text(1, table_name), text(3, name))


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


def rule(table_name: str, chain_name: str, *expressions: bytes, family: int = IP) -> bytes:
    """Append a rule."""
    return _message(
        _NEWRULE, CREATE | APPEND, family, text(1, table_name), text(2, chain_name), nested(4, *expressions)
    )


# --- maps and sets ------------------------------------------------------------------------------------


def _kind(types: Sequence[str]) -> tuple[int, int]:
    """The type of a key of several fields, and its length."""
    number = length = 0
    for name in types:
        number = number << 6 | _TYPES[name][0]
        length += _TYPES[name][1]
    return number, length


def _set(table_name: str, name: str, flags: int, number: int, family: int, *more: bytes) -> bytes:
    return _message(
        _NEWSET, CREATE, family, text(1, table_name), text(2, name), _n32(3, flags), _n32(10, number), *more
    )


def value_map(
    table_name: str, name: str, key: Sequence[str], value: str, number: int, family: int = IP
) -> bytes:
    """A named map to a value. `number`: of the sets that a batch makes, its own."""
    kind, length = _kind(key)
    to, width = _TYPES[value]
    return _set(
        table_name, name, _MAP, number, family, _n32(4, kind), _n32(5, length), _n32(6, to), _n32(7, width)
    )


def verdict_map(table_name: str, name: str, key: str, number: int, family: int = IP) -> bytes:
    """A named map to chains. `number`: of the sets that a batch makes, its own."""
    kind, length = _TYPES[key]
    return _set(
        table_name,
        name,
        _MAP,
        number,
        family,
        _n32(4, kind),
        _n32(5, length),
        _n32(6, _VERDICT_TYPE),
        _n32(7, 0),
    )


def address_set(table_name: str, name: str, size: int, number: int, family: int = IP) -> bytes:
    """A named set of addresses that rules may add to until it is full."""
    kind, length = _TYPES["ipv4_addr" if family == IP else "ipv6_addr"]
    return _set(
        table_name,
        name,
        _DYNAMIC,
        number,
        family,
        _n32(4, kind),
        _n32(5, length),
        nested(9, _n32(1, size)),
    )


def members(sock: NetlinkSocket, table_name: str, name: str, family: int = IP) -> set[str]:
    """The addresses in a set."""
    found: set[str] = set()
    for body in sock.dump(_message(_GETSETELEM, 0, family, text(1, table_name), text(2, name))):
        elements = attributes(body[4:]).get(3, b"")
        while len(elements) >= 4:
            length = struct.unpack_from("=H", elements)[0]
            key = attributes(attributes(elements[4:length])[1])[1]
            found.add(socket.inet_ntop(socket.AF_INET if family == IP else socket.AF_INET6, key))
            elements = elements[(length + 3) & ~3 :]
    return found


def put(table_name: str, map_name: str, values: Mapping[bytes, bytes], family: int = IP) -> list[bytes]:
    """Add elements to a map to values."""
    return _elements(
        _NEWSETELEM,
        CREATE,
        table_name,
        map_name,
        family,
        [
            nested(1, nested(1, attribute(1, key)), nested(2, attribute(1, value)))
            for key, value in values.items()
        ],
    )


def put_goto(table_name: str, map_name: str, targets: Mapping[bytes, str], family: int = IP) -> list[bytes]:
    """Add elements to a map to chains."""
    return _elements(
        _NEWSETELEM,
        CREATE,
        table_name,
        map_name,
        family,
        [
            nested(1, nested(1, attribute(1, key)), nested(2, nested(2, _n32(1, _GOTO), text(2, target))))
            for key, target in targets.items()
        ],
    )


def take(table_name: str, map_name: str, keys: Iterable[bytes], family: int = IP) -> list[bytes]:
    """Take elements out of a map."""
    elements = [nested(1, nested(1, attribute(1, key))) for key in keys]
    return _elements(_DELSETELEM, 0, table_name, map_name, family, elements)


def _elements(
    kind: int, flags: int, table_name: str, map_name: str, family: int, elements: Sequence[bytes]
) -> list[bytes]:
    return [
        _message(
            kind,
            flags,
            family,
            text(1, table_name),
            text(2, map_name),
            nested(3, *elements[start : start + _MAX_ELEMENTS]),
        )
        for start in range(0, len(elements), _MAX_ELEMENTS)
    ]
