"""A TLS connection whose client may close its side and read on, as docker's command does.

asyncio ends a TLS connection as a whole as soon as the other side has closed its half, and what is still to
be said is lost. Here the TLS state is taken from asyncio and driven on the bare transport instead.
"""

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from contextlib import suppress
from typing import Any

_CHUNK = 256 << 10


def of_tls(transport: asyncio.Transport) -> "HalfClosedTLS | None":
    """A connection's TLS, to be taken over; None for a connection without."""
    protocol = getattr(transport, "_ssl_protocol", None)
    return HalfClosedTLS(protocol) if isinstance(protocol, SSLProtocol) else None


class HalfClosedTLS(asyncio.Protocol):
    """What Hijacked needs of a transport."""

    def __init__(self, protocol: SSLProtocol) -> None:
        inner: Any = protocol
        self._protocol = protocol
        self._tls: ssl.SSLObject = inner._sslobj
        self._incoming: ssl.MemoryBIO = inner._incoming
        self._outgoing: ssl.MemoryBIO = inner._outgoing
        self._raw: asyncio.Transport = inner._transport
        self._client: asyncio.Protocol | None = None
        self._ended = False

    # --- as a transport ---------------------------------------------------------------------------------

    def set_protocol(self, client: asyncio.BaseProtocol) -> None:
        """Take the connection over for `client`."""
        assert isinstance(client, asyncio.Protocol)
        self._client = client
        self._raw.set_protocol(self)
        self._receive()

    def write(self, data: bytes) -> None:
        """Send."""
        self._tls.write(data)
        self._flush()

    def close(self) -> None:
        """Send what is left, and that there will be no more."""
        with suppress(ssl.SSLError):  # the client has not closed its side yet: ours is told nevertheless
            self._tls.unwrap()
        self._flush()
        self._raw.close()

    def is_closing(self) -> bool:
        """True once nothing can be sent any more."""
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        """The client must wait."""
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """The client may go on."""
        self._raw.resume_reading()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._raw.is_closing():
            self._raw.write(data)

    # --- as the bare transport's protocol ---------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Ciphertext."""
        self._incoming.write(data)
        self._receive()

    def _receive(self) -> None:
        assert self._client is not None
        while not self._ended:
            try:
                data = self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError as error:
                self._raw.abort()
                self._client.connection_lost(error)
                return
            if data:
                self._client.data_received(data)
            else:
                self._ended = True
                self._client.eof_received()
        self._flush()  # an answer to a renegotiation, say

    def eof_received(self) -> bool:
        """The client closed without a word of TLS: as good as having closed its side."""
        if not self._ended and self._client is not None:
            self._ended = True
            self._client.eof_received()
        return True

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        if self._client is not None:
            self._client.pause_writing()

    def resume_writing(self) -> None:
        """The client caught up."""
        if self._client is not None:
            self._client.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end: of asyncio's TLS too, which tells HTTP."""
        self._protocol.connection_lost(exc)
        if self._client is not None:
            self._client.connection_lost(exc)
