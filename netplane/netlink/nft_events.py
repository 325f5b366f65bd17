"""Tells when somebody else changes nftables in a network namespace: a subscription, no polling.

Each change comes as messages of its transaction, which carry the netlink port of whoever made it. A filter in
the kernel leaves out those of our own sockets, so that our changes cost nothing here.
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Collection
from pathlib import Path

from netplane.netlink.wire import NETFILTER

ALL = "*"
"""Stands for every table: more happened than the kernel could tell, or a ruleset was flushed."""

_GROUP = 7  # NFNLGRP_NFTABLES
_NEW_GENERATION = 15
_SUBSYSTEM = 10
_HEADER = struct.Struct("=IHHII")
_NETFILTER_HEADER = 4
_PORT_OFFSET = 12  # of nlmsg_pid
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_ATTACH_FILTER = 26
# linux/bpf_common.h, linux/filter.h
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_KEEP, _LEAVE_OUT = 0xFFFFFFFF, 0


class RulesWatch:
    """A subscription in the network namespace of the thread that makes it, kept alive until it is closed."""

    def __init__(self, own: Collection[int]) -> None:
        """Args: own: the netlink ports whose changes are not told (see `own_ports`)."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETFILTER
        )
        try:
            self._socket.bind((0, 0))
            self.leave_out(own)
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """To wait for."""
        return self._socket.fileno()

    def close(self) -> None:
        """Let go of the namespace."""
        self._socket.close()

    def changed(self) -> set[str]:
        """The tables that others changed since this was last asked; ALL among them if nobody can say."""
        found: set[str] = set()
        while True:
            try:
                data = self._socket.recv(1 << 17)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found.add(ALL)
                continue
            found |= tables_in(data)

    def leave_out(self, own: Collection[int]) -> None:
        """From now on, changes of these ports are not told."""
        ports = sorted({0, *own})  # 0: the kernel itself, as links go
        program = [(_LOAD_WORD, 0, 0, _PORT_OFFSET)]
        for number, port in enumerate(ports):
            # The kernel loads the word as if it were in network order.
            program.append((_JUMP_IF_EQUAL, len(ports) - number, 0, socket.htonl(port)))
        program += [(_RETURN, 0, 0, _KEEP), (_RETURN, 0, 0, _LEAVE_OUT)]
        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
        # A struct sock_fprog: how many instructions, and where they are.
        pointer = struct.pack("@HP", len(program), ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)


def tables_in(data: bytes) -> set[str]:
    """The names of the tables that the messages in a datagram are about."""
    found: set[str] = set()
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            break
        if kind >> 8 == _SUBSYSTEM and kind & 0xFF != _NEW_GENERATION:
            found.add(_table(data[offset + _HEADER.size + _NETFILTER_HEADER : offset + length]))
        offset += (length + 3) & ~3
    return found


def _table(body: bytes) -> str:
    """Attribute 1 of every message is its table's name."""
    length, kind = struct.unpack_from("=HH", body) if len(body) >= 4 else (0, 0)
    return body[4:length].rstrip(b"\0").decode(errors="replace") if kind == 1 else ALL


def own_ports() -> set[int]:
    """The ports of this process's netfilter netlink sockets in the namespace of the calling thread.

    Also those that a library has opened and tells nobody of.
    """
    own: set[str] = set()
    for each in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{each}")
        except FileNotFoundError:
            continue  # the listing's own
        if target.startswith("socket:["):
            own.add(target[8:-1])
    ports: set[int] = set()
    for line in Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]:
        _, family, port, *_, inode = line.split()
        if int(family) == NETFILTER and inode in own:
            ports.add(int(port))
    return ports
