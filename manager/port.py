"""The one TCP port of a manager: Raft and HTTP share it, told apart by the ALPN names in the ClientHello.

The look at the ClientHello only routes; each side's TLS decides for itself whom it talks to.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from functools import partial

from manager.raft.wire import ALPN
from manager.sources import Sources

log = logging.getLogger("shoal.port")

BACKLOG = 256
MAX_WAITING = 512
"""Connections that have not sent a whole ClientHello yet; beyond that, the oldest is closed."""
HELLO_TIMEOUT = 3.0
"""Seconds for a whole ClientHello to arrive."""
_PEEK = 16384 + 5
_PARTIAL_PAUSE = 0.01
_PAUSE_WITHOUT_DESCRIPTORS = 0.1

_HANDSHAKE, _CLIENT_HELLO, _ALPN_EXTENSION = 22, 1, 16

Accept = Callable[[socket.socket], None]


class ClusterPort:
    """Listens, looks, and hands each connection to raft_accept or http_accept, which own it from then on."""

    def __init__(self, host: str, port: int, raft_accept: Accept, http_accept: Accept) -> None:
        """port 0 takes a free one; see `address`."""
        self._host = host
        self._port = port
        self._raft_accept = raft_accept
        self._http_accept = http_accept
        self._listener: socket.socket | None = None
        self._sources = Sources()
        self._pause: asyncio.TimerHandle | None = None
        self._waiting: dict[asyncio.Task[None], socket.socket] = {}

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are listened on."""
        if self._listener is None:
            return self._host, self._port
        name = self._listener.getsockname()
        return str(name[0]), int(name[1])

    async def start(self) -> None:
        """Listen. Raises OSError, for instance when the port is taken."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind((self._host, self._port))
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self._listen()

    async def stop(self) -> None:
        """Stop listening, and close connections not handed on yet."""
        waiting = dict(self._waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        if self._pause is not None:
            self._pause.cancel()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()

    def _listen(self) -> None:
        # Not loop.sock_accept: cancelled at the wrong moment, it loses the connection it has just accepted.
        self._pause = None
        asyncio.get_running_loop().add_reader(self._socket, self._accept_all)

    @property
    def _socket(self) -> socket.socket:
        assert self._listener is not None, "start() comes first"
        return self._listener

    def _accept_all(self) -> None:
        """Accept what waits. Without descriptors, try again in a while: the listener stays open."""
        for _ in range(BACKLOG):
            try:
                sock, source = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                log.error("can't accept connections for now: %s", error)
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._socket)
                self._pause = loop.call_later(_PAUSE_WITHOUT_DESCRIPTORS, self._listen)
                return
            if not self._sources.admit(str(source[0]), asyncio.get_running_loop().time()):
                sock.close()
                continue
            sock.setblocking(False)
            if len(self._waiting) >= MAX_WAITING:
                # Not the new one: those who mean it speak at once.
                oldest = next(iter(self._waiting))
                del self._waiting[oldest]
                oldest.cancel()
            task = asyncio.create_task(self._route(sock))
            self._waiting[task] = sock
            task.add_done_callback(partial(self._waited, sock))

    def _waited(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        self._waiting.pop(task, None)
        if task.cancelled():  # perhaps before its first step, so that it could not close it
            sock.close()

    async def _route(self, sock: socket.socket) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                names = await _offered_protocols(sock)
        except (OSError, TimeoutError):
            sock.close()
            return
        except BaseException:
            sock.close()
            raise
        if ALPN in names:
            self._raft_accept(sock)
        else:
            self._http_accept(sock)


async def _offered_protocols(sock: socket.socket) -> list[str]:
    """The ALPN names of the ClientHello that waits in the socket, which stays unread."""
    seen = 0
    while True:
        await _readable(sock)
        data = sock.recv(_PEEK, socket.MSG_PEEK)
        if not data:
            raise ConnectionResetError("closed before saying anything")
        names = client_hello_protocols(data)
        if names is not None:
            return names
        if len(data) == seen:
            # What is there stays readable, so waiting for readability would spin.
            await asyncio.sleep(_PARTIAL_PAUSE)
        seen = len(data)


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, wake)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


def client_hello_protocols(data: bytes) -> list[str] | None:
    """ALPN names of a ClientHello (RFC 8446, RFC 7301); [] if it is none or has none; None if cut short."""
    if data[0] != _HANDSHAKE:
        return []
    hello = bytearray()
    offset = 0
    while offset + 5 <= len(data) and data[offset] == _HANDSHAKE:  # A hello can span records.
        length = int.from_bytes(data[offset + 3 : offset + 5])
        hello += data[offset + 5 : offset + 5 + length]
        offset += 5 + length
    if len(hello) < 4:
        return None
    if hello[0] != _CLIENT_HELLO:
        return []
    size = int.from_bytes(hello[1:4])
    if size > _PEEK:
        return []
    if len(hello) < 4 + size:
        return None
    try:
        return _alpn_names(bytes(hello[4 : 4 + size]))
    except IndexError:
        return []


def _alpn_names(hello: bytes) -> list[str]:
    offset = 2 + 32  # version, random
    offset += 1 + hello[offset]  # session id
    offset += 2 + int.from_bytes(hello[offset : offset + 2])  # cipher suites
    offset += 1 + hello[offset]  # compression methods
    offset += 2  # length of the extensions
    while offset + 4 <= len(hello):
        kind = int.from_bytes(hello[offset : offset + 2])
        length = int.from_bytes(hello[offset + 2 : offset + 4])
        if kind == _ALPN_EXTENSION:
            names, position, end = [], offset + 6, offset + 4 + length
            while position < end:
                size = hello[position]
                names.append(hello[position + 1 : position + 1 + size].decode("ascii", "replace"))
                position += 1 + size
            return names
        offset += 4 + length
    return []
