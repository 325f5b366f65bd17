"""Who may talk to the API: the socket's mode, and TLS with client certificates."""

import datetime
import ipaddress
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cluster.errors import InvalidArgument, Unavailable
from manager.guard import Bounds, Guard
from shoal.daemon.config import DaemonConfig
from shoal.daemon.listeners import serve


class CertificateAuthority:
    """Issues certificates for 127.0.0.1 into a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(self._issue(self.name, self.key, authority=True))

    def _issue(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            x509.CertificateBuilder(self.name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(loopback, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str) -> tuple[str, str]:
        """A new certificate's file and its key's."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, secret = self.directory / f"{name}.pem", self.directory / f"{name}-key.pem"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate.write_bytes(self._issue(subject, key, authority=False))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(certificate), str(secret)


def application() -> web.Application:
    async def ping(_: web.Request) -> web.Response:
        return web.Response(text="OK")

    app = web.Application()
    app.router.add_get("/_ping", ping)
    return app


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def ask(port: int, context: ssl.SSLContext) -> str:
    connector = aiohttp.TCPConnector(ssl=context)
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.get(f"https://127.0.0.1:{port}/_ping") as answer,
    ):
        return await answer.text()


async def test_clients_must_prove_themselves(tmp_path: Path, stack: AsyncExitStack) -> None:
    ours, other = CertificateAuthority(tmp_path, "ours"), CertificateAuthority(tmp_path, "other")
    certificate, key = ours.issue("server")
    port = free_port()
    config = DaemonConfig(
        hosts=(f"tcp://127.0.0.1:{port}",),
        tlsverify=True,
        tlscacert=str(ours.file),
        tlscert=certificate,
        tlskey=key,
    )
    await serve(application(), config, stack, Guard(Bounds()))
    known = ssl.create_default_context(cafile=str(ours.file))
    known.load_cert_chain(*ours.issue("client"))
    assert await ask(port, known) == "OK"
    nobody = ssl.create_default_context(cafile=str(ours.file))
    stranger = ssl.create_default_context(cafile=str(ours.file))
    stranger.load_cert_chain(*other.issue("stranger"))
    for context in (nobody, stranger):
        with pytest.raises(aiohttp.ClientError):
            await ask(port, context)


async def test_certificates_that_are_not_there(tmp_path: Path, stack: AsyncExitStack) -> None:
    config = DaemonConfig(
        hosts=(f"tcp://127.0.0.1:{free_port()}",), tlsverify=True, tlscert=str(tmp_path / "none.pem")
    )
    with pytest.raises(InvalidArgument, match=r"can't load the TLS files .*none\.pem"):
        await serve(application(), config, stack, Guard(Bounds()))


async def test_the_socket_is_for_root_and_its_group(tmp_path: Path, stack: AsyncExitStack) -> None:
    path = tmp_path / "run" / "x.sock"
    config = DaemonConfig(hosts=(f"unix://{path}",))
    await serve(application(), config, stack, Guard(Bounds()))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with pytest.raises(Unavailable, match="another daemon serves on"):
        await serve(application(), config, stack, Guard(Bounds()))
    assert path.exists()
    await stack.aclose()
    assert not path.exists()


async def test_a_socket_that_a_crash_left_is_replaced(tmp_path: Path, stack: AsyncExitStack) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    await serve(application(), DaemonConfig(hosts=(f"unix://{path}",)), stack, Guard(Bounds()))
    connector = aiohttp.UnixConnector(path=str(path))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.get("http://shoal/_ping") as answer,
    ):
        assert answer.status == 200
