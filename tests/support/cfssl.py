"""A certificate authority that answers as CFSSL's signer does, over HTTPS.

`python -m tests.support.cfssl DIRECTORY NAME PORT` serves one under that host name; its root is in
DIRECTORY/root.pem.
"""

import http.server
import ipaddress
import json
import os
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

PATH = "/api/v1/cfssl/sign"
_OIDS = {"O": NameOID.ORGANIZATION_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME}
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def pem(thing: x509.Certificate | Key) -> str:
    """As text."""
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM).decode()
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return thing.private_bytes(*encoding).decode()


class CertificateAuthority:
    """A root made with other means than the product's."""

    def __init__(
        self,
        name: str = "Example Root",
        key: Key | None = None,
        *,
        path_length: int | None = None,
        authority: bool = True,
        days: int = 3650,
        identifier: bytes | None = b"",
    ) -> None:
        """identifier: its key's; None: it has none, as old tools make them."""
        self.key = key or ec.generate_private_key(ec.SECP384R1())
        self.lies: dict[str, Any] = {}
        """What it does otherwise than it is asked: "OU", "hosts", or "fail" with a message."""
        self.asked: list[dict[str, Any]] = []
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, subject, self.key.public_key(), days).add_extension(
            x509.BasicConstraints(ca=authority, path_length=path_length), critical=True
        )
        own = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        if identifier:
            own = x509.SubjectKeyIdentifier(identifier)
        if identifier is not None:
            builder = builder.add_extension(own, critical=False)
        self._issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
        self.certificate = builder.sign(self.key, hashes.SHA256())

    def _builder(self, subject: x509.Name, issuer: x509.Name, key: Any, days: int) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=days))
        )

    def sign(self, request: dict[str, Any]) -> str:
        """The certificate that is asked for, with the subject, hosts and profile of the request."""
        self.asked.append(request)
        csr = x509.load_pem_x509_csr(request["certificate_request"].encode())
        subject = csr.subject
        if "subject" in request:
            wanted = request["subject"]
            names = [
                (oid, part[key]) for part in wanted["names"] for key, oid in _OIDS.items() if key in part
            ]
            names = [(oid, self.lies.get("OU", text) if oid == _OIDS["OU"] else text) for oid, text in names]
            subject = x509.Name(
                [x509.NameAttribute(oid, text) for oid, text in (*names, (NameOID.COMMON_NAME, wanted["CN"]))]
            )
        builder = self._builder(subject, self.certificate.subject, csr.public_key(), 30)
        if self.lies.get("profile", request.get("profile")) == "CA":
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        hosts = self.lies.get("hosts", request.get("hosts"))
        if hosts:
            alternatives = [x509.DNSName(host) for host in hosts]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        builder = builder.add_extension(self._issuer, critical=False)
        return pem(builder.sign(self.key, hashes.SHA256()))

    def answer(self, content: bytes) -> dict[str, Any]:
        """CFSSL's envelope around it."""
        if "fail" in self.lies:
            errors = [{"code": 1, "message": self.lies["fail"]}]
            return {"success": False, "result": None, "errors": errors, "messages": []}
        certificate = self.sign(json.loads(content))
        return {"success": True, "result": {"certificate": certificate}, "errors": [], "messages": []}

    def server_context(self, name: str) -> ssl.SSLContext:
        """TLS under a host name or address, by a certificate of its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        try:
            alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            alternative = x509.DNSName(name)
        certificate = (
            self._builder(subject, self.certificate.subject, key.public_key(), 30)
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        descriptor = os.memfd_create("cfssl", os.MFD_CLOEXEC)  # OpenSSL reads files only
        try:
            os.write(descriptor, (pem(certificate) + pem(key)).encode())
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return context

    def server(self, name: str, port: int) -> http.server.ThreadingHTTPServer:
        """An HTTPS server; port 0 takes a free one."""
        authority = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path != PATH:
                    self.send_error(404)
                    return
                answer = json.dumps(authority.answer(content)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("", port), Handler)
        server.socket = self.server_context(name).wrap_socket(server.socket, server_side=True)
        return server

    @contextmanager
    def serving(self, name: str = "127.0.0.1") -> Iterator[str]:
        """Serve in a thread; the signer's URL."""
        with self.server(name, 0) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield f"https://{name}:{server.server_address[1]}{PATH}"
            finally:
                server.shutdown()
                thread.join()


def main(directory: Path, name: str, port: int) -> None:
    """Serve for ever."""
    authority = CertificateAuthority()
    with authority.server(name, port) as server:
        (directory / "root.pem").write_text(pem(authority.certificate))
        server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
