"""Real registries: Debian's docker-registry with storage in a directory."""

import asyncio
import datetime
import ipaddress
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.layers import MadeImage
from worker.images.digest import digest_of
from worker.images.manifest import OCI_MANIFEST

HTPASSWD = "alice:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
"""The user alice with the password `secret` (bcrypt)."""


@dataclass(frozen=True)
class RealRegistry:
    """Where it listens, and the CA that signed its certificate if it has one."""

    host: str
    authority: Path | None = None


@asynccontextmanager
async def real_registry(
    directory: Path, *, htpasswd: str = "", tls: bool = False
) -> AsyncIterator[RealRegistry]:
    """Run docker-registry on a free port of 127.0.0.1 until the context ends."""
    directory.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lines = [
        "version: 0.1",
        f"storage: {{filesystem: {{rootdirectory: {directory / 'data'}}}}}",
        "http:",
        f"  addr: 127.0.0.1:{port}",
    ]
    if tls:
        _self_signed(directory)
        lines.append(f"  tls: {{certificate: {directory / 'tls.crt'}, key: {directory / 'tls.key'}}}")
    if htpasswd:
        (directory / "htpasswd").write_text(htpasswd)
        lines.append(f"auth: {{htpasswd: {{realm: test, path: {directory / 'htpasswd'}}}}}")
    (directory / "config.yml").write_text("\n".join(lines) + "\n")
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([_program(), "serve", directory / "config.yml"], stdout=log, stderr=log)
    try:
        await _wait_for_port(port, process)
        yield RealRegistry(f"127.0.0.1:{port}", directory / "tls.crt" if tls else None)
    finally:
        process.terminate()
        process.wait(10)


async def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise RuntimeError("docker-registry ended at start")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        await writer.wait_closed()
        return
    raise TimeoutError("docker-registry does not listen")


def _self_signed(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test registry")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


async def upload(host: str, name: str, tag: str, image: MadeImage) -> str:
    """Put an image into a plain HTTP registry without our own client; gives the manifest's digest."""
    async with aiohttp.ClientSession() as session:
        for blob in (image.config, *image.blobs):
            async with session.post(f"http://{host}/v2/{name}/blobs/uploads/") as response:
                assert response.status == 202
                location = response.headers["Location"]
            async with session.put(location, params={"digest": digest_of(blob)}, data=blob) as response:
                assert response.status == 201
        return await upload_manifest(host, name, tag, image.manifest, OCI_MANIFEST)


async def upload_manifest(host: str, name: str, tag: str, content: bytes, media_type: str) -> str:
    """Put a manifest or an index."""
    url = f"http://{host}/v2/{name}/manifests/{tag}"
    headers = {"Content-Type": media_type}
    async with (
        aiohttp.ClientSession() as session,
        session.put(url, data=content, headers=headers) as response,
    ):
        assert response.status == 201, await response.text()
    return digest_of(content)


def _program() -> str:
    found = shutil.which("docker-registry")
    if found is None:
        raise RuntimeError("these tests need docker-registry: `make test` unpacks it, or install the package")
    return found
