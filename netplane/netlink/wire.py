"""Netlink framing: attributes, messages, and a socket that sends many messages at once."""

import os
import socket
import struct
import threading
from collections.abc import Sequence

from netplane.errors import NetworkError

ROUTE = 0
NETFILTER = 12

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
CREATE, EXCL, APPEND, REPLACE = 0x400, 0x200, 0x800, 0x100
NESTED = 0x8000

_ERROR, _DONE = 2, 3
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_SO_NETNS_COOKIE = 71
_BUFFER = 4 << 20
_HEADER = struct.Struct("=IHHII")
# Each message of a batch costs an acknowledgement of 36 bytes in the receive buffer.
_MAX_UNREAD = 256


class NetlinkError(NetworkError):
    """The kernel refused a message. `errno` is its reason, `index` the message's place in the batch."""

    def __init__(self, errno: int, what: str = "", index: int = 0) -> None:
        super().__init__(f"{what or 'netlink'}: {os.strerror(errno)}")
        self.errno = errno
        self.index = index


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(attributes))


def u32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in host order."""
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    """A zero-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in `data` by kind, without the nested flag."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def message(kind: int, flags: int, body: bytes) -> bytes:
    """A request; the sequence number is written when it is sent."""
    return _HEADER.pack(_HEADER.size + len(body), kind, REQUEST | flags, 0, 0) + body


class NetlinkSocket:
    """A netlink socket in the network namespace of the thread that made it. Safe to share between threads.

    It keeps that namespace alive until closed.
    """

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
                self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        except OSError:
            self._socket.close()
            raise
        self._lock = threading.Lock()
        self._sequence = 0

    @property
    def port(self) -> int:
        """The kernel's name for this socket; changes that it makes are told with it."""
        return int(self._socket.getsockname()[0])

    def close(self) -> None:
        """Let go of the namespace."""
        self._socket.close()

    def namespace_cookie(self) -> int:
        """What the kernel calls its network namespace (since Linux 5.14). Raises OSError."""
        return int(struct.unpack("=Q", self._socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])

    def execute(self, messages: Sequence[bytes], what: str = "", ignore: Sequence[int] = ()) -> None:
        """Send independent messages at once; raises NetlinkError for the first that failed.

        The messages before and after a failed one are carried out. Errors in `ignore` are none.
        """
        failure: NetlinkError | None = None
        with self._lock:
            for start in range(0, len(messages), _MAX_UNREAD):
                part = messages[start : start + _MAX_UNREAD]
                for index, errno in self._exchange(part, [ACK] * len(part)):
                    if failure is None and errno not in ignore:
                        failure = NetlinkError(errno, what, start + index)
        if failure is not None:
            raise failure

    def transaction(self, begin: bytes, messages: Sequence[bytes], end: bytes, what: str = "") -> None:
        """Send one nfnetlink batch: all or nothing. Only its last message asks for an acknowledgement."""
        batch = [begin, *messages, end]
        flags = [0] * len(batch)
        flags[-2] = ACK
        with self._lock:
            failed = self._exchange(batch, flags)
        if failed:
            index, errno = failed[0]
            raise NetlinkError(errno, what, index - 1)

    def dump(self, request: bytes) -> list[bytes]:
        """The messages (type-specific header and attributes) that answer a dump request."""
        return self._ask(request, DUMP)

    def request(self, request: bytes) -> list[bytes]:
        """The one message that answers a plain request."""
        return self._ask(request, ACK)

    def _ask(self, request: bytes, flags: int) -> list[bytes]:
        found: list[bytes] = []
        with self._lock:
            self._sequence += 1
            self._socket.send(_stamp(request, flags, self._sequence))
            while True:
                data = self._socket.recv(1 << 18)
                offset = 0
                while offset < len(data):
                    length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
                    body = data[offset + _HEADER.size : offset + length]
                    offset += (length + 3) & ~3
                    if sequence != self._sequence:
                        continue
                    if kind == _DONE:
                        return found
                    if kind == _ERROR:
                        errno = -struct.unpack_from("=i", body)[0]
                        if errno:
                            raise NetlinkError(errno, "asking the kernel")
                        return found
                    found.append(body)

    def _exchange(self, messages: Sequence[bytes], flags: Sequence[int]) -> list[tuple[int, int]]:
        """Send all in one system call and gather (index, errno) of those that failed."""
        first = self._sequence + 1
        self._sequence += len(messages)
        stamped = [
            _stamp(each, flag, first + i) for i, (each, flag) in enumerate(zip(messages, flags, strict=True))
        ]
        self._socket.send(b"".join(stamped))
        failed: list[tuple[int, int]] = []
        awaited = {first + i for i, flag in enumerate(flags) if flag & ACK}
        # A transaction that fails may be answered for a message that asked for nothing, and not for the last.
        transactional = len(awaited) < len(messages)
        while awaited:
            data = self._socket.recv(1 << 18)
            offset = 0
            while offset < len(data):
                length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
                if kind == _ERROR and first <= sequence < first + len(messages):
                    errno = -struct.unpack_from("=i", data, offset + _HEADER.size)[0]
                    awaited.discard(sequence)
                    if errno:
                        failed.append((sequence - first, errno))
                        if transactional:
                            awaited.clear()
                offset += (length + 3) & ~3
        return failed


def _stamp(each: bytes, flags: int, sequence: int) -> bytes:
    length, kind, given, _, _ = _HEADER.unpack_from(each)
    return _HEADER.pack(length, kind, given | flags, sequence, 0) + each[_HEADER.size :]
