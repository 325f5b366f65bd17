"""Connections that stop being HTTP: attach and exec take them over for raw streams, as dockerd does.

The client asks with `Connection: Upgrade` and `Upgrade: tcp`, and is answered 101; an old one does without,
is answered 200, and sends and gets the same bytes. It may close its side (its input has ended) and read on.
"""

import asyncio
import fcntl
import select
import socket
import struct
import termios
from collections.abc import Mapping
from types import TracebackType
from typing import Any, cast

from aiohttp import web

from worker.api.half_closed_tls import HalfClosedTLS, of_tls
from worker.api.http import common_headers

_WINDOW = 1 << 20
"""Bytes of input that may wait for a slow container; then the client waits."""


_LOOK_EVERY = 1.0
"""Seconds between two looks for a client that listens only."""


_HEADER_LOOKS, _HEADER_PAUSE = 100, 0.001
"""How often, and with which pause in seconds, to look whether the client has read the headers."""


class _Collector:
    """What came behind the request's head, as aiohttp gives it to those that take over."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        pass


class Hijacked(asyncio.Protocol):
    """One connection as two streams of bytes. Use it as a context: it closes the connection."""

    def __init__(self, request: web.Request, headers: Mapping[str, str]) -> None:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._tls = of_tls(transport)
        self._socket = transport.get_extra_info("socket")
        self._transport: asyncio.Transport | HalfClosedTLS = self._tls or transport
        self._http = request.protocol
        self._upgrade = request.headers.get("Upgrade", "").lower() == "tcp"
        self._headers = headers
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._ended = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._heard = False

    async def __aenter__(self) -> "Hijacked":
        collector = _Collector()
        self._http.keep_alive(False)
        self._http.set_parser(cast("Any", collector))
        self._buffer += collector.data
        self._transport.set_protocol(self)
        self._transport.resume_reading()
        status = "101 UPGRADED" if self._upgrade else "200 OK"
        headers = {**common_headers(), **self._headers}
        if self._upgrade:
            headers |= {"Connection": "Upgrade", "Upgrade": "tcp"}
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self._transport.write("\r\n".join(lines).encode())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._transport.is_closing():
            self._transport.close()  # what was written is still sent

    async def read(self) -> bytes:
        """What the client has sent; empty once it has closed its side."""
        while not self._buffer and not self._ended:
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._buffer)
        self._buffer.clear()
        if not self._transport.is_closing():
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send to the client. ConnectionResetError when it has gone."""
        if not self._heard:
            self._heard = True
            await self._headers_read()
        if self._transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._transport.write(data)
        await self._writable.wait()

    async def _headers_read(self) -> None:
        """Return when the client has probably taken the headers.

        docker-py loses what it reads together with them, as it goes on behind the buffer that they came by.
        On a unix socket the kernel tells what the peer has not read; on TCP, what has not reached it.
        """
        if self._socket is None:
            return
        for _ in range(_HEADER_LOOKS):
            if self._transport.is_closing():
                return
            unread = struct.unpack("i", fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
            if not unread:
                return
            await asyncio.sleep(_HEADER_PAUSE)

    async def gone(self) -> None:
        """Return when a client that has closed its side is not there any more.

        On a unix socket the kernel tells the two apart; on TCP only sending something shows it.
        """
        connection = self._socket
        if connection is None or connection.family != socket.AF_UNIX:
            await asyncio.Event().wait()
            return
        watch = select.poll()
        while not self._transport.is_closing():
            watch.register(connection.fileno(), 0)  # a hang-up is always told
            if any(event & select.POLLHUP for _, event in watch.poll(0)):
                return
            await asyncio.sleep(_LOOK_EVERY)

    # --- asyncio.Protocol -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """The client sent something."""
        self._buffer += data
        if len(self._buffer) > _WINDOW:
            self._transport.pause_reading()
        self._arrived.set()

    def eof_received(self) -> bool:
        """The client has no more to say, and may want to hear more."""
        self._ended = True
        self._arrived.set()
        return True

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client caught up."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, for the HTTP side too, which ends the handler."""
        self._ended = True
        self._arrived.set()
        self._writable.set()
        if self._tls is None:  # else asyncio's TLS has told it
            self._http.connection_lost(exc)


class Done(web.Response):
    """What a handler returns that has answered by itself already."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is sent."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is sent."""
