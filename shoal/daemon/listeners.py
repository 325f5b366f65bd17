"""Where the API is served: unix sockets, TCP, TCP with TLS."""

import asyncio
import contextlib
import grp
import logging
import os
import socket
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from cluster.errors import InvalidArgument, Unavailable
from manager.guard import Guard
from shoal.daemon.config import DaemonConfig, Listener, listeners

log = logging.getLogger("shoal.daemon.api")

HANDSHAKE_TIMEOUT = 10.0
BACKLOG = 128
GROUP = "docker"  # whose members may use the socket, where the group exists


class _ClientFaults(logging.Filter):
    """What clients do wrong, or their going away, is not this daemon's trouble: a line, no traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, ConnectionError | HttpProcessingError | web.RequestPayloadError):
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.exc_info = None
            record.error = " ".join(str(error).split())
            record.msg, record.args = "a request broke off", ()
        return True


async def serve(app: web.Application, config: DaemonConfig, stack: AsyncExitStack, guard: Guard) -> None:
    """Serve on all configured addresses until the stack closes; `guard` bounds what clients may take."""
    requests = logging.getLogger("shoal.daemon.requests")
    requests.addFilter(_ClientFaults())
    runner = guard.runner(app, logger=requests, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    for listener in listeners(config):
        context = _tls(config) if listener.tls else None
        sock = _bind(listener)
        if listener.path:
            stack.callback(Path(listener.path).unlink, missing_ok=True)
        if context is None:
            await web.SockSite(runner, sock).start()
        else:
            await _serve_tls(runner, sock, context, stack)
        if listener.port and not listener.tls:
            log.warning(
                "THE API IS SERVED WITHOUT TLS: whoever reaches this address is root on this machine",
                extra={"address": str(listener)},
            )
        log.info("API listens", extra={"address": str(listener)})


async def _serve_tls(
    runner: web.AppRunner, sock: socket.socket, context: ssl.SSLContext, stack: AsyncExitStack
) -> None:
    """As a SockSite, but a handshake that stalls ends soon."""
    assert runner.server is not None, "the runner is set up"
    server = await asyncio.get_running_loop().create_server(
        runner.server, sock=sock, ssl=context, ssl_handshake_timeout=HANDSHAKE_TIMEOUT, backlog=BACKLOG
    )
    stack.callback(server.close)


def _bind(listener: Listener) -> socket.socket:
    try:
        return _bind_unix(listener.path) if listener.path else _bind_tcp(listener)
    except OSError as error:
        raise Unavailable(f"can't listen on {listener}: {error.strerror}") from error


def _bind_unix(path: str) -> socket.socket:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if _answers(path):
        raise Unavailable(f"another daemon serves on {path}: stop it, or pass another --host")
    Path(path).unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o117)
    try:
        sock.bind(path)
    finally:
        os.umask(old)
    with contextlib.suppress(KeyError):  # no such group here: root alone uses the socket
        os.chown(path, 0, grp.getgrnam(GROUP).gr_gid)
    return sock


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == 0


def _bind_tcp(listener: Listener) -> socket.socket:
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((listener.address, listener.port))
    return sock


def _tls(config: DaemonConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tlscert, config.tlskey)
        if config.tlsverify:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(config.tlscacert)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(
            f"can't load the TLS files ({config.tlscacert}, {config.tlscert}, {config.tlskey}): {error}"
        ) from error
    return context
