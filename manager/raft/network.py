"""Connections between managers: the seam, and its real form, TCP with mutual TLS 1.3.

Who a peer is comes from its certificate alone: CN is the node, OU the role, O the cluster.
"""

import asyncio
import os
import socket
import ssl
from dataclasses import dataclass
from typing import Protocol

from manager.raft.wire import ALPN

MANAGER_ROLE = "swarm-manager"
HANDSHAKE_TIMEOUT = 3.0
"""Seconds for connecting, and for the TLS handshake."""
_BUFFER_LIMIT = 1 << 26


@dataclass(frozen=True, slots=True)
class Identity:
    """What a verified certificate says about its holder."""

    node_id: str
    role: str
    cluster_id: str


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """This node's certificate chain and key, and the cluster's root certificates, as PEM."""

    certificate: bytes
    key: bytes
    ca: bytes

    def server_context(self) -> ssl.SSLContext:
        """For connections that peers open to us."""
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def client_context(self) -> ssl.SSLContext:
        """For connections that we open. The name is not checked by TLS: a node is its certificate's CN."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.ca.decode())
        # load_cert_chain only reads files; a memory file keeps the key off the disk.
        descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, self.certificate + b"\n" + self.key)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        context.set_alpn_protocols([ALPN])
        return context


class Link(Protocol):
    """One connection whose other end is authenticated."""

    @property
    def identity(self) -> Identity:
        """Who is at the other end."""

    def write(self, data: bytes) -> None:
        """Queue bytes for sending, in order."""

    def backlog(self) -> int:
        """Bytes queued that the kernel has not taken yet."""

    def close(self) -> None:
        """Send what is queued, then close."""

    def abort(self) -> None:
        """Close at once."""


class LinkHandler(Protocol):
    """What happens on a connection."""

    def link_made(self, link: Link) -> None:
        """The connection stands."""

    def data_received(self, data: bytes) -> None:
        """Bytes came."""

    def link_lost(self, error: Exception | None) -> None:
        """The connection ended; nothing follows."""


class Network(Protocol):
    """Makes connections."""

    async def dial(self, address: str, handler: LinkHandler) -> None:
        """Connect to "ip:port"; returns when handler.link_made was called. Raises OSError."""

    async def accept(self, sock: socket.socket, handler: LinkHandler) -> None:
        """Take over a connection that a peer opened. Raises OSError."""

    def update_tls(self, tls: TlsMaterial) -> None:
        """Use this certificate for connections from now on."""


class _TlsLink(asyncio.Protocol):
    """An asyncio connection as a Link."""

    def __init__(self, handler: LinkHandler) -> None:
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self.identity = Identity("", "", "")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"not a stream: {transport!r}")
        self._transport = transport
        transport.set_write_buffer_limits(high=_BUFFER_LIMIT)
        _keep_alive(transport.get_extra_info("socket"))
        self.identity = _identity(transport.get_extra_info("peercert"))
        self._handler.link_made(self)

    def data_received(self, data: bytes) -> None:
        self._handler.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._handler.link_lost(exc)

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def backlog(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class TlsNetwork:
    """TCP with mutual TLS 1.3 on the running loop."""

    def __init__(self, tls: TlsMaterial) -> None:
        self._server = tls.server_context()
        self._client = tls.client_context()

    def update_tls(self, tls: TlsMaterial) -> None:
        """Existing connections stay as they are."""
        self._server, self._client = tls.server_context(), tls.client_context()

    async def dial(self, address: str, handler: LinkHandler) -> None:
        """Connect; a refused certificate of the other side is an OSError (ssl.SSLError is one)."""
        host, port = address.rsplit(":", 1)
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            await asyncio.get_running_loop().create_connection(
                lambda: _TlsLink(handler),
                host.strip("[]"),
                int(port),
                ssl=self._client,
                server_hostname="manager",
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
                ssl_shutdown_timeout=HANDSHAKE_TIMEOUT,
            )

    async def accept(self, sock: socket.socket, handler: LinkHandler) -> None:
        """Handshake as the server."""
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _TlsLink(handler),
                sock,
                ssl=self._server,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
                ssl_shutdown_timeout=HANDSHAKE_TIMEOUT,
            )
        except BaseException:
            sock.close()
            raise


def _keep_alive(sock: socket.socket) -> None:
    """Notice a dead peer in a few seconds, also when idle; never wait to fill a packet."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_NODELAY, 1),
        (socket.TCP_KEEPIDLE, 2),
        (socket.TCP_KEEPINTVL, 1),
        (socket.TCP_KEEPCNT, 3),
        (socket.TCP_USER_TIMEOUT, 4000),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _identity(certificate: dict[str, object] | None) -> Identity:
    """The identity in what ssl's getpeercert returns; empty fields where the subject lacks them."""
    fields: dict[str, str] = {}
    subject = (certificate or {}).get("subject", ())
    if isinstance(subject, tuple):
        for relative_name in subject:
            for name, value in relative_name:
                fields.setdefault(name, value)
    return Identity(
        fields.get("commonName", ""),
        fields.get("organizationalUnitName", ""),
        fields.get("organizationName", ""),
    )
