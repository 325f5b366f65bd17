"""The programs: connect() to a service's address becomes one to a backend; getpeername() tells the service.

Addresses are 16 bytes, IPv4 ones mapped (::ffff:a.b.c.d), so that one set of maps serves both families, and
the sockets that speak IPv4 through IPv6. Maps:

- `spaces`: the cookie of a network namespace → the networks that it is in, as 8-byte keys, ended by 0;
- `sizes`: network and service address → the number of backends, and how often one was chosen;
- `backends`: network, service address and slot → the backend's address;
- `peers`: of each socket that was led: the service's address and the backend's.

What the programs do not find passes as it is, and meets the rules of the sandbox (`netplane.sandbox_rules`).
They stay at TCP: only there does connect() come before everything else.
"""

import socket
import sys

from netplane.bpf.assembler import DOUBLE, FRAME, R0, R1, R2, R3, R4, R6, R7, R8, R9, Program

INET4_CONNECT, INET6_CONNECT, INET4_GETPEERNAME, INET6_GETPEERNAME = 10, 11, 29, 30
NETWORKS = 8
"""At most so many networks of a sandbox are known; addresses in others meet its rules."""

_LOOKUP, _STORAGE, _COOKIE = 1, 107, 122  # helpers
_IP4, _IP6, _PROTOCOL, _SOCKET = 4, 8, 36, 64  # in struct bpf_sock_addr
_MAPPED = -0x10000 if sys.byteorder == "little" else 0xFFFF  # the bytes 00 00 ff ff
# The frame: a key of `backends`, of which one of `sizes` is the beginning; and the namespace's cookie.
_KEY, _ADDRESS, _SLOT, _SPACE = -48, -40, -24, -8
_CREATE = 1


def connect(*, ipv6: bool) -> Program:
    """For connect()."""
    code = Program()
    code.move(R6, R1)
    code.load(R2, R6, _PROTOCOL)
    code.jump_unless(R2, socket.IPPROTO_TCP, "pass")
    code.call(_COOKIE)
    code.store(FRAME, _SPACE, R0, DOUBLE)
    _look_up(code, "spaces", _SPACE)
    code.jump_if(R0, 0, "pass")
    code.move(R7, R0)
    if ipv6:
        for part in range(0, 16, 4):
            code.load(R2, R6, _IP6 + part)
            code.store(FRAME, _ADDRESS + part, R2)
    else:
        code.store_value(FRAME, _ADDRESS, 0, DOUBLE)
        code.store_value(FRAME, _ADDRESS + 8, _MAPPED)
        code.load(R2, R6, _IP4)
        code.store(FRAME, _ADDRESS + 12, R2)
    for place in range(NETWORKS):
        code.load(R2, R7, 8 * place, DOUBLE)
        code.jump_if(R2, 0, "pass")
        code.store(FRAME, _KEY, R2, DOUBLE)
        _look_up(code, "sizes", _KEY)
        code.jump_unless(R0, 0, "found")
    code.label("pass")
    code.exit(1)
    code.label("found")
    code.load(R8, R0, 0)
    code.jump_if(R8, 0, "pass")  # no backends: the rules refuse
    code.set(R2, 1)  # the turn is that of all containers of the node together
    code.take_number(R0, 4, R2)
    code.modulo(R2, R8)
    code.store_value(FRAME, _SLOT, 0, DOUBLE)
    code.store(FRAME, _SLOT, R2)
    _look_up(code, "backends", _KEY)
    code.jump_unless(R0, 0, "chosen")
    # The slot may be gone, if the size was read just before a change. Then the first serves.
    code.store_value(FRAME, _SLOT, 0)
    _look_up(code, "backends", _KEY)
    code.jump_if(R0, 0, "pass")
    code.label("chosen")
    code.move(R9, R0)
    _storage(code, _CREATE)
    for part in range(0, 16, 4):
        code.load(R2, FRAME, _ADDRESS + part)
        code.store(R0, part, R2)
        code.load(R2, R9, part)
        code.store(R0, 16 + part, R2)
        if ipv6:
            code.store(R6, _IP6 + part, R2)
    if not ipv6:  # the last four bytes are in R2 still
        code.store(R6, _IP4, R2)
    code.exit(1)
    return code


def peer_name(*, ipv6: bool) -> Program:
    """For getpeername(): who is connected to the backend that was chosen reads the service's address."""
    code = Program()
    code.move(R6, R1)
    code.load(R2, R6, _PROTOCOL)
    code.jump_unless(R2, socket.IPPROTO_TCP, "pass")
    _storage(code, 0)
    places = [(_IP6 + part, part) for part in range(0, 16, 4)] if ipv6 else [(_IP4, 12)]
    for place, part in places:
        code.load(R2, R6, place)
        code.load(R3, R0, 16 + part)
        code.jump_if_other(R2, R3, "pass")
    for place, part in places:
        code.load(R2, R0, part)
        code.store(R6, place, R2)
    code.label("pass")
    code.exit(1)
    return code


def _look_up(code: Program, name: str, key: int) -> None:
    code.map(R1, name)
    code.move(R2, FRAME)
    code.add(R2, key)
    code.call(_LOOKUP)


def _storage(code: Program, flags: int) -> None:
    """R0 becomes what the socket has in `peers`."""
    code.load(R2, R6, _SOCKET, DOUBLE)
    code.jump_if(R2, 0, "pass")
    code.map(R1, "peers")
    code.set(R3, 0)
    code.set(R4, flags)
    code.call(_STORAGE)
    code.jump_if(R0, 0, "pass")
